"""The purge batch by batch: cut off anywhere, raced, refused; nothing that lives goes with it."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.crud import trash
from app.crud.trash import Limits, Rule
from app.database import Database
from app.models import Base
from app.models.base import CONDEMNED, INCLUDE_DELETED, utc_now
from app.models.idempotency import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.sessions import LoginSession, RefreshToken
from app.models.tags import PostTag
from app.models.users import User, UserRole
from app.tasks import commands
from app.tasks import purge as purging
from tests.support import faults
from tests.support.client import Client, Person
from tests.support.commands import invoke
from tests.support.keys import send
from tests.support.purging import empty

EVERYTHING: dict[str, Any] = {INCLUDE_DELETED: True, "synchronize_session": False}
LONG_AGO = utc_now() - timedelta(days=400)
LIMIT = utc_now() - timedelta(days=30)
OWNED = (Mail, LoginSession, OneTimeToken, IdempotencyKey, UserRole)


class Killed(BaseException):
    """As kill -9: nothing may catch it, and nothing is put right after it."""


async def bury(database: Database, *, users: bool = True, posts: bool = True) -> None:
    """Let all that is in the trash have lain there for long."""
    async with database.begin() as session:
        for model in [User] * users + [Post] * posts:
            old = update(model).where(model.deleted_at.is_not(None)).values(deleted_at=LONG_AGO)
            await session.execute(old, execution_options=EVERYTHING)


async def count(database: Database, model: type[Base], *conditions: Any) -> int:
    async with database.begin(readonly=True) as session:
        counted = select(func.count()).select_from(model).where(*conditions)
        return int(await session.scalar(counted, execution_options=EVERYTHING) or 0)


async def belongings(database: Database, person: Person) -> dict[str, int]:
    """How many rows of each table belong to somebody, dead or alive."""
    own: list[tuple[Any, Any]] = [(Post, Post.author_id)] + [(each, each.user_id) for each in OWNED]
    found = {
        model.__tablename__: await count(database, model, column == person.id)
        for model, column in own
    }
    tagged = PostTag.post_id.in_(select(Post.id).where(Post.author_id == person.id))
    sessions = select(LoginSession.id).where(LoginSession.user_id == person.id)
    return found | {
        "post_tags": await count(database, PostTag, tagged),
        "refresh_tokens": await count(
            database, RefreshToken, RefreshToken.session_id.in_(sessions)
        ),
    }


async def busy(client: Client, name: str) -> Person:
    """Somebody with something in every table, and a post that is in the trash."""
    person = await client.user(name)
    for number in range(3):
        await person.write(tags=[f"{name}-{number}".lower(), "shared"])
    body = {"title": "Kept", "content": "", "tags": ["shared"]}
    kept = await send(person, "/posts", body, f"key-{name}")
    await person.delete(f"/posts/{(await person.write(tags=['shared']))['id']}")
    assert kept.status_code == 201
    return person


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes several looks and several batches."""
    monkeypatch.setattr(purging, "MAX_BATCH", 2)
    monkeypatch.setattr(purging, "MAX_PARENTS", 1)
    monkeypatch.setattr(trash, "LOOK", 3)
    monkeypatch.setattr(trash, "TAGS_LOOK", 3)


