"""Sessions: kept going by their refresh tokens, seen and ended by their users."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.config import Settings
from app.core.exceptions import InvalidRefreshToken
from app.core.security import AccessTokens
from app.crud import sessions
from app.crud.refresh_tokens import Grant, renew
from app.db.engine import Database
from app.rate_limits.rules import LimitedAction
from app.schemas import auth as auth_schemas
from app.schemas import sessions as schemas
from app.schemas.pages import Page
from app.web.dependencies import (
    API,
    ActingCaller,
    CurrentCaller,
    DatabaseDep,
    Id,
    SessionDep,
    SettingsDep,
    paginator_of,
)
from app.web.error_responses import error_responses
from app.web.pagination import page_response, query_params
from app.web.rate_limits import limited
from app.web.responses import FastJSONResponse
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/auth", tags=["auth"], route_class=StrictRoute)
SessionQuery = Annotated[schemas.SessionQuery, query_params(schemas.SessionQuery)]


@router.post(
    "/refresh",
    responses=error_responses(InvalidRefreshToken),
    dependencies=[limited(LimitedAction.refresh)],
)
async def refresh(
    data: auth_schemas.Refresh, database: DatabaseDep, settings: SettingsDep, request: Request
) -> auth_schemas.Token:
    """Refresh the tokens of a session.

    Get a new access token, and the next refresh token: each is good for one use.

    Within a few seconds (`REFRESH_GRACE_SECONDS`) a token that was just used gets the same
    answer again, because the first may have been lost. Later use ends the whole session,
    because the token may have been stolen, and a mail tells its user. OAuth2 clients send the
    form of RFC 6749 §6 to `POST /api/v1/auth/login` instead.
    """
    return await renewed(data.refresh_token, database, settings, request)


async def renewed(
    token: str, database: Database, settings: Settings, request: Request, scope: str = ""
) -> auth_schemas.Token:
    """Return the body that answers a refresh."""
    grant = await renew(
        database,
        token=token,
        keys=settings.keys,
        idle_days=settings.refresh_token_days,
        days=settings.session_days,
        grace_seconds=settings.refresh_grace_seconds,
        scope=scope,
    )
    return token_answer(request, grant)


def token_answer(request: Request, grant: Grant) -> auth_schemas.Token:
    """Return the body that answers a login or a refresh."""
    tokens: AccessTokens = request.app.state.tokens
    return auth_schemas.Token(
        access_token=tokens.issue(user_id=grant.user_id, session_id=grant.session_id),
        token_type="bearer",  # noqa: S106 no secret
        expires_in=tokens.lifetime_seconds,
        refresh_token=grant.refresh_token,
        scope=" ".join(sorted(grant.permissions)),
    )


@router.post("/logout", status_code=204)
async def logout(caller: ActingCaller, session: SessionDep) -> None:
    """Log out.

    End the session of the access token at once: both its tokens are refused from then on.
    """
    await sessions.log_out(session, caller=caller)


@router.get("/sessions", response_model=Page[schemas.Session])
async def list_sessions(
    caller: CurrentCaller, query: SessionQuery, request: Request
) -> FastJSONResponse:
    """List your sessions.

    List where you are logged in. `current` marks the session that sends the request.
    """
    return page_response(
        request, await sessions.list_own(paginator_of(request), caller=caller, query=query)
    )


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session_id: Id, caller: ActingCaller, session: SessionDep) -> None:
    """End one of your sessions.

    The tokens of the session are refused at once.
    """
    await sessions.end(session, caller=caller, session_id=session_id)


@router.delete("/sessions", status_code=204)
async def end_other_sessions(caller: ActingCaller, session: SessionDep) -> None:
    """End all your other sessions.

    The tokens of those sessions are refused at once. The session that sends the request
    stays.
    """
    await sessions.end_others(session, caller=caller)
