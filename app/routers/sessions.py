"""Sessions: kept going by their refresh tokens, seen and ended by their users."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.exceptions import InvalidRefreshToken
from app.core.security import AccessTokens
from app.crud import sessions
from app.crud.refresh import Grant, renew
from app.quotas import Door
from app.routers.bodies import StrictRoute
from app.routers.deps import (
    API,
    ActingCaller,
    CurrentCaller,
    DatabaseDep,
    Id,
    SessionDep,
    SettingsDep,
    TokensDep,
    pages_of,
)
from app.routers.doors import limited
from app.routers.lists import Json, listed, parsed
from app.routers.responses import problems
from app.schemas import auth as auth_schemas
from app.schemas import sessions as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/auth", tags=["auth"], route_class=StrictRoute)
SessionQuery = Annotated[schemas.SessionQuery, parsed(schemas.SessionQuery)]


@router.post(
    "/refresh",
    responses=problems(InvalidRefreshToken),
    dependencies=[limited(Door.refresh)],
)
async def refresh(
    data: auth_schemas.Refresh, database: DatabaseDep, tokens: TokensDep, settings: SettingsDep
) -> auth_schemas.Token:
    """Get a new access token, and the next refresh token: each is good for one use.

    Within a few seconds (`REFRESH_GRACE_SECONDS`) a token that was just used gets the same
    answer again. Later use ends the whole session, and its user is told by mail. OAuth2 clients
    send the form of RFC 6749 §6 to `POST /api/v1/auth/login` instead.
    """
    grant = await renew(
        database,
        token=data.refresh_token,
        keys=settings.keys,
        idle_days=settings.refresh_token_days,
        days=settings.session_days,
        grace_seconds=settings.refresh_grace_seconds,
    )
    return token_answer(tokens, grant)


def token_answer(tokens: AccessTokens, grant: Grant) -> auth_schemas.Token:
    """The body that answers a login or a refresh."""
    return auth_schemas.Token(
        access_token=tokens.issue(user_id=grant.user_id, session_id=grant.session_id),
        token_type="bearer",  # noqa: S106 no secret
        expires_in=tokens.lifetime_seconds,
        refresh_token=grant.refresh_token,
    )


@router.post("/logout", status_code=204)
async def logout(caller: ActingCaller, session: SessionDep) -> None:
    """End this session at once."""
    await sessions.log_out(session, caller=caller)


@router.get("/sessions", response_model=Page[schemas.Session])
async def list_sessions(caller: CurrentCaller, query: SessionQuery, request: Request) -> Json:
    """List where you are logged in."""
    return listed(request, await sessions.list_own(pages_of(request), caller=caller, query=query))


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: Id, caller: ActingCaller, session: SessionDep) -> None:
    """End one of your sessions at once."""
    await sessions.end(session, caller=caller, session_id=session_id)


@router.delete("/sessions", status_code=204)
async def end_other_sessions(caller: ActingCaller, session: SessionDep) -> None:
    """End all your sessions but this one at once."""
    await sessions.end_others(session, caller=caller)
