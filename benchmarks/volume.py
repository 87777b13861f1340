"""A large data set, built by the database itself: a million posts take it a minute or two.

Every value follows from the number of its row. What matters to an optimiser is uneven, as in real
life: common and rare tags, an author of a twentieth of all posts, few drafts, some trash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, text

from app.core.permissions import ADMIN_ROLE

ADMIN_ID = 1  # whose session has this id too
BUSY_AUTHOR = 2  # of every twentieth post, with BUSY_SESSIONS sessions
BUSY_SESSIONS = 2_000
COMMON_TAG, MEDIUM_TAG, RARE_TAG = "tag-01", "tag-02", "tag-03"
EDITOR, RARE_ROLE = "editor", "rare"
_TAGS = 30
_TITLES = 1_000_003  # a prime, as are the factors below: neighbours are far apart
_TABLES = (
    *("users", "roles", "user_roles", "sessions", "tags", "posts", "post_tags"),
    *("audit_events", "outbox"),
)


@dataclass(frozen=True)
class Volume:
    """How many rows there are."""

    posts: int = 1_000_000
    users: int = 100_000
    events: int = 500_000
    mails: int = 100_000


@dataclass(frozen=True)
class _Dialect:
    """How one database writes a series of numbers, a moment, a text and a long text."""

    series: str
    moment: str
    concat: str
    between: str
    repeat: str


_DIALECTS: Mapping[str, _Dialect] = {
    "sqlite": _Dialect(
        series="(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count})"
        " SELECT n FROM s) AS s",
        moment="strftime('%Y-%m-%d %H:%M:%S', 1704067200 + ({seconds}), 'unixepoch') || '.000000'",
        concat="({parts})",
        between=" || ",
        repeat="replace(hex(zeroblob({times})), '00', {part})",
    ),
    "mysql": _Dialect(
        series="(SELECT CAST(seq AS SIGNED) AS n FROM seq_1_to_{count}) AS s",
        moment="'2024-01-01' + INTERVAL ({seconds}) SECOND",
        concat="CONCAT({parts})",
        between=", ",
        repeat="REPEAT({part}, {times})",
    ),
    "postgresql": _Dialect(
        series="(SELECT generate_series(1::bigint, {count}) AS n) AS s",
        moment="timestamptz '2024-01-01 00:00:00+00' + ({seconds}) * interval '1 second'",
        concat="concat({parts})",
        between=", ",
        repeat="repeat({part}, {times})",
    ),
}


def fill_by_sql(engine: Engine, volume: Volume) -> None:
    """Put the data set into a database that has nothing but its tables and system roles."""
    with engine.begin() as connection:
        for statement in _Statements(connection.dialect.name, volume).all():
            connection.execute(text(statement))
    _settle(engine)


def _settle(engine: Engine) -> None:
    """What the servers would do by themselves in a while: statistics, and sequences that start
    behind the ids given here."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if engine.dialect.name == "postgresql":
            for table in set(_TABLES) - {"user_roles", "post_tags"}:
                connection.execute(text(_NEXT_ID.format(table=table)))
            connection.execute(text("VACUUM ANALYZE"))
        elif engine.dialect.name == "mysql":
            connection.execute(text(f"ANALYZE TABLE {', '.join(_TABLES)}")).all()


_NEXT_ID = "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"


