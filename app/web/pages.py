"""HTML pages, rendered from `app/templates/` with the texts of the reader's language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from app.core import i18n
from app.core.context import request_context

_QUOTED = re.compile("`([^`]+)`")
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
)


def with_code(text: str) -> Markup:
    """Return a text with what stands in backticks as code."""
    return Markup(_QUOTED.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 escaped first


_TEMPLATES.filters["with_code"] = with_code
_TEMPLATES.globals["fill"] = i18n.fill


def page(template: str, *, csp: str, locale: str | None = None, **values: Any) -> HTMLResponse:
    """Return a template in a language, the reader's unless given, under a content security
    policy."""
    locale = locale or request_context().locale
    body = _TEMPLATES.get_template(template).render(
        locale=locale, labels=i18n.find(locale, "pages"), **values
    )
    return HTMLResponse(
        body,
        headers={
            "Content-Security-Policy": csp,
            "Content-Language": locale,
            "Vary": "Accept-Language",
        },
    )
