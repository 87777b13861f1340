"""What the links in mails are for: forgotten passwords, confirmed addresses."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.core.exceptions import EmailTaken, InvalidOneTimeToken
from app.crud import account_recovery
from app.rate_limits.rules import LimitedAction
from app.schemas import account_recovery as schemas
from app.web.dependencies import (
    API,
    WAKE_MAIL_DELIVERY,
    DatabaseDep,
    MyAccount,
    PasswordsDep,
    SessionDep,
    SettingsDep,
)
from app.web.error_responses import error_responses
from app.web.rate_limits import ForgotAttempt, ResendAttempt, ResetAttempt, limited
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/auth", tags=["auth"], route_class=StrictRoute)


@router.post(
    "/password/forgot",
    status_code=202,
    response_class=Response,
    response_model=None,
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def forgot_password(
    attempt: ForgotAttempt,
    data: schemas.ForgottenPassword,
    database: DatabaseDep,
    settings: SettingsDep,
) -> None:
    """Request a password reset.

    Mail a link that sets a new password to the owner of the account. The answer is the same
    if there is no account with this address, because it must not reveal which addresses have
    one.
    """
    await account_recovery.forget_password(
        database, keys=settings.keys, attempt=attempt, email=data.email
    )


@router.post(
    "/password/reset",
    status_code=204,
    responses=error_responses(InvalidOneTimeToken),
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def reset_password(
    attempt: ResetAttempt,
    data: schemas.PasswordReset,
    database: DatabaseDep,
    session: SessionDep,
    passwords: PasswordsDep,
    settings: SettingsDep,
) -> None:
    """Set a password with the token of a mail.

    Send the token of a mail for a forgotten password, or of an invitation. Every session of
    the user ends.
    """
    await account_recovery.reset_password(
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
    responses=error_responses(InvalidOneTimeToken, EmailTaken),
    dependencies=[limited(LimitedAction.verify), WAKE_MAIL_DELIVERY],
)
async def verify_email(
    data: schemas.EmailVerification,
    session: SessionDep,
) -> None:
    """Confirm an email address.

    Send the token that was mailed to the address. If it is a new address of an account, it
    takes effect, and every session of the user ends.
    """
    await account_recovery.verify_email(session, token=data.token)


@router.post(
    "/email/verify/resend",
    status_code=202,
    response_class=Response,
    response_model=None,
    dependencies=[WAKE_MAIL_DELIVERY],
)
async def resend_verification(
    attempt: ResendAttempt,
    user: MyAccount,
    session: SessionDep,
    settings: SettingsDep,
) -> None:
    """Request another verification mail.

    Mail another link that confirms your address. No mail follows if the address is confirmed
    already.
    """
    await account_recovery.resend_verification(
        session, keys=settings.keys, attempt=attempt, user=user
    )
