"""Transactions of the commands: run again when the database asks for it, as those of requests."""

from __future__ import annotations

import random

import pytest
from pymysql.err import OperationalError as DriverError
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.commands import committed
from app.database import Database
from app.models.tags import Tag

DEADLOCK = OperationalError("", None, DriverError(1213, "Deadlock: WSREP conflict"))


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)


class Work:
    """Makes a tag, and meets these errors first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = [*errors]

    async def __call__(self, session: AsyncSession) -> int:
        session.add(Tag(name=f"tag{len(self.errors)}"))
        await session.flush()
        if self.errors:
            raise self.errors.pop()
        return 7


async def tags(database: Database) -> int:
    async with database.begin(readonly=True) as session:
        return await session.scalar(select(func.count()).select_from(Tag)) or 0


@pytest.mark.parametrize("deadlocks", [0, 1, 4])
async def test_deadlocks_are_followed_by_another_try(database: Database, deadlocks: int) -> None:
    assert await committed(database, Work(*[DEADLOCK] * deadlocks)) == 7
    assert await tags(database) == 1, "of those before nothing is left"


@pytest.mark.parametrize("errors", [[DEADLOCK] * 5, [ValueError()]])
async def test_what_does_not_end_or_is_a_defect_is_raised(
    database: Database, errors: list[Exception]
) -> None:
    work = Work(*errors)
    with pytest.raises(type(errors[0])):
        await committed(database, work)
    assert work.errors == []
    assert await tags(database) == 0
