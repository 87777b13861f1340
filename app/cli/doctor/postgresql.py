"""PostgreSQL: characters, time, isolation, durability, room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.cli.doctor.findings import Finding, Findings, advised, judged, warning
from app.cli.doctor.pools import enough_connections
from app.config import Pooler, Settings
from app.db.engine import Database
from app.db.poolers import is_pooled

_DURABLE = {
    "fsync": "A power cut may destroy the database",
    "full_page_writes": "A power cut may destroy pages",
    "synchronous_commit": "What was acknowledged may be gone after a power cut",
}
_UTC = {"UTC", "Etc/UTC", "GMT"}


async def check(database: Database, settings: Settings) -> Findings:
    """Check the settings that the app's own connections see."""
    async with database.engine.connect() as connection:
        rows: Any = await connection.exec_driver_sql("SELECT name, setting FROM pg_settings")
        found = {str(name): str(value) for name, value in rows}
        if await connection.run_sync(is_pooled):
            # How many connections the server has to allow, is up to the pooler.
            return [*_session(found), *_durability(found), _pooler(settings)]
    reserved = int(found["superuser_reserved_connections"])
    allowed = int(found["max_connections"]) - reserved
    return [
        *_session(found),
        *_durability(found),
        enough_connections(settings, allowed, where="max_connections"),
    ]


def _pooler(settings: Settings) -> Finding:
    kind, message = settings.database_pooler, "a pooler stands between the app and the server"
    if kind is Pooler.none:
        remedy = "Say which: DATABASE_POOLER=transaction or session (docs/operations.md)."
        return warning("pooler", message, remedy)
    needs_direct = kind is Pooler.transaction and not settings.database_direct_url
    return advised(
        "pooler",
        not needs_direct,
        f"{message}, DATABASE_POOLER={kind}",
        "Set DATABASE_DIRECT_URL to the server itself, or migrations and backups are refused.",
    )


def _session(found: Mapping[str, str]) -> Iterator[Finding]:
    encoding = found["server_encoding"]
    yield judged(
        "charset",
        encoding == "UTF8",
        f"the database's encoding is {encoding}",
        "Restore a dump into a new one: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;",
    )
    proxy = "Something between the app and the server (a pooler) undoes what is set."
    zone = found["TimeZone"]
    yield judged("time_zone", zone in _UTC, f"TimeZone is {zone}", f"It has to be UTC. {proxy}")
    isolation = found["transaction_isolation"]
    yield judged(
        "isolation",
        isolation == "read committed",
        f"transactions are {isolation}",
        f"They have to be read committed. {proxy}",
    )


def _durability(found: Mapping[str, str]) -> Iterator[Finding]:
    for name, danger in _DURABLE.items():
        yield advised(
            "durability",
            found[name] != "off",
            f"{name} is {found[name]}",
            f"{danger}: set {name}=on in postgresql.conf.",
        )
