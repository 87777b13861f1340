"""The purge when the database refuses a row: the rest is done and the refusal is reported."""

from __future__ import annotations

import io
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli import purge
from app.db import retention
from app.db.engine import Database
from app.db.retention import Rule
from app.models import Base
from app.models.posts import Post
from app.models.refresh_tokens import RefreshToken
from app.models.sessions import LoginSession
from app.models.users import User
from app.tasks import retention as purging
from tests.support import faults
from tests.support.client import Client
from tests.support.commands import invoke
from tests.support.purging import (
    EVERYTHING,
    LONG_AGO,
    bury,
    busy,
    count,
    in_small_batches,
    without_other_trash,
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_batches(monkeypatch)


# --- Refused ---------------------------------------------------------------------------------


def refuse(
    patch: pytest.MonkeyPatch, database: Database, model: type[Base], times: float = float("inf")
) -> None:
    """The driver refuses to delete rows of a table, the first times."""
    delete = retention._delete
    refusals: list[type[Base]] = []

    async def refusing(session: AsyncSession, of: type[Base], *rest: Any) -> int:
        if of is model and len(refusals) < times:
            refusals.append(of)
            raise OperationalError("DELETE", None, faults.GONE[database.dialect]())
        return await delete(session, of, *rest)

    patch.setattr(retention, "_delete", refusing)


async def test_one_refusal_does_not_stop_the_others(client: Client) -> None:
    """Users need their posts to go first; the next purge does the rest."""
    admin, ana, eva = await client.admin(), await busy(client, "Ana"), await busy(client, "Eva")
    settings = client.app.state.settings
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database)
    async with client.database.begin() as session:
        used = update(RefreshToken).values(used_at=LONG_AGO)
        await session.execute(used, execution_options=EVERYTHING)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, client.database, Post)
        done = await purging.purge_deleted(client.database, settings)
    assert set(done.failures) == {"users", "posts"}
    assert (done.counts["posts"], done.counts["users"], done.counts["mails"]) == (0, 0, 1)
    assert done.counts["refresh tokens"] == await count(client.database, User)
    assert await count(client.database, User, User.id == ana.id) == 1
    rest = await purging.purge_deleted(client.database, settings)
    assert not rest.failures
    assert (rest.counts["users"], rest.counts["posts"]) == (1, 6)
    assert (await eva.get("/users/me")).status_code == 200


@pytest.mark.usefixtures("same_database")
async def test_the_command_tells_what_was_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line for each kind, without what the driver says; it fails, and did all the rest."""
    eva = await client.user("Eva")
    await eva.delete(f"/posts/{(await eva.write(tags=['t']))['id']}")
    async with client.database.begin() as session:
        await session.execute(update(LoginSession).values(expires_at=LONG_AGO))
    await bury(client.database)
    with monkeypatch.context() as patch:
        refuse(patch, client.database, Post)
        result = await invoke("purge")
    known = {"sqlite": "", "mysql": ", errno 2013", "postgresql": ", sqlstate 57P01"}
    [line] = result.stderr.splitlines()
    assert line.startswith("cimiento: posts are not all purged: ")
    assert line.endswith(known[client.database.dialect])
    assert result.exit_code == 1
    assert "0 posts, 0 roles, 0 users, 1 sessions" in without_other_trash(result.stdout)
    result = await invoke("purge")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 posts" in result.stdout


async def test_a_defect_is_none_of_the_databases_refusals(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Rule, "look", broken)
    with pytest.raises(ZeroDivisionError):
        await purging.purge_deleted(client.database, client.app.state.settings)


# --- Pace and progress -----------------------------------------------------------------------


def test_batches_are_as_large_as_can_be_deleted_in_a_moment() -> None:
    pace = purging._Pace(900, 0.2)
    sizes = []
    for seconds in (0.01, 0.01, 0.15, 0.01, 0.01, 0.3, 0.3, 0.3, 0.3):
        pace.note(seconds)
        sizes.append(pace.size)
    assert sizes == [200, 400, 400, 800, 900, 450, 225, 112, 100]


@pytest.mark.parametrize("rule", retention.rules(), ids=lambda rule: rule.name)
def test_rules_have_what_they_need(rule: Rule) -> None:
    """An index that begins with what they look by, and a mark for rows that go step by step."""
    table: Any = rule.model.__table__
    if type(rule) is Rule:
        leading = ["state"] if rule.leading is not None else []
        wanted = [*leading, rule.due_column.key]
        indexes = [[column.name for column in index.columns] for index in table.indexes]
        assert any(columns[: len(wanted)] == wanted for columns in indexes)
    assert not rule.is_marked_first or rule.mark_column in table.columns
    for dependent in retention.dependents(rule.model):
        child: Any = dependent.kind.model.__table__
        indexes = [[column.name for column in index.columns] for index in child.indexes]
        assert any(columns[0] == dependent.column.key for columns in indexes)


async def test_a_terminal_shows_what_is_being_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with purge._progress() as progress:
        progress("users", 3_000)
        progress("users", 1_000)
        progress("posts", 7)
    assert "users" in shown.getvalue()
    assert "4,000 rows" in shown.getvalue()
    assert "7 rows" in shown.getvalue()
