"""The pages that links in mails lead to. Only a click does what they are for: programs that open
the links of mails, to look for malware, must not use them up."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from app.core import i18n
from app.core.context import request_context
from app.models.one_time_tokens import Purpose
from app.tasks.mail import PAGES
from app.web.dependencies import API, SettingsDep
from app.web.pages import page

# No form is ever sent: its button runs the script, which calls the API.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CALLS = {
    Purpose.verify_email: f"{API}/auth/email/verify",
    Purpose.change_email: f"{API}/auth/email/verify",
    Purpose.reset_password: f"{API}/auth/password/reset",
    Purpose.invitation: f"{API}/auth/password/reset",
}

router = APIRouter(prefix="/account", include_in_schema=False)


def _serve(purpose: Purpose) -> None:
    name, call = PAGES[purpose], _CALLS[purpose]

    @router.get(f"/{name}", name=name)
    async def serve(settings: SettingsDep) -> HTMLResponse:
        texts = i18n.find(request_context().locale, "account")
        return page(
            "account.html",
            csp=_CSP,
            call=call,
            texts=texts | texts[name],
            asks_for_password=call.endswith("reset"),
            hint=texts["hints"][settings.password_policy],
        )


for _purpose in Purpose:
    _serve(_purpose)
