"""Accounts and logins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Response

from app.core.exceptions import EmailTaken, InvalidCredentials, RegistrationDisabled
from app.crud import auth, sessions, users
from app.models.users import User
from app.routers.deps import (
    API,
    CurrentCaller,
    DatabaseDep,
    DispatcherDep,
    PasswordsDep,
    SessionDep,
    SettingsDep,
    TokensDep,
)
from app.routers.responses import problems
from app.schemas import auth as schemas
from app.schemas import users as user_schemas

router = APIRouter(prefix=f"{API}/auth", tags=["auth"])


async def _registration_enabled(settings: SettingsDep) -> None:
    if not settings.registration_enabled:
        raise RegistrationDisabled


@router.post(
    "/register",
    status_code=201,
    response_model=user_schemas.User,
    responses=problems(EmailTaken, RegistrationDisabled),
    dependencies=[Depends(_registration_enabled)],
)
async def register(
    data: user_schemas.Registration,
    session: SessionDep,
    passwords: PasswordsDep,
    settings: SettingsDep,
    response: Response,
    background: BackgroundTasks,
    dispatcher: DispatcherDep,
) -> User:
    """Make an account. A welcome mail follows."""
    user = await users.register(
        session, data=data, passwords=passwords, policy=settings.password_policy
    )
    response.headers["Location"] = f"{API}/users/{user.id}"
    background.add_task(dispatcher.wake)
    return user


@router.post("/login", response_model=schemas.Token, responses=problems(InvalidCredentials))
async def login(
    form: Annotated[schemas.LoginForm, Form()],
    database: DatabaseDep,
    passwords: PasswordsDep,
    tokens: TokensDep,
    settings: SettingsDep,
) -> schemas.Token:
    """Log in with e-mail (`username`) and password, as the OAuth2 password grant does."""
    login = await auth.log_in(
        database,
        passwords=passwords,
        email=form.username,
        password=form.password,
        days=settings.session_days,
    )
    return schemas.Token(
        access_token=tokens.issue(user_id=login.user_id, session_id=login.id),
        token_type="bearer",  # noqa: S106 no secret
        expires_in=tokens.lifetime_seconds,
    )


@router.post("/logout", status_code=204)
async def logout(caller: CurrentCaller, session: SessionDep) -> None:
    """End this session at once."""
    await sessions.end(session, session_id=caller.session_id)
