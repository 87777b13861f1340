"""PostgreSQL: characters, time, isolation, durability, room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.config import Settings
from app.database import Database
from app.doctor.findings import Finding, Findings, advised, judged
from app.doctor.pools import enough_connections

_DURABLE = {
    "fsync": "A power cut may destroy the database",
    "full_page_writes": "A power cut may destroy pages",
    "synchronous_commit": "What was acknowledged may be gone after a power cut",
}
_UTC = {"UTC", "Etc/UTC", "GMT"}


async def check(database: Database, settings: Settings) -> Findings:
    """What the app's own connections see."""
    async with database.engine.connect() as connection:
        rows: Any = await connection.exec_driver_sql("SELECT name, setting FROM pg_settings")
        found = {str(name): str(value) for name, value in rows}
    reserved = int(found["superuser_reserved_connections"])
    allowed = int(found["max_connections"]) - reserved
    return [
        *_session(found),
        *_durability(found),
        enough_connections(settings, allowed, where="max_connections"),
    ]


def _session(found: Mapping[str, str]) -> Iterator[Finding]:
    encoding = found["server_encoding"]
    yield judged(
        "charset",
        encoding == "UTF8",
        f"the database's encoding is {encoding}",
        "Restore a dump into one made by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;",
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
