"""The purge of unused tags and old mails keeps what is in use."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.crud import tags
from app.db import retention
from app.db.engine import Database
from app.db.retries import RETRIES
from app.db.transactions import Transaction, session_transaction
from app.models.base import utc_now
from app.models.outbox import Mail, MailState
from app.models.tags import PostTag, Tag
from app.tasks import retention as purging
from tests.conftest import make_settings
from tests.support import faults, mails
from tests.support.client import Client, Person

DAYS = 30
LIMITS = retention.Limits(utc_now())
[TAGS] = [rule for rule in retention.rules() if rule.name == "tags"]


async def purge(client: Client, **overrides: object) -> dict[str, int]:
    given = client.app.state.settings
    settings = make_settings(given.database_url, given.data_dir, **overrides)
    done = await purging.purge_deleted(client.database, settings)
    assert not done.failures
    return dict(done.counts)


async def names(database: Database) -> set[str]:
    async with database.begin(readonly=True) as session:
        return set(await session.scalars(select(Tag.name)))


async def leave(author: Person, *unused: str) -> None:
    """Make tags that no post has."""
    post = await author.write(tags=[*unused])
    assert (await author.patch(f"/posts/{post['id']}", {"tags": []})).status_code == 200


# --- Tags ------------------------------------------------------------------------------------


async def test_tags_that_no_post_has_are_purged(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posts in the trash may come back, and then have theirs."""
    monkeypatch.setattr(retention, "TAGS_LOOK", 2)
    ana = await client.user()
    await leave(ana, "a", "b", "c")
    await ana.write(tags=["kept"], status="draft")
    deleted = await ana.write(tags=["c", "trash"])
    await ana.delete(f"/posts/{deleted['id']}")
    assert (await purge(client))["tags"] == 2
    assert await names(client.database) == {"c", "kept", "trash"}
    restored = await ana.post(f"/posts/{deleted['id']}/restore")
    assert restored.json()["tags"] == ["c", "trash"]
    assert (await purge(client))["tags"] == 0


async def test_a_tag_that_a_post_is_about_to_get_stays(
    client: Client, other_process: Database
) -> None:
    """A transaction that has found it holds it."""
    ana = await client.user()
    await leave(ana, "next")
    post = await ana.write()
    purging: list[asyncio.Task[dict[str, int]]] = []
    tries = 0

    async def tag_post(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        get = partial(tags.get_or_create, names=["next"], will_change_counts=False)
        (tag_id,) = await session_transaction(session, get)
        if not purging:
            purging.append(asyncio.create_task(purge(client)))
            # SQLite lets one write at a time: there it waits, elsewhere it passes the tag over.
            await asyncio.wait(purging, timeout=0.3)
        session.add(PostTag(post_id=post["id"], tag_id=tag_id))

    await other_process.run(tag_post)
    # MariaDB may see a deadlock with what else is purged: then all is done again, as in a request.
    assert (await purging[0])["tags"] == 0 or tries > 1
    assert (await client.get(f"/posts/{post['id']}")).json()["tags"] == ["next"]


async def test_a_post_that_meets_a_tag_just_purged_makes_it_anew(
    client: Client, other_process: Database
) -> None:
    ana = await client.user()
    await leave(ana, "gone", "other")
    async with other_process.begin() as session:
        unused = await TAGS.look(session, LIMITS, None)
        assert (len(unused.keys), unused.next) == (2, None)
        assert await TAGS.look(session, LIMITS, max(unused.keys)) == ([], None)
        assert await TAGS.delete(session, unused.keys, LIMITS) == 2
        written = asyncio.create_task(ana.write(tags=["gone"]))
        await asyncio.wait([written], timeout=0.3)
        assert not written.done()
    assert (await written)["tags"] == ["gone"]
    assert await names(client.database) == {"gone"}


async def test_a_tag_that_vanishes_between_is_made_once_more(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it was taken at the insert, and purged before it was read."""
    ana = await client.user()
    real, calls = Transaction.insert_if_missing, []

    def once(self: Transaction, model: type, **values: object) -> None:
        calls.append(values)
        if len(calls) > 1:
            real(self, model, **values)

    monkeypatch.setattr(Transaction, "insert_if_missing", once)
    assert (await ana.write(tags=["a"]))["tags"] == ["a"]
    assert [values for values in calls if "name" in values] == [{"name": "a"}] * 2


async def test_purging_and_tagging_at_once(client: Client) -> None:
    """Whatever comes first, no post fails, and none loses a tag."""
    ana = await client.user()
    post = await ana.write()
    for number in range(8):
        wanted = [f"{letter}{number}" for letter in "ab"]
        await leave(ana, *wanted)
        body = {"title": "Hello", "content": "", "status": "published", "tags": wanted}
        *answers, _, _ = await asyncio.gather(
            ana.post("/posts", body),
            ana.post("/posts", body | {"tags": wanted[::-1]}),
            ana.patch(f"/posts/{post['id']}", {"tags": wanted}),
            purge(client),
            purge(client),
        )
        assert [answer.status_code for answer in answers] == [201, 201, 200]
        for answer in answers:
            found = await client.get(f"/posts/{answer.json()['id']}")
            assert found.json()["tags"] == wanted


async def test_a_deadlock_of_the_purge_is_tried_again(client: Client) -> None:
    await leave(await client.user(), "a")
    async with client.database.begin(readonly=True) as session:
        found = await TAGS.look(session, LIMITS, None)
    delete = partial(TAGS.delete, keys=found.keys, limits=LIMITS)
    transient, gone = faults.TRANSIENT[client.database.dialect][0], faults.GONE
    for fault in (transient, gone[client.database.dialect]):
        times = RETRIES + 1 if fault is transient else 1
        with (
            faults.failing_writes(client.database, fault, times=times),
            pytest.raises(OperationalError),
        ):
            await client.database.run(delete)
    with faults.failing_writes(client.database, transient, times=RETRIES):
        assert await client.database.run(delete) == 1


# --- Mails -----------------------------------------------------------------------------------


async def test_mails_of_long_ago_are_purged(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those sent, and those given up; what is yet to be sent stays, however old."""
    monkeypatch.setattr(retention, "LOOK", 2)
    long_ago, lately = [-timedelta(days=days).total_seconds() for days in (DAYS + 1, DAYS - 1)]
    for state in MailState:
        for due in (long_ago, lately):
            await mails.put(client.database, state, due=due)
    assert (await purge(client, outbox_days=0))["old mails"] == 0
    assert (await purge(client, outbox_days=DAYS))["old mails"] == 2
    assert await mails.count(client.database) == 2 * len(MailState) - 2
    async with client.database.begin(readonly=True) as session:
        moment = utc_now() - timedelta(days=DAYS)
        old = await session.scalars(select(Mail.state).where(Mail.next_attempt_at < moment))
    assert set(old) == {MailState.pending, MailState.sending}
