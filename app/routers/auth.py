"""Accounts and logins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from app.core.exceptions import (
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    RegistrationDisabled,
)
from app.crud import auth, user_queries, users
from app.models.users import email_key
from app.rate_limits.rules import LimitedAction
from app.routers.sessions import renewed, token_answer
from app.schemas import auth as schemas
from app.schemas import users as user_schemas
from app.web.dependencies import (
    API,
    WAKE_MAIL_DELIVERY,
    DatabaseDep,
    PasswordsDep,
    SessionDep,
    SettingsDep,
)
from app.web.error_responses import error_responses
from app.web.idempotency import IdempotentPublicRequest
from app.web.rate_limits import LoginAttempt, RegisterAttempt
from app.web.responses import FastJSONResponse, created_response
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/auth", tags=["auth"], route_class=StrictRoute)


async def _registration_enabled(settings: SettingsDep) -> None:
    if not settings.registration_enabled:
        raise RegistrationDisabled


@router.post(
    "/register",
    status_code=201,
    response_model=user_schemas.User,
    responses=error_responses(EmailTaken, RegistrationDisabled),
    dependencies=[Depends(_registration_enabled), WAKE_MAIL_DELIVERY],
)
async def register(
    idempotent: IdempotentPublicRequest,
    attempt: RegisterAttempt,
    data: user_schemas.Registration,
    session: SessionDep,
    passwords: PasswordsDep,
    settings: SettingsDep,
) -> Response:
    """Register an account.

    The account gets the role `user`. A welcome mail follows, with a link that confirms the
    address.
    """
    policy, keys = settings.password_policy, settings.keys
    # Before anything is counted for an address: what is refused leaves no trace of it.
    users.refuse_weak(data.password, policy, email=data.email, name=data.name)
    await idempotent.wait_for_key(attempt.claim)

    async def make() -> FastJSONResponse:
        await attempt.register(email_key(data.email))
        user = await users.register(
            session, data=data, passwords=passwords, policy=policy, keys=keys
        )
        await attempt.trust(user.id)
        idempotent.belongs_to(user.id)
        shown = await user_queries.show_all(session, user_id=user.id)
        return created_response(shown, at=f"{API}/users/{user.id}")

    return await idempotent.run_in_session(session, make)


@router.post("/login", responses=error_responses(InvalidCredentials, InvalidRefreshToken))
async def login(
    attempt: LoginAttempt,
    form: Annotated[schemas.LoginForm, Form()],
    database: DatabaseDep,
    passwords: PasswordsDep,
    settings: SettingsDep,
    request: Request,
) -> schemas.Token:
    """Log in with email and password.

    Send the email address as `username`, as the OAuth2 password grant does. Send the
    `access_token` of the answer as `Authorization: Bearer …`, and keep its `refresh_token` to
    get the next tokens.

    This is the token endpoint of OAuth2 clients: with `grant_type=refresh_token` (RFC 6749
    §6) it does what `POST /api/v1/auth/refresh` does.
    """
    if form.grant_type == "refresh_token":
        attempt.move_to(LimitedAction.refresh)
        await attempt.enter()
        return await renewed(form.refresh_token, database, settings, request, form.scope)
    await attempt.enter()
    async with passwords.turn(email_key(form.username)):
        grant = await auth.log_in(
            database,
            passwords=passwords,
            attempt=attempt,
            email=form.username,
            password=form.password,
            idle_days=settings.refresh_token_days,
            days=settings.session_days,
            scope=form.scope or None,
        )
    return token_answer(request, grant)
