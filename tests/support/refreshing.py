"""Refreshing, and what it leaves in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx2
from sqlalchemy import func, select

from app.models.audit_events import AuditAct, AuditEvent
from app.models.outbox import Mail, MailKind
from app.models.refresh_tokens import RefreshToken
from app.models.sessions import LoginSession
from tests.support.client import Client


async def attempt(client: Client, token: str) -> httpx2.Response:
    """A refresh as it is answered, whatever the answer."""
    headers = {"X-Request-ID": "always-the-same"}
    return await client.post("/auth/refresh", {"refresh_token": token}, headers=headers)


async def renewed(client: Client, token: str) -> dict[str, Any]:
    """The answer to a refresh, which must succeed."""
    response = await attempt(client, token)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def refused(client: Client, token: str) -> None:
    """A refresh that must fail."""
    response = await attempt(client, token)
    assert (response.status_code, response.json()["code"]) == (401, "invalid_refresh_token")


async def opens(client: Client, login: dict[str, Any]) -> bool:
    """Whether the access token of an answer is good."""
    headers = {"Authorization": f"Bearer {login['access_token']}"}
    response = await client.get("/users/me", headers=headers)
    assert response.status_code in {200, 401}
    return response.status_code == 200


async def pass_time(client: Client, passed: timedelta) -> None:
    """Let everything about sessions have happened earlier than it did."""
    async with client.database.begin() as session:
        for login in await session.scalars(select(LoginSession)):
            login.created_at -= passed
            login.last_used_at -= passed
            login.expires_at -= passed
        used = select(RefreshToken).where(RefreshToken.used_at.is_not(None))
        for token in await session.scalars(used):
            assert token.used_at
            token.used_at -= passed


async def the_session(client: Client) -> LoginSession:
    """The only session there is."""
    async with client.database.begin(readonly=True) as session:
        return (await session.scalars(select(LoginSession))).one()


async def unused(client: Client) -> int:
    """How many tokens wait for their use, in sessions that have not ended."""
    statement = select(func.count()).select_from(RefreshToken).join(LoginSession)
    live = statement.where(RefreshToken.used_at.is_(None), LoginSession.ended_at.is_(None))
    async with client.database.begin(readonly=True) as session:
        return int(await session.scalar(live) or 0)


async def events(client: Client, act: AuditAct) -> Sequence[AuditEvent]:
    """The events of a kind, oldest first."""
    statement = select(AuditEvent).where(AuditEvent.act == act).order_by(AuditEvent.id)
    async with client.database.begin(readonly=True) as session:
        return (await session.scalars(statement)).all()


async def alarms(client: Client) -> tuple[int, int]:
    """How many events and how many mails tell of a copied token."""
    statement = select(Mail.id).where(Mail.kind == MailKind.session_reused)
    async with client.database.begin(readonly=True) as session:
        mails = (await session.scalars(statement)).all()
    return len(await events(client, AuditAct.session_reused)), len(mails)
