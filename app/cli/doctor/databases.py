"""The database of the settings: reachable, set up as the app needs it, migrated, in good time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.doctor import mariadb, postgresql, sqlitefile, tables
from app.cli.doctor.findings import (
    Finding,
    Findings,
    Verdict,
    advised,
    failure,
    good,
    judged,
    reason,
    warning,
)
from app.config import Settings
from app.crud import admins, backlog
from app.db import fitness, migrations
from app.db.engine import Database
from app.db.mariadb import WHICH_SERVER
from app.db.migrations import Revision
from app.db.poolers import is_pooled
from app.db.queries import open_query_runner
from app.models import Base
from app.models.base import utc_now
from app.models.outbox import MailState

WARN_LAG_SECONDS, FAIL_LAG_SECONDS = 60, 600
WARN_SKEW_SECONDS, FAIL_SKEW_SECONDS = 1, 30
_OWN_ID = {"mysql": "SELECT CONNECTION_ID()", "postgresql": "SELECT pg_backend_pid()"}
_KILL = {"mysql": "KILL {}", "postgresql": "SELECT pg_terminate_backend({})"}
_SERVER = {
    "mysql": WHICH_SERVER,
    "postgresql": "SELECT inet_server_addr()::text, inet_server_port()::text,"
    " pg_postmaster_start_time()::text",
}
_NOW = {"mysql": "SELECT UTC_TIMESTAMP(6)", "postgresql": "SELECT clock_timestamp()"}
_VERSION = {
    "mysql": "SELECT VERSION()",
    "postgresql": "SHOW server_version",
    "sqlite": "SELECT sqlite_version()",
}

Look = Callable[[Database, Settings], Awaitable[Findings]]


def checks(settings: Settings) -> Iterator[tuple[str, Look]]:
    """Yield the checks that suit a database, by name."""
    yield "database", check_reachable
    match settings.url.get_backend_name():
        case "sqlite":
            yield "sqlite", sqlitefile.check
        case "mysql":
            yield "mariadb", mariadb.check
            yield "reconnect", check_reconnect
            yield "clock", check_clock
        case _:
            yield "postgresql", postgresql.check
            yield "reconnect", check_reconnect
            yield "clock", check_clock
    yield "migrations", check_migrations
    yield "schema", tables.check_schema
    if settings.url.get_backend_name() != "sqlite":
        yield "privileges", tables.check_privileges
    yield "admins", check_admins
    yield "outbox", check_outbox


def ends(name: str, findings: Sequence[Finding]) -> bool:
    """Return whether what was found leaves nothing to ask the database."""
    failed = any(each.verdict is Verdict.fail for each in findings)
    return failed and name in {"database", "migrations"}


async def check_reachable(database: Database, settings: Settings) -> Findings:
    """Check that it answers, and report its version."""
    where = _where(settings)
    started = time.perf_counter()
    try:
        async with database.probing.connect() as connection:
            version = await _scalar(connection, _VERSION[database.dialect])
    # Refused, denied, unknown database: the driver's words say which.
    except Exception as error:  # noqa: BLE001 see above
        remedy = (
            "See whether it runs there, the database exists, and DATABASE_URL has the right user."
        )
        return [failure("database", f"{where}: {reason(error)}", remedy)]
    spent = (time.perf_counter() - started) * 1_000
    return [good("database", f"{version} answers at {where} in {spent:.0f} ms")]


def _where(settings: Settings) -> str:
    url = settings.url
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.get_backend_name()}://{url.host}:{url.port or 'default'}/{url.database}"


async def _scalar(connection: AsyncConnection, statement: str) -> object:
    return (await connection.exec_driver_sql(statement)).scalar_one()


async def check_reconnect(database: Database, _: Settings) -> Findings:
    """Cut one of our connections, and check that it is replaced before use."""
    async with database.engine.connect() as connection:
        if await connection.run_sync(is_pooled):
            return []  # the session may be another client's by the time it would be cut
        own_id = await _scalar(connection, _OWN_ID[database.dialect])
        server = await _server(connection)
    async with database.probing.connect() as killer:
        # Behind a load balancer the same number may be another client's, on another server.
        if await _server(killer) != server:
            return []
        await killer.exec_driver_sql(_KILL[database.dialect].format(own_id))
    try:
        async with database.engine.connect() as connection:
            await _scalar(connection, "SELECT 1")
    except Exception as error:  # noqa: BLE001 whatever the driver makes of it
        remedy = (
            "Connections must be pinged before use (app/db/pings.py): install the locked drivers."
        )
        return [failure("reconnect", f"a cut connection is an error: {reason(error)}", remedy)]
    return [good("reconnect", "a cut connection is replaced")]


async def _server(connection: AsyncConnection) -> object:
    rows = await connection.exec_driver_sql(_SERVER[connection.dialect.name])
    return sorted(map(tuple, rows))


async def check_clock(database: Database, _: Settings) -> Findings:
    """Check that the server's clock agrees with this machine's."""
    async with database.probing.connect() as connection:
        before = utc_now()
        server_time = await _scalar(connection, _NOW[database.dialect])
        after = utc_now()
    assert isinstance(server_time, datetime)
    theirs = server_time.replace(tzinfo=server_time.tzinfo or UTC)
    skew = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0)
    message = f"the database's clock is {skew:.1f} s off"
    remedy = "Let both machines take their time from the same servers (NTP)."
    if skew > FAIL_SKEW_SECONDS:
        return [failure("clock", message, remedy)]
    return [advised("clock", skew <= WARN_SKEW_SECONDS, message, remedy)]


async def check_migrations(database: Database, _: Settings) -> Findings:
    """Check that the tables are those of this version."""
    async with database.engine.connect() as connection:
        strange = await connection.run_sync(fitness.strangeness, Base.metadata.tables.keys())
    if strange:
        return [failure("migrations", strange, "Name a database of its own in DATABASE_URL.")]
    return [_migration(await migrations.revision_of(database))]


def _migration(revision: Revision) -> Finding:
    name, at = "migrations", f"at {revision.found}"
    if revision.found is None:
        return failure(name, "there are no tables", "Run scripts/migrate.")
    if revision.is_older:
        return failure(name, f"{at}, behind {revision.head}", "Run scripts/migrate.")
    if revision.is_newer:
        return warning(
            name,
            f"{at}, which this version does not know",
            "A newer version has migrated: finish its deployment, or restore the backup before it.",
        )
    return good(name, f"{at}, the newest")


async def check_admins(database: Database, _: Settings) -> Findings:
    """Check that an administrator can log in."""
    async with database.begin(readonly=True) as session:
        found = await admins.has_admin(session)
    return [
        judged(
            "admins",
            found,
            "an administrator can log in" if found else "no administrator can log in",
            "Run scripts/create-admin.",
        )
    ]


async def check_outbox(database: Database, _: Settings) -> Findings:
    """Check that mails are delivered."""
    reader = open_query_runner(database)
    try:
        found = await backlog.measure(reader)
    finally:
        await reader.dispose()
    waiting, dead = sum(found.counts.values()), found.counts[MailState.dead]
    message = f"{waiting - dead} mails wait, the oldest due for {found.lag_seconds:.0f} s"
    remedy = "See whether an API process (or worker) runs, and what the check of mail says."
    late = found.lag_seconds > FAIL_LAG_SECONDS
    return [
        failure("outbox", message, remedy)
        if late
        else advised("outbox", found.lag_seconds <= WARN_LAG_SECONDS, message, remedy),
        advised(
            "outbox",
            not dead,
            f"{dead} mails were given up",
            "GET /api/v1/outbox?state=dead shows why; POST /api/v1/outbox/{id}/retry tries again.",
        ),
    ]
