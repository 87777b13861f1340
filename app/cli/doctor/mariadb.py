"""MariaDB and MySQL: characters, strictness, time, isolation, durability, room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.doctor.findings import (
    Finding,
    Findings,
    advised,
    comma_separated,
    failure,
    judged,
)
from app.cli.doctor.pools import enough_connections
from app.config import Settings
from app.core.words import MAX_LENGTH, MIN_LETTERS
from app.db.engine import Database

_PACKET_MARGIN = 64 * 1024
# Those of other tools in the same database are no business of ours.
_STRANGE_TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
    " AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version'"
    " AND (LEFT(table_collation, 7) <> 'utf8mb4' OR engine <> 'InnoDB') ORDER BY table_name"
)
Variables = Mapping[str, str]


async def check(database: Database, settings: Settings) -> Findings:
    """Check the settings that the app's own connections see."""
    async with database.engine.connect() as connection:
        session = await _variables(connection, "SESSION")
        server = await _variables(connection, "GLOBAL")
        strange = [str(name) for (name,) in await connection.exec_driver_sql(_STRANGE_TABLES)]
    return [
        *_characters(session, strange),
        *_session(session),
        *_durability(server),
        _packet(server, settings),
        _words(server),
        enough_connections(settings, _allowed(server), where="max_connections"),
    ]


async def _variables(connection: AsyncConnection, scope: str) -> Variables:
    rows: Any = await connection.exec_driver_sql(f"SHOW {scope} VARIABLES")
    return {str(name): str(value) for name, value in rows}


def _characters(session: Variables, strange: list[str]) -> Iterator[Finding]:
    charset, collation = session["character_set_database"], session["collation_database"]
    yield advised(
        "charset",
        charset == "utf8mb4",
        f"the database's default is {charset}, {collation}",
        "New tables would be created with it: ALTER DATABASE … CHARACTER SET utf8mb4"
        " COLLATE utf8mb4_unicode_ci;",
    )
    connection = session["character_set_connection"]
    yield judged(
        "charset",
        connection == "utf8mb4",
        f"connections speak {connection}",
        "Take charset and init_connect out of what stands between the app and the server.",
    )
    if strange:
        yield failure(
            "charset",
            f"not in utf8mb4 and InnoDB: {comma_separated(strange)}",
            "For each: ALTER TABLE … ENGINE=InnoDB, CONVERT TO CHARACTER SET utf8mb4"
            " COLLATE utf8mb4_unicode_ci; (after a backup)",
        )


def _session(session: Variables) -> Iterator[Finding]:
    proxy = "Something between the app and the server (a proxy, a pooler) undoes what is set."
    modes = session["sql_mode"].split(",")
    yield judged(
        "sql_mode",
        "STRICT_ALL_TABLES" in modes,
        f"sql_mode is {comma_separated(modes) or 'empty'}",
        f"What does not fit would be cut off: it has to be strict. {proxy}",
    )
    zone = session["time_zone"]
    yield judged(
        "time_zone", zone in {"+00:00", "UTC"}, f"time_zone is {zone}", f"It has to be UTC. {proxy}"
    )
    # Named differently by versions of both.
    isolation = session.get("transaction_isolation") or session["tx_isolation"]
    yield judged(
        "isolation",
        isolation == "READ-COMMITTED",
        f"transactions are {isolation}",
        f"They have to be READ-COMMITTED. {proxy}",
    )


def _durability(server: Variables) -> Iterator[Finding]:
    flush = server["innodb_flush_log_at_trx_commit"]
    yield advised(
        "durability",
        flush == "1",
        f"innodb_flush_log_at_trx_commit is {flush}",
        "What was acknowledged may be gone after a power cut: set it to 1 in my.cnf.",
    )


def _packet(server: Variables, settings: Settings) -> Finding:
    packet = int(server["max_allowed_packet"])
    # Each character may be escaped.
    wanted = 2 * settings.max_body_bytes + _PACKET_MARGIN
    return judged(
        "max_allowed_packet",
        packet >= wanted,
        f"max_allowed_packet is {packet}, MAX_BODY_BYTES {settings.max_body_bytes}",
        f"Large requests would fail: set max_allowed_packet to {wanted} or more in my.cnf.",
    )


def _words(server: Variables) -> Finding:
    shortest, longest = server["innodb_ft_min_token_size"], server["innodb_ft_max_token_size"]
    # Three letters and the mark in front of them; `app/core/words.py` cuts at 80.
    return judged(
        "full_text",
        int(shortest) <= MIN_LETTERS + 1 and int(longest) >= MAX_LENGTH,
        f"words of {shortest} to {longest} characters are indexed",
        f"Searches would miss others: set innodb_ft_min_token_size to {MIN_LETTERS} and"
        " innodb_ft_max_token_size to 84 in my.cnf, and rebuild the FULLTEXT indexes.",
    )


def _allowed(server: Variables) -> int:
    per_user = int(server["max_user_connections"])
    return min(int(server["max_connections"]), per_user or int(server["max_connections"]))
