"""What the links in mails are for: forgotten passwords, confirmed addresses."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.core.exceptions import EmailTaken, InvalidOneTimeToken
from app.crud import recovery
from app.quotas import Door
from app.routers.bodies import StrictRoute
from app.routers.deps import (
    API,
    MAILS,
    DatabaseDep,
    MyAccount,
    PasswordsDep,
    SessionDep,
    SettingsDep,
)
from app.routers.doors import ForgotAttempt, ResendAttempt, ResetAttempt, limited
from app.routers.responses import problems
from app.schemas import recovery as schemas

router = APIRouter(prefix=f"{API}/auth", tags=["auth"], route_class=StrictRoute)


@router.post(
    "/password/forgot",
    status_code=202,
    response_class=Response,
    response_model=None,
    dependencies=[MAILS],
)
async def forgot_password(
    attempt: ForgotAttempt,
    data: schemas.ForgottenPassword,
    database: DatabaseDep,
    settings: SettingsDep,
) -> None:
    """Ask for a mail with a link that sets a new password. The answer never tells whether there
    is such an account."""
    await recovery.forget_password(database, keys=settings.keys, attempt=attempt, email=data.email)


@router.post(
    "/password/reset",
    status_code=204,
    responses=problems(InvalidOneTimeToken),
    dependencies=[MAILS],
)
async def reset_password(
    attempt: ResetAttempt,
    data: schemas.PasswordReset,
    database: DatabaseDep,
    session: SessionDep,
    passwords: PasswordsDep,
    settings: SettingsDep,
) -> None:
    """Set a password by the link of a mail: forgotten, or an invitation. Ends every session."""
    await recovery.reset_password(
        database,
        session,
        passwords=passwords,
        policy=settings.password_policy,
        attempt=attempt,
        token=data.token,
        password=data.password,
    )


@router.post(
    "/email/verify",
    status_code=204,
    responses=problems(InvalidOneTimeToken, EmailTaken),
    dependencies=[limited(Door.verify), MAILS],
)
async def verify_email(
    data: schemas.EmailVerification,
    session: SessionDep,
) -> None:
    """Confirm an address by the link that was mailed to it. A new address takes effect with it,
    and ends every session."""
    await recovery.verify_email(session, token=data.token)


@router.post(
    "/email/verify/resend",
    status_code=202,
    response_class=Response,
    response_model=None,
    dependencies=[MAILS],
)
async def resend_verification(
    attempt: ResendAttempt,
    user: MyAccount,
    session: SessionDep,
    settings: SettingsDep,
) -> None:
    """Ask for another mail with a link that confirms your address; none follows when it is
    confirmed already."""
    await recovery.resend_verification(session, keys=settings.keys, attempt=attempt, user=user)
