"""How long the pages of listings take among a million posts: `python -m benchmarks.million`.

Every listing with its filters and orders: the first page, the 1,000th, the last, and the one behind
the 1,000th by cursor. All are asked in turn, round after round, so that nothing is remembered.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import httpx2
import typer

from app.core.keyring import SecretKeys
from app.core.security import AccessTokens
from benchmarks.databases import empty, engine_on
from benchmarks.dataset import SECRET
from benchmarks.machine import Machine, Trouble, serving_python
from benchmarks.servers import migrate, serving_app
from benchmarks.volume import ADMIN_ID, BUSY_AUTHOR, Volume, fill_by_sql

API = "/api/v1"
FAR = 1_000
_TIMEOUT = 60.0
_SORTS = ("-created_at", "-updated_at", "-published_at", "title")
_POSTS: tuple[dict[str, Any], ...] = (
    {},
    {"tag": "tag-01"},
    {"tag": "tag-02"},
    {"tag": "tag-03"},
    {"created_to": "2024-02-01T00:00:00Z"},
    {"author_id": BUSY_AUTHOR},
)
_EVENTS: tuple[dict[str, Any], ...] = (
    {},
    {"act": "role.granted"},
    {"actor_id": 5},
    {"subject_type": "user"},
    {"subject_id": 5},
    {"created_to": "2024-02-01T00:00:00Z"},
)
_USERS: tuple[dict[str, Any], ...] = (
    *({}, {"role": "user"}, {"role": "editor"}, {"is_active": "false"}, {"deleted": "true"}),
)
_MAILS: tuple[dict[str, Any], ...] = (
    *({}, {"state": "sent"}, {"state": "pending"}, {"kind": "welcome"}, {"kind": "invitation"}),
)


@dataclass(frozen=True)
class Asked:
    """A listing with its filters and its order, and whether the administrator asks."""

    path: str
    filters: tuple[tuple[str, Any], ...]
    sort: str
    as_admin: bool = False

    def __str__(self) -> str:
        query = " ".join(f"{name}={value}" for name, value in self.filters)
        return f"{self.path} {query}".strip() + f" | {self.sort}"


def every() -> Iterator[Asked]:
    """What is asked."""
    for filters in _POSTS:
        for sort in _SORTS:
            yield Asked("/posts", tuple(filters.items()), sort)
    for more in ({"deleted": "true"}, {"status": "draft"}):
        for sort in _SORTS:
            yield Asked("/posts", tuple(more.items()), sort, as_admin=True)
    for path, some, sorts in (
        ("/users", _USERS, ("-created_at", "name", "email")),
        ("/roles/2/users", ({},), ("-created_at", "name")),
        ("/audit-events", _EVENTS, ("-created_at",)),
        ("/outbox", _MAILS, ("-created_at",)),
        ("/roles", ({},), ("name",)),
        ("/auth/sessions", ({},), ("-last_used_at",)),
    ):
        for filters in some:
            for sort in sorts:
                yield Asked(path, tuple(filters.items()), sort, as_admin=True)


class Asking:
    """Asks a server, and keeps how many milliseconds each page took."""

    def __init__(self, client: httpx2.Client) -> None:
        issuer = AccessTokens(SecretKeys([SECRET]), minutes=24 * 60)
        token = issuer.issue(user_id=ADMIN_ID, session_id=ADMIN_ID)
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"}
        self.took: dict[tuple[Asked, str], list[float]] = defaultdict(list)
        self.refused: dict[tuple[Asked, str], int] = {}

    def ask(self, asked: Asked) -> None:
        """Ask for each of the pages once."""
        found = self._page(asked, "first", {})
        pages = found.get("total_pages") or 1
        if pages > FAR:
            found = self._page(asked, "1,000th", {"page": FAR})
        if pages > 1:
            self._page(asked, "last", {"page": pages})
        if cursor := found.get("next_cursor"):
            self._page(asked, "cursor", {"cursor": cursor})

    def _page(self, asked: Asked, name: str, where: dict[str, Any]) -> dict[str, Any]:
        params = {**dict(asked.filters), "sort": asked.sort, **where}
        headers = self._headers if asked.as_admin else {}
        began = time.perf_counter()
        answer = self._client.get(API + asked.path, params=params, headers=headers)
        self.took[asked, name].append((time.perf_counter() - began) * 1_000)
        if not answer.is_success:
            self.refused[asked, name] = answer.status_code
            return {}
        body: dict[str, Any] = answer.json()
        return body

    def table(self) -> Iterator[str]:
        """The table, as Markdown: median and 95th percentile in ms."""
        names = ("first", "1,000th", "last", "cursor")
        yield f"| listing | order | {' | '.join(names)} |"
        yield "|---|---|" + "---|" * len(names)
        for asked in dict.fromkeys(asked for asked, _ in self.took):
            yield f"| {asked} | " + " | ".join(self._cell(asked, name) for name in names) + " |"

    def _cell(self, asked: Asked, name: str) -> str:
        took = self.took.get((asked, name))
        if not took:
            return ""
        refused = self.refused.get((asked, name))
        worst = quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
        return f"{median(took):.0f} / {worst:.0f}" + (f" ({refused})" if refused else "")


def main(
    database: Annotated[str, typer.Option(help="sqlite, mariadb or postgresql")] = "mariadb",
    posts: Annotated[int, typer.Option(help="a tenth as many users and mails, half the events")] = (
        1_000_000
    ),
    rounds: Annotated[int, typer.Option(help="how often each page is asked for")] = 5,
) -> None:
    """Build the data set in a database of its own, measure, print a table, drop it."""
    machine = Machine(serving_python(), None, None)
    volume = Volume(posts=posts, users=posts // 10, events=posts // 2, mails=posts // 10)
    with tempfile.TemporaryDirectory() as name, empty(database, Path(name)) as url:
        environment = machine.environment(
            environment="development",
            rate_limit_enabled=False,
            secret_key=SECRET,
            database_url=url.render_as_string(hide_password=False),
            data_dir=name,
            access_log="false",
        )
        migrate(machine, environment, Path(name))
        engine = engine_on(database, url)
        began = time.perf_counter()
        fill_by_sql(engine, volume)
        engine.dispose()
        typer.echo(f"{database}, {posts:,} posts, filled in {time.perf_counter() - began:.0f} s\n")
        with (
            serving_app(machine, environment, Path(name)) as server,
            httpx2.Client(base_url=server.url, timeout=_TIMEOUT) as client,
        ):
            asking = Asking(client)
            for _ in range(rounds):
                for asked in every():
                    asking.ask(asked)
        for line in asking.table():
            typer.echo(line)


if __name__ == "__main__":
    try:
        typer.run(main)
    except Trouble as trouble:
        raise SystemExit(f"benchmark: {trouble}") from None
