"""A backup taken while people write, and what has to be in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import Connection, ForeignKeyConstraint, and_, exists, func, select

from app.models import Base
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.tags import PostTag
from app.models.users import User, UserRole
from tests.conftest import migrate
from tests.support.client import API, PASSWORD
from tests.support.process import environment, run_command, serving
from tests.support.schema import connected, empty_database

WRITERS = 8
TAGS = ["one", "two", "three"]


@dataclass
class BackgroundWriter:
    """Writes without a pause, and remembers what was acknowledged.

    `accounts` and `posts` (title to content) hold nothing that was not answered by 201.
    """

    name: str
    http: httpx2.AsyncClient
    accounts: list[str] = field(default_factory=list)
    posts: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """An account after the other, each with some posts, until cancelled."""
        while True:
            email = f"{self.name}{len(self.accounts)}@example.com"
            account = {"email": email, "name": "Ñandú 😀", "password": PASSWORD}
            await self._create("/auth/register", account)
            self.accounts.append(email)
            headers = {"Authorization": f"Bearer {await log_in(self.http, email)}"}
            for number in range(10):
                title = f"{email} {number}"
                content = f"{title} ñ 😀 ' \" \\ \r\n \t % ;" * 20
                post = {"title": title, "content": content, "tags": TAGS, "status": "published"}
                await self._create("/posts", post, headers)
                self.posts[title] = content

    async def _create(self, path: str, body: Any, headers: dict[str, str] | None = None) -> None:
        response = await self.http.post(API + path, json=body, headers=headers)
        assert response.status_code == 201, response.text


async def log_in(http: httpx2.AsyncClient, email: str) -> str:
    """The access token of a login that has to succeed."""
    form = {"username": email, "password": PASSWORD}
    response = await http.post(f"{API}/auth/login", data=form)
    assert response.status_code == 200, f"{email}: {response.text}"
    token: str = response.json()["access_token"]
    return token


@asynccontextmanager
async def writing(http: httpx2.AsyncClient, count: int) -> AsyncIterator[list[BackgroundWriter]]:
    """So many writers at work; whatever failed them fails the test."""
    writers = [BackgroundWriter(f"w{number}x", http) for number in range(count)]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    try:
        yield writers
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        assert isinstance(end, asyncio.CancelledError), repr(end)


def acknowledged(writers: list[BackgroundWriter]) -> tuple[set[str], dict[str, str]]:
    """The accounts and posts up to now, of all together."""
    accounts = {email for writer in writers for email in writer.accounts}
    return accounts, {title: text for writer in writers for title, text in writer.posts.items()}


def is_whole(connection: Connection) -> None:
    """No row points nowhere, and what is written in one transaction is there as one."""
    assert orphans(connection) == {}
    users = Counter(connection.scalars(select(User.id)))
    assert Counter(connection.scalars(select(Mail.user_id))) == users, "one welcome each"
    assert Counter(connection.scalars(select(UserRole.user_id))) == users
    tagged = select(func.count(PostTag.tag_id)).select_from(Post).outerjoin(PostTag)
    assert set(connection.scalars(tagged.group_by(Post.id))) <= {len(TAGS)}


def orphans(connection: Connection) -> dict[str, int]:
    """How many rows of each foreign key point to a row that is not there."""
    found = {}
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_key_constraints:
            if count := connection.scalar(_pointing_nowhere(key)):
                found[str(key.name)] = count
    return found


def _pointing_nowhere(key: ForeignKeyConstraint) -> Any:
    target = key.referred_table.alias()
    pairs = [(element.parent, target.c[element.column.name]) for element in key.elements]
    match = exists().where(and_(*(here == there for here, there in pairs)))
    given = [here.is_not(None) for here, _ in pairs]
    return select(func.count()).select_from(key.table).where(*given, ~match)


def unseal(file: Path) -> None:
    """Take the checksum off a backup, as those of earlier versions had none."""
    content, mark, _ = file.read_bytes().rpartition(b"\n-- cimiento backup sha256:")
    assert mark
    file.write_bytes(content)


def settings(url: str, folder: Path) -> dict[str, str]:
    return environment(
        database_url=url,
        data_dir=folder / "data",
        secret_key="tests-0123456789abcdefghijklmnopqrstuv",
        rate_limit_enabled=False,
        # Many requests on a slow machine are no outage.
        request_timeout_seconds=60,
        access_log=False,
        port=0,
    )


async def command(*arguments: str, url: str, folder: Path) -> str:
    status, out, complaint = await run_command(*arguments, cwd=folder, env=settings(url, folder))
    assert status == 0, complaint
    return out


async def all_have_written(writers: list[BackgroundWriter], posts: int) -> None:
    """Every writer has had so many more posts acknowledged."""
    goals = [len(writer.posts) + posts for writer in writers]
    async with asyncio.timeout(60):
        while any(len(w.posts) < goal for w, goal in zip(writers, goals, strict=True)):  # noqa: ASYNC110 nothing announces it
            await asyncio.sleep(0.02)


async def backed_up_under_load(beside: str, folder: Path, *, rounds: int) -> int:
    """Take backups of a database on the same server while people write, and restore each.

    What was acknowledged before one began is in it byte by byte, and nothing by halves. Returns
    how many posts were acknowledged while backups were taken.
    """
    taken, meanwhile = [], 0
    with empty_database(beside, folder) as source:
        await asyncio.to_thread(migrate, source, folder)
        async with (
            serving(folder, settings(source, folder)) as server,
            httpx2.AsyncClient(base_url=server.url, timeout=30) as http,
            writing(http, WRITERS) as writers,
        ):
            for number in range(rounds):
                await all_have_written(writers, 2)
                before, file = acknowledged(writers), folder / f"{number}.backup"
                await command("backup", str(file), url=source, folder=folder)
                meanwhile += len(acknowledged(writers)[1]) - len(before[1])
                taken.append((file, before))
    for file, before in taken:
        await restored(file, before, beside, folder)
    return meanwhile


async def restored(
    file: Path, before: tuple[set[str], dict[str, str]], beside: str, folder: Path
) -> None:
    """Into an empty database, with what was acknowledged, and people log in to it."""
    accounts, posts = before
    with empty_database(beside, folder) as url:
        out = await command("restore", str(file), url=url, folder=folder)
        assert "restored, revision" in out
        with connected(url) as connection:
            is_whole(connection)
            found = connection.execute(select(Post.title, Post.content))
            kept = {title: content for title, content in found}  # noqa: C416 rows, not pairs
            people = set(connection.scalars(select(User.email)))
        assert posts.items() <= kept.items(), "acknowledged, and gone or altered"
        assert accounts <= people, "acknowledged, and gone"
        async with (
            serving(folder, settings(url, folder)) as server,
            httpx2.AsyncClient(base_url=server.url, timeout=30) as http,
        ):
            assert (await http.get("/health/ready")).status_code == 200
            for email in sorted(accounts)[:WRITERS]:
                headers = {"Authorization": f"Bearer {await log_in(http, email)}"}
                new = {"title": f"{email} again", "content": "", "tags": ["four"]}
                response = await http.post(f"{API}/posts", json=new, headers=headers)
                assert response.status_code == 201, "new ids are free"
