"""The audit trail as its readers see it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from app.db.engine import Database
from app.models.audit_events import AuditEvent
from tests.support.client import Client, Person
from tests.support.concurrency import count
from tests.support.listings import page

Event = dict[str, Any]


async def events(admin: Person, **filters: Any) -> list[Event]:
    """The newest hundred that match, the oldest of them first."""
    found = await page(admin, "/audit-events", page_size=100, **filters)
    return list(reversed(found["items"]))


async def size(database: Database) -> int:
    return await count(database, select(func.count()).select_from(AuditEvent))


class Since:
    """What has been written to the trail since this was created."""

    def __init__(self, admin: Person, known: set[int]) -> None:
        self._admin = admin
        self._known = known

    @classmethod
    async def now(cls, admin: Person) -> Since:
        return cls(admin, {event["id"] for event in await events(admin)})

    async def take(self) -> list[Event]:
        """The events since the last call."""
        new = [event for event in await events(self._admin) if event["id"] not in self._known]
        self._known |= {event["id"] for event in new}
        return new

    async def summaries(self) -> list[tuple[Any, ...]]:
        """Take the events since the last call, each as act, actor, subject and details."""
        return [short(event) for event in await self.take()]


def short(event: Event) -> tuple[Any, ...]:
    """An event as act, actor, subject and details."""
    subject = (event["subject_type"], event["subject_id"])
    return event["act"], event["actor_id"], subject, event["details"]


async def fail_to_log_in(client: Client, email: str, password: str = "Wrong-Horse-7") -> None:
    form = {"username": email, "password": password}
    response = await client.request("POST", "/auth/login", data=form)
    assert response.status_code == 401