def hooked(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], Awaitable[None]]) -> list[None]:
    """Call something before each batch, with its number from 0; the batches so far."""
    batches: list[None] = []
    run = Database.run

    async def hooked_run(self: Database, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        await before(len(batches))
        batches.append(None)
        return await run(self, work)

    monkeypatch.setattr(Database, "run", hooked_run)
    return batches


# --- Cut off ---------------------------------------------------------------------------------


async def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next(client: Client) -> None:
    """After the first batch, after the second, …: until one is not killed any more."""
    admin, live = await client.admin(), await busy(client, "Live")
    dead = [await busy(client, name) for name in ("Ana", "Eva")]
    for person in dead:
        assert (await admin.delete(f"/users/{person.id}")).status_code == 204
    await bury(client.database)
    before = await belongings(client.database, live)
    kills = 0
    while (done := await killed_after(client.database, kills % 7 + 1)) is None:
        kills += 1
    assert kills > 3
    assert not done.failures
    for person in dead:
        assert set((await belongings(client.database, person)).values()) == {0}
        assert await count(client.database, User, User.id == person.id) == 0
    # Their post in the trash goes by itself.
    tagged = {name: before[name] - 1 for name in ("posts", "post_tags")}
    assert await belongings(client.database, live) == before | tagged
    assert (await live.get("/users/me")).status_code == 200
    again = await purging.follow(client.database, trash.RULES, Limits(LIMIT))
    assert set(again.counts.values()) == {0}


async def killed_after(database: Database, batches: int) -> purging.Purged | None:
    """Purge; None if it came to a batch with this number, and was killed there."""

    async def kill(batch: int) -> None:
        if batch == batches:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        hooked(patch, kill)
        try:
            return await purging.follow(database, trash.RULES, Limits(LIMIT))
        except Killed:
            return None


async def test_a_user_whose_purge_has_begun_is_gone_for_everybody(client: Client) -> None:
    """Else they would come back without what has been deleted already."""
    admin, ana = await client.admin(), await busy(client, "Ana")
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database)
    [post_id, *_] = await posts_of(client.database, ana)
    assert await killed_after(client.database, 1) is None
    assert await count(client.database, User, User.deleted_at == CONDEMNED) == 1
    assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 404
    assert (await admin.post(f"/posts/{post_id}/restore")).status_code == 409
    assert (await admin.get("/users?deleted=true")).json()["items"] == []
    assert (await empty(client.database, before=LIMIT))["users"] == 1


async def posts_of(database: Database, person: Person) -> list[int]:
    async with database.begin(readonly=True) as session:
        found = select(Post.id).where(Post.author_id == person.id).order_by(Post.id)
        return [*await session.scalars(found, execution_options=EVERYTHING)]


# --- Raced -----------------------------------------------------------------------------------


