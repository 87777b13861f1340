"""Mails that two processes would send, and the purge, on two nodes of a cluster at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import func, select, update

from app.core.permissions import ADMIN_ROLE
from app.crud import outbox
from app.db.engine import Database
from app.models.base import utc_now
from app.models.outbox import Mail, MailKind
from app.models.posts import Post
from app.models.users import User
from app.tasks.delivery import Delivery
from tests.conftest import make_settings
from tests.faults.nodes import Nodes, env_of
from tests.faults.report import Report
from tests.support.process import run_command
from tests.support.purging import empty

pytestmark = pytest.mark.faults


class CountingMailer:
    """Sends nothing, and counts what it was given by its recipient."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    async def send(self, message: EmailMessage) -> None:
        self.sent[str(message["To"])] += 1
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_mail_is_sent_by_one_of_two_processes(
    nodes: Nodes, whole: bool, report: Report, tmp_path: Path
) -> None:
    """The API's own dispatchers are at it as well: nothing is sent twice, by any process."""
    rounds, before = 50 if whole else 10, nodes.cluster.conflicts()
    mailer = CountingMailer()
    deliveries = [
        Delivery(database, mailer, make_settings(str(database.engine.url), tmp_path))
        for database in nodes.databases
    ]
    ana = await nodes.person("user", log_in=False)
    for number in range(rounds):
        async with nodes.databases[0].begin() as session:
            user = await session.get_one(User, ana.id)
            to = f"mail{number}@example.com"
            outbox.enqueue(session, MailKind.password_changed, user, recipient=to)
            await session.flush()
            mail_id = (await session.scalars(select(func.max(Mail.id)))).one()
        await asyncio.gather(*(delivery.deliver(mail_id) for delivery in deliveries))
    report.row(
        database="galera",
        faults=nodes.cluster.conflicts() - before,
        acknowledged=mailer.sent.total(),
        doubled=sum(count > 1 for count in mailer.sent.values()),
    )
    assert set(mailer.sent.values()) <= {1}
    assert mailer.sent, "one of them was faster than the API, at least once"


async def purged(database: Database, before: datetime, after: float) -> None:
    """Empty the trash, a little later: the first statement of a request takes that long."""
    await asyncio.sleep(after)
    await empty(database, before=before)


async def test_a_user_is_purged_or_restored(
    nodes: Nodes, whole: bool, seed: int, report: Report
) -> None:
    """A user whose restore was acknowledged is back, with their post."""
    random = Random(seed)
    boss, rounds, lost, restored = await nodes.person(ADMIN_ROLE), 50 if whole else 3, 0, 0
    before = nodes.cluster.conflicts()
    for number in range(rounds):
        ana = await nodes.person("user", log_in=False)
        long_ago = utc_now() - timedelta(days=400)
        post = Post(author_id=ana.id, title="One", content="", deleted_at=long_ago)
        post.deleted_with_author = True
        async with nodes.databases[0].begin() as session:
            session.add(post)
        await nodes.change(update(User).where(User.id == ana.id).values(deleted_at=long_ago))
        [answer], _ = await asyncio.gather(
            nodes.race(nodes.send(0, boss, "POST", f"/users/{ana.id}/restore")),
            purged(nodes.databases[1], long_ago + timedelta(days=1), random.uniform(0, 0.12)),
        )
        live = select(func.count()).select_from(Post).where(Post.author_id == ana.id)
        kept = await nodes.count(live.where(Post.deleted_at.is_(None)))
        lost += kept != int(answer.is_success)
        restored += answer.is_success
        report.progress(f"round {number + 1}/{rounds}, {restored} restored")
    report.row(
        database="galera",
        faults=nodes.cluster.conflicts() - before,
        acknowledged=restored,
        lost=lost,
    )
    assert not lost


async def test_two_commands_at_once_both_succeed(nodes: Nodes, tmp_path: Path) -> None:
    """Purging, from two nodes; what one has deleted the other has not to."""
    long_ago = utc_now() - timedelta(days=400)
    for _ in range(20):
        ana = await nodes.person("user", log_in=False)
        await nodes.change(update(User).where(User.id == ana.id).values(deleted_at=long_ago))
    urls = [node.url("cimiento") for node in nodes.cluster.nodes[:2]]
    done = await asyncio.gather(
        *(run_command("purge", cwd=tmp_path, env=env_of(url, tmp_path)) for url in urls)
    )
    assert [status for status, _, _ in done] == [0, 0], done
    gone = select(func.count()).select_from(User).where(User.deleted_at == long_ago)
    assert await nodes.count(gone) == 0