class _Statements:
    def __init__(self, dialect: str, volume: Volume) -> None:
        self._dialect = _DIALECTS[dialect]
        self._volume = volume

    def all(self) -> Iterator[str]:
        yield from self._people()
        yield from self._posts()
        yield from self._trail()

    def _people(self) -> Iterator[str]:
        users, created_at = self._volume.users, self._moment("n * 10")
        email = self._text("'user'", "n", "'@example.com'")
        name = self._text("'Person '", f"n * 7919 % {_TITLES}")
        yield self._insert(
            "users",
            users,
            id="n",
            email=email,
            email_key=email,
            name=name,
            locale="'en'",
            is_active="n % 50 <> 7",
            created_at=created_at,
            updated_at=created_at,
            deleted_at=f"CASE WHEN n % 20 = 0 THEN {self._moment('n * 10 + 5')} END",
        )
        for name in (EDITOR, RARE_ROLE):
            yield self._insert(
                "roles",
                1,
                name=f"'{name}'",
                description="''",
                created_at=self._moment("0"),
                updated_at=self._moment("0"),
            )
        for name, numbers in (
            (ADMIN_ROLE, f"n = {ADMIN_ID}"),
            ("user", "n > 0"),
            (EDITOR, "n % 10 = 2"),
            (RARE_ROLE, "n % 999 = 3"),
        ):
            role = f"(SELECT id FROM roles WHERE name = '{name}')"  # noqa: S608  ours
            yield self._insert("user_roles", users, numbers, user_id="n", role_id=role)
        yield self._sessions("n", users)
        yield self._sessions(str(BUSY_AUTHOR), BUSY_SESSIONS)

    def _sessions(self, user_id: str, count: int) -> str:
        return self._insert(
            "sessions",
            count,
            user_id=user_id,
            # Long from now.
            expires_at=self._moment("n + 999999999"),
            last_used_at=self._moment("n * 7919 % 8640000"),
            ended_at=f"CASE WHEN n % 4 = 0 THEN {self._moment('n')} END",
            ip="'192.0.2.1'",
            user_agent="'benchmark'",
            created_at=self._moment("n"),
            updated_at=self._moment("n"),
        )

    def _posts(self) -> Iterator[str]:
        posts, changed = self._volume.posts, self._moment("n * 10 + n * 104729 % 8640000")
        # Live users alone: those whose number is a multiple of 20 are in the trash.
        living = f"n * 7919 % {self._volume.users // 20} * 20 + n % 19 + 1"
        yield self._insert(
            "posts",
            posts,
            id="n",
            author_id=f"CASE WHEN n % 20 = 3 THEN {BUSY_AUTHOR} ELSE {living} END",
            title=self._text("'Notes on the number '", f"n * 7919 % {_TITLES}"),
            content=self._dialect.repeat.format(part="'A text, and on. '", times=15),
            status="CASE WHEN n % 10 = 1 THEN 'draft' ELSE 'published' END",
            published_at=f"CASE WHEN n % 10 <> 1 THEN {changed} END",
            version="1",
            deleted_with_author="n < 0",
            created_at=self._moment("n * 10"),
            updated_at=changed,
            deleted_at=f"CASE WHEN n % 20 = 0 THEN {changed} END",
        )
        yield self._insert(
            "tags",
            _TAGS,
            id="n",
            name=self._text("'tag-'", "CASE WHEN n < 10 THEN '0' ELSE '' END", "n"),
        )
        for tag, numbers in enumerate(self._tagged(), start=1):
            yield self._insert("post_tags", posts, numbers, post_id="n", tag_id=str(tag))
        yield (
            "UPDATE tags SET post_count = (SELECT count(*) FROM post_tags"
            " JOIN posts ON posts.id = post_tags.post_id WHERE post_tags.tag_id = tags.id"
            " AND posts.status = 'published' AND posts.deleted_at IS NULL)"
        )

    def _tagged(self) -> Iterator[str]:
        """Which posts have the first tag, the second …"""
        yield from ("n % 3 = 1", "n % 100 = 3", "n % 10000 = 7")
        yield from (f"n % 97 = {tag}" for tag in range(4, _TAGS + 1))

    def _trail(self) -> Iterator[str]:
        someone = f"n * 7919 % {self._volume.users} + 1"
        yield self._insert(
            "audit_events",
            self._volume.events,
            id="n",
            created_at=self._moment("n * 20"),
            act="CASE WHEN n % 1000 = 9 THEN 'role.granted' WHEN n % 10 = 9 THEN 'user.updated'"
            " WHEN n % 10 = 8 THEN 'session.ended' WHEN n % 10 = 7 THEN 'login.failed'"
            " ELSE 'login.succeeded' END",
            actor_id=f"CASE WHEN n % 10 <> 7 THEN {someone} END",
            subject_type="CASE WHEN n % 10 = 8 THEN 'session' WHEN n % 1000 = 9 THEN 'role'"
            " WHEN n % 10 <> 7 THEN 'user' END",
            subject_id=f"CASE WHEN n % 1000 = 9 THEN 1 WHEN n % 10 <> 7 THEN {someone} END",
            ip="'192.0.2.1'",
            user_agent="'benchmark'",
            request_id="'benchmark'",
            details="'{}'",
        )
        yield self._insert(
            "outbox",
            self._volume.mails,
            **{
                "id": "n",
                self._quoted("key"): self._text("'mail-'", "n"),
                "kind": "CASE WHEN n % 1000 = 9 THEN 'email_changed' WHEN n % 3 = 0"
                " THEN 'password_reset' ELSE 'welcome' END",
                "user_id": someone,
                "recipient": "'recipient@example.com'",
                "locale": "'en'",
                self._quoted("values"): "'{}'",
                "state": "CASE WHEN n % 1000 = 6 THEN 'pending' WHEN n % 100 = 5 THEN 'dead'"
                " ELSE 'sent' END",
                "attempts": "1",
                "next_attempt_at": self._moment("n * 60"),
                "created_at": self._moment("n * 60"),
                "updated_at": self._moment("n * 60"),
            },
        )

    def _quoted(self, column: str) -> str:
        return f"`{column}`" if self._dialect is _DIALECTS["mysql"] else f'"{column}"'

    def _moment(self, seconds: str) -> str:
        return self._dialect.moment.format(seconds=seconds)

    def _text(self, *parts: str) -> str:
        each = [f"({part})" for part in parts]
        return self._dialect.concat.format(parts=self._dialect.between.join(each))

    def _insert(self, table: str, count: int, where: str = "n > 0", **values: str) -> str:
        """INSERT a row for each number that meets a condition."""
        series = self._dialect.series.format(count=count)
        columns, selected = ", ".join(values), ", ".join(values.values())
        return f"INSERT INTO {table} ({columns}) SELECT {selected} FROM {series} WHERE {where}"  # noqa: S608  no input