async def test_what_is_restored_after_the_look_stays(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post with its tags; a user with all that is theirs, and what went along with them."""
    admin, ana, eva = await client.admin(), await busy(client, "Ana"), await client.user("Eva")
    post = await eva.write(tags=["hers"])
    await eva.delete(f"/posts/{post['id']}")
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database)
    before = await belongings(client.database, ana)

    async def restore(batch: int) -> None:
        if not batch:
            assert (await eva.post(f"/posts/{post['id']}/restore")).status_code == 200
            assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 200

    batches = hooked(monkeypatch, restore)
    done = await purging.follow(client.database, trash.TRASH, Limits(LIMIT))
    assert batches
    # The one that was in the trash before its author was.
    assert done.counts == Counter(dict.fromkeys(done.counts, 0) | {"posts": 1})
    tagged = {name: before[name] - 1 for name in ("posts", "post_tags")}
    assert await belongings(client.database, ana) == before | tagged
    assert (await client.get(f"/posts/{post['id']}")).json()["tags"] == ["hers"]


async def test_posts_wait_for_the_author_they_went_to_the_trash_with(client: Client) -> None:
    """However old: who restores the author has them back."""
    admin, ana = await client.admin(), await client.user()
    post = await ana.write()
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database, users=False)
    assert set((await empty(client.database, before=LIMIT)).values()) == {0}
    assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 200
    assert (await client.get(f"/posts/{post['id']}")).status_code == 200


@pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
async def test_what_a_request_holds_is_passed_over(client: Client, other_process: Database) -> None:
    """Until the next purge; nobody waits for anybody."""
    eva = await client.user("Eva")
    held, *free = [(await eva.write())["id"] for _ in range(5)]
    for post_id in (held, *free):
        await eva.delete(f"/posts/{post_id}")
    await bury(client.database)
    async with other_process.begin() as session:
        locking = select(Post.id).where(Post.id == held).with_for_update()
        await session.execute(locking, execution_options=EVERYTHING)
        assert (await empty(client.database, before=LIMIT))["posts"] == len(free)
    assert (await empty(client.database, before=LIMIT))["posts"] == 1


async def test_two_purges_and_restores_at_once(client: Client) -> None:
    """Who is told that a post is back finds it, and both purges end."""
    eva = await client.user("Eva")
    ids = [(await eva.write(tags=["t"]))["id"] for _ in range(12)]
    for post_id in ids:
        await eva.delete(f"/posts/{post_id}")
    await bury(client.database)
    restoring = asyncio.gather(*(eva.post(f"/posts/{post_id}/restore") for post_id in ids[::-2]))
    purges = asyncio.gather(*(empty(client.database, before=LIMIT) for _ in range(2)))
    answers, (first, second) = await restoring, await purges
    restored = {answer.json()["id"] for answer in answers if answer.status_code == 200}
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert set(await posts_of(client.database, eva)) == restored
    assert first["posts"] + second["posts"] + len(restored) == len(ids)


async def test_a_look_that_finds_nothing_but_what_is_held_is_the_last(client: Client) -> None:
    """As when more rows than a look finds, of one moment, are held."""
    looks: list[Any] = []

    class Held(Rule):
        async def look(self, session: AsyncSession, limits: Limits, start: Any) -> trash.Found:
            looks.append(start)
            return await super().look(session, limits, start)

        async def delete(self, *_: Any) -> int:
            return 0

    eva = await client.user("Eva")
    for _ in range(4):
        await eva.delete(f"/posts/{(await eva.write())['id']}")
    await bury(client.database)
    rule = Held(Post, "posts", Post.deleted_at)
    done = await purging.follow(client.database, [rule], Limits(LIMIT))
    assert done.counts["posts"] == 0
    assert looks == [None, LONG_AGO]


# --- Refused ---------------------------------------------------------------------------------


def refuse(
    patch: pytest.MonkeyPatch, database: Database, model: type[Base], times: float = float("inf")
) -> None:
    """The driver refuses to delete rows of a table, the first times."""
    delete = trash._delete
    refusals: list[type[Base]] = []

    async def refusing(session: AsyncSession, of: type[Base], *rest: Any) -> int:
        if of is model and len(refusals) < times:
            refusals.append(of)
            raise OperationalError("DELETE", None, faults.GONE[database.dialect]())
        return await delete(session, of, *rest)

    patch.setattr(trash, "_delete", refusing)


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
        done = await purging.purge(client.database, settings)
    assert set(done.failures) == {"users", "posts"}
    assert (done.counts["posts"], done.counts["users"], done.counts["mails"]) == (0, 0, 1)
    assert done.counts["refresh tokens"] == await count(client.database, User)
    assert await count(client.database, User, User.id == ana.id) == 1
    rest = await purging.purge(client.database, settings)
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
        told = await invoke("purge")
    known = {"sqlite": "", "mysql": ", errno 2013", "postgresql": ", sqlstate 57P01"}
    [line] = told.stderr.splitlines()
    assert line.startswith("cimiento: posts are not all purged: ")
    assert line.endswith(known[client.database.dialect])
    assert told.exit_code == 1
    assert "0 posts, 0 users, 0 roles, 1 sessions" in told.stdout
    told = await invoke("purge")
    assert (told.exit_code, told.stderr) == (0, "")
    assert "1 posts" in told.stdout


async def test_a_defect_is_none_of_the_databases_refusals(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Rule, "look", broken)
    with pytest.raises(ZeroDivisionError):
        await purging.purge(client.database, client.app.state.settings)


# --- Pace and progress -----------------------------------------------------------------------


def test_batches_are_as_large_as_can_be_deleted_in_a_moment() -> None:
    pace = purging._Pace(900, 0.2)
    sizes = []
    for seconds in (0.01, 0.01, 0.15, 0.01, 0.01, 0.3, 0.3, 0.3, 0.3):
        pace.note(seconds)
        sizes.append(pace.size)
    assert sizes == [200, 400, 400, 800, 900, 450, 225, 112, 100]


@pytest.mark.parametrize("rule", trash.RULES, ids=lambda rule: rule.name)
def test_rules_have_what_they_need(rule: Rule) -> None:
    """An index that begins with what they look by, and a mark for rows that go step by step."""
    table: Any = rule.model.__table__
    if type(rule) is Rule:
        leading = ["state"] if rule.leading is not None else []
        wanted = [*leading, rule.moment.key]
        indexes = [[column.name for column in index.columns] for index in table.indexes]
        assert any(columns[: len(wanted)] == wanted for columns in indexes)
    assert not rule.condemns or rule.condemned in table.columns
    for dependent in trash.dependents(rule.model):
        child: Any = dependent.kind.model.__table__
        indexes = [[column.name for column in index.columns] for index in child.indexes]
        assert any(columns[0] == dependent.column.key for columns in indexes)


async def test_a_terminal_shows_what_is_being_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with commands._progress() as progress:
        progress("users", 3_000)
        progress("users", 1_000)
        progress("posts", 7)
    assert "users" in shown.getvalue()
    assert "4,000 rows" in shown.getvalue()
    assert "7 rows" in shown.getvalue()
