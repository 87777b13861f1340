"""What is measured: a served database, its callers, and a way to look behind the server's back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from sqlalchemy import delete, func, select

from app.models.base import TimestampedModel
from app.models.posts import Post
from app.models.sessions import LoginSession
from benchmarks.databases import Filled
from benchmarks.dataset import CALLER_ID, DataSet
from benchmarks.load import Load, Request
from benchmarks.machine import Machine, Trouble
from benchmarks.servers import Server, serving_app

API = "/api/v1"
PAGE_SIZE = 20
FAR_PAGE = 450
_SETTLING_SECONDS = 10


@dataclass(frozen=True)
class Target:
    """A server on a filled database. `tokens` are those of the users 1, 2, …"""

    filled: Filled
    server: Server
    tokens: list[str]
    client: httpx2.Client

    @property
    def data(self) -> DataSet:
        return self.filled.data

    @property
    def token(self) -> str:
        """The token of the one caller: an ordinary user."""
        return self.tokens[CALLER_ID - 1]

    @property
    def far_page(self) -> int:
        """Page 450, or where there are fewer, the one behind nine tenths of the posts."""
        return max(2, min(FAR_PAGE, self.data.posts * 9 // 10 // PAGE_SIZE))

    def ask(self, request: Request, *, status: int = 200) -> dict[str, Any]:
        """Return the body of an answer; raise Trouble unless it has this status."""
        headers = {"Authorization": f"Bearer {request.token}"} if request.token else {}
        if request.body:
            headers["Content-Type"] = request.content_type
        method = "POST" if request.body else "GET"
        answer = self.client.request(
            method, request.path, headers=headers, content=request.body or None
        )
        expect(answer.status_code, status, f"status of {method} {request.path}")
        body: dict[str, Any] = json.loads(answer.content)
        return body

    def far_cursor(self) -> str:
        """The cursor that the far page begins behind."""
        page = f"page={self.far_page - 1}&page_size={PAGE_SIZE}"
        cursor = self.ask(Request(f"{API}/posts?{page}", self.token))["next_cursor"]
        return str(cursor)

    def count(self, model: type[TimestampedModel]) -> int:
        """Return how many rows a table has, once nothing is written any more."""
        deadline, last = time.monotonic() + _SETTLING_SECONDS, -1
        while time.monotonic() < deadline:
            with self.filled.engine.connect() as connection:
                found = connection.execute(select(func.count()).select_from(model)).scalar_one()
            if found == last:
                break
            last = found
            time.sleep(0.1)
        return last

    def written(self, post_id: int) -> dict[str, Any]:
        """Return the row of a post, as the database has it."""
        columns = (Post.author_id, Post.title, Post.content)
        with self.filled.engine.connect() as connection:
            row = connection.execute(select(*columns).where(Post.id == post_id)).one_or_none()
        return {} if row is None else dict(row._mapping)

    def restore(self) -> None:
        """Take away what was written, so that every server starts from the same data."""
        with self.filled.engine.begin() as connection:
            connection.execute(delete(Post).where(Post.id > self.data.posts))
            connection.execute(delete(LoginSession).where(LoginSession.id > self.data.logins))

    def load(self, machine: Machine, requests: list[Request], *, name: str) -> Load:
        """Return requests ready to be sent to this server."""
        file = self.filled.directory / f"{name}.requests"
        # With more workers than one nothing is pinned: they take all the cores there are.
        core = machine.load_core if self.pinned else None
        return Load.of(file, requests, url=self.server.url, core=core)

    @property
    def pinned(self) -> bool:
        return self.server.workers == 1


@contextmanager
def serving_target(
    filled: Filled, machine: Machine, *, workers: int = 1, wrapper: Sequence[str] = ()
) -> Iterator[Target]:
    """Serve a filled database, and leave it as it was."""
    place = (machine, filled.environment, filled.directory)
    with (
        serving_app(*place, workers=workers, wrapper=wrapper) as server,
        httpx2.Client(base_url=server.url, timeout=20) as client,
    ):
        target = Target(filled, server, filled.data.tokens(), client)
        try:
            yield target
        finally:
            target.restore()


def expect(found: object, wanted: object, what: str) -> None:
    """Raise Trouble, saying both, unless they are equal."""
    if found != wanted:
        raise Trouble(f"wrong answer: {what} is {found!r:.300}, not {wanted!r:.300}")
