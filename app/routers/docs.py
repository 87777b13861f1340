"""Pages for people: the API docs and the explanations of errors, all from this server."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import fastapi_offline
from fastapi import APIRouter
from fastapi import Path as PathParam
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from app.core import i18n
from app.core.context import request_context
from app.core.exceptions import AppError, NotFound, all_errors
from app.web.error_responses import EXAMPLE_VALUES, example
from app.web.pages import page

_APP = Path(__file__).parent.parent
# Scripts only from here, none inline. Both viewers set styles from script and draw with data:
# images; ReDoc searches in a worker that it loads from a blob.
_DOCS_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PAGE_CSP = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"
# The document, and the viewers around it, are in no other language.
_DOCS_LOCALE = "en"
_FOR_A_DAY = "public, max-age=86400"
_ERRORS: dict[str, type[AppError]] = {kind.code: kind for kind in all_errors()}

docs_router = APIRouter(include_in_schema=False)
errors_router = APIRouter(include_in_schema=False)


class Assets(StaticFiles):
    """Static files that browsers may keep for a day. Always whole: a bad range would be refused
    in another shape than all other errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [entry for entry in scope["headers"] if entry[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = _FOR_A_DAY
        return response


# The scripts and styles of Swagger UI and ReDoc, as the fastapi-offline package ships them.
_VENDOR = Path(fastapi_offline.__file__).parent / "static"
vendor_assets = Assets(directory=_VENDOR)
own_assets = Assets(directory=_APP / "static")


@docs_router.get("/docs")
async def swagger_ui() -> HTMLResponse:
    """Show the API docs, to try every operation out."""
    return page("swagger.html", csp=_DOCS_CSP, locale=_DOCS_LOCALE)


@docs_router.get("/redoc")
async def redoc() -> HTMLResponse:
    """Show the API docs, to read."""
    return page("redoc.html", csp=_DOCS_CSP, locale=_DOCS_LOCALE)


@docs_router.get("/static/vendor/redoc.standalone.js")
async def redoc_script() -> Response:
    """Return ReDoc, without the one image that it loads from elsewhere (and our CSP refuses)."""
    return Response(
        _redoc_script(), media_type="text/javascript", headers={"Cache-Control": _FOR_A_DAY}
    )


@cache
def _redoc_script() -> bytes:
    script = (_VENDOR / "redoc.standalone.js").read_bytes()
    return script.replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")


@errors_router.get("/errors")
async def list_errors() -> HTMLResponse:
    """Show every error code with its meaning."""
    texts = i18n.find(request_context().locale, "errors")
    errors = [(kind, texts[code]) for code, kind in sorted(_ERRORS.items())]
    return page("errors.html", csp=_PAGE_CSP, errors=errors, shown=EXAMPLE_VALUES)


@errors_router.get("/errors/{code}")
async def explain_error(code: Annotated[str, PathParam(max_length=64)]) -> HTMLResponse:
    """Show what an error means: its cause, what to do, an example."""
    kind = _ERRORS.get(code)
    if kind is None:
        raise NotFound
    locale = request_context().locale
    body = json.dumps(example(kind, locale), indent=2, ensure_ascii=False)
    texts = i18n.find(locale, "errors", code)
    return page(
        "error.html", csp=_PAGE_CSP, kind=kind, texts=texts, example=body, shown=EXAMPLE_VALUES
    )
