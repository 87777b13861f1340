"""Accounts and logins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Response

from app.core.exceptions import (
    EmailTaken,
    InvalidCredentials,
    InvalidRefreshToken,
    RegistrationDisabled,
)
from app.crud import accounts, auth, users
from app.models.users import email_key
from app.quotas import Door
from app.routers.bodies import StrictRoute
from app.routers.creating import PublicCreation, made
from app.routers.deps import (
    API,
    MAILS,
    DatabaseDep,
    PasswordsDep,
    SessionDep,
    SettingsDep,
    TokensDep,
)
from app.routers.doors import LoginAttempt, RegisterAttempt
from app.routers.lists import Json
from app.routers.responses import problems
from app.routers.sessions import refresh, token_answer
from app.schemas import auth as schemas
from app.schemas import users as user_schemas

router = APIRouter(prefix=f"{API}/auth", tags=["auth"], route_class=StrictRoute)


async def _registration_enabled(settings: SettingsDep) -> None:
    if not settings.registration_enabled:
        raise RegistrationDisabled


@router.post(
    "/register",
    status_code=201,
    response_model=user_schemas.User,
    responses=problems(EmailTaken, RegistrationDisabled),
    dependencies=[Depends(_registration_enabled), MAILS],
)
async def register(
    creation: PublicCreation,
    attempt: RegisterAttempt,
    data: user_schemas.Registration,
    session: SessionDep,
    passwords: PasswordsDep,
    settings: SettingsDep,
) -> Response:
    """Make an account. A welcome mail follows, with a link that confirms the address."""
    policy, keys = settings.password_policy, settings.keys
    # Before anything is counted for an address: what is refused leaves no trace of it.
    users.refuse_weak(data.password, policy, email=data.email, name=data.name)
    await creation.take_turn(attempt.claim)

    async def make() -> Json:
        await attempt.register(email_key(data.email))
        user = await users.register(
            session, data=data, passwords=passwords, policy=policy, keys=keys
        )
        await attempt.trust(user.id)
        creation.belongs_to(user.id)
        shown = await accounts.show_all(session, user_id=user.id)
        return made(shown, at=f"{API}/users/{user.id}")

    return await creation.within(session, make)


@router.post("/login", responses=problems(InvalidCredentials, InvalidRefreshToken))
async def login(
    attempt: LoginAttempt,
    form: Annotated[schemas.LoginForm, Form()],
    database: DatabaseDep,
    passwords: PasswordsDep,
    tokens: TokensDep,
    settings: SettingsDep,
) -> schemas.Token:
    """Log in with e-mail (`username`) and password, as the OAuth2 password grant does.

    This is the token endpoint of OAuth2 clients: with `grant_type=refresh_token` (RFC 6749 §6) it
    does what `POST /api/v1/auth/refresh` does.
    """
    if form.grant_type == "refresh_token":
        attempt.move_to(Door.refresh)
        await attempt.enter()
        given = schemas.Refresh(refresh_token=form.refresh_token)
        return await refresh(given, database, tokens, settings)
    await attempt.enter()
    with passwords.slot(email_key(form.username)):
        grant = await auth.log_in(
            database,
            passwords=passwords,
            attempt=attempt,
            email=form.username,
            password=form.password,
            idle_days=settings.refresh_token_days,
            days=settings.session_days,
        )
    return token_answer(tokens, grant)
