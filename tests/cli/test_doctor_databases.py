"""The doctor's checks of databases: healthy ones, and each kind of defect."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import make_url

from app.cli.doctor import databases, findings, sqlitefile
from app.cli.doctor.findings import Verdict
from app.db import engine as database
from app.db import sqlite
from app.models.base import utc_now
from tests.conftest import migrate
from tests.support.client import Client
from tests.support.commands import SetEnv
from tests.support.diagnosis import OwnDatabase, diagnose, execute, migrated_file
from tests.support.people import new_user
from tests.support.proxy import proxy_for

OK, WARN, FAIL = Verdict.ok, Verdict.warn, Verdict.fail
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
servers = pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
NAMES = "SET NAMES latin1"
CANARY = "canary-p4ss/word"
COMMON = {
    *("database", "migrations", "schema", "admins", "outbox", "environment", "disk"),
    *("redis", "mail"),
}
OF_KIND = {
    "sqlite": {"sqlite"},
    "mariadb": {
        *("charset", "sql_mode", "time_zone", "isolation", "durability", "connections"),
        *("max_allowed_packet", "reconnect", "clock", "privileges"),
    },
    "postgresql": {
        *("charset", "time_zone", "isolation", "durability", "connections", "reconnect", "clock"),
        "privileges",
    },
}


def kind_of(url: str) -> str:
    return {"mysql": "mariadb"}.get(name := make_url(url).get_backend_name(), name)


# --- Well ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("same_database")
async def test_a_healthy_database_is_well(client: Client, database_url: str) -> None:
    await new_user(client, roles=["admin", "user"])
    found = await diagnose()
    assert found.failed() == []
    assert found.checks() >= COMMON | OF_KIND[kind_of(database_url)]
    for check in OF_KIND[kind_of(database_url)] - {"connections", "durability"} | {"outbox"}:
        assert set(found.verdicts(check)) == {OK}, check


@servers
async def test_a_new_database_of_a_server_needs_migrations_only(
    kind: str, set_env: SetEnv, own_database: OwnDatabase
) -> None:
    async with own_database(kind, _DEFAULTS[kind]) as url:
        set_env(database_url=url)
        found = await diagnose()
    assert [each.check for each in found.failed()] == ["migrations"]
    assert found.of("migrations").remedy == "Run scripts/migrate."
    assert found.checks() >= OF_KIND[kind] - {"privileges"}
    assert "admins" not in found.checks(), "there are no tables to look into"


_DEFAULTS = {"mariadb": "CHARACTER SET utf8mb4", "postgresql": ""}


# --- Out of reach --------------------------------------------------------------------------------


async def test_a_database_that_is_away_is_told_and_the_rest_looked_at(
    set_env: SetEnv, closed_port: int
) -> None:
    password = CANARY.replace("/", "%2F")
    for scheme in ("mysql", "postgresql"):
        set_env(database_url=f"{scheme}://user:{password}@127.0.0.1:{closed_port}/x")
        found = await diagnose()
        finding = found.of("database", f"127.0.0.1:{closed_port}/x")
        assert finding.verdict is FAIL
        assert "DATABASE_URL" in (finding.remedy or "")
        assert found.checks() == COMMON - {"migrations", "schema", "admins", "outbox"} | {
            *("addresses", "files", "secrets")
        }
        assert "canary" not in found.result.output


@on_servers
async def test_a_frozen_database_is_told_in_time(
    database_url: str, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "SECONDS", 0.5)
    async with proxy_for(make_url(database_url)) as proxy:
        proxy.freeze()
        set_env(database_url=proxy.url)
        started = time.perf_counter()
        found = await diagnose()
        assert time.perf_counter() - started < 10
        assert proxy.held_back
        proxy.thaw()
    assert "no answer within 0.5 s" in found.of("database").message
    assert "mail" in found.checks()


@servers
async def test_the_drivers_words_say_what_is_wrong(
    kind: str, set_env: SetEnv, own_database: OwnDatabase
) -> None:
    async with own_database(kind) as url:
        set_env(database_url=f"{url}_nowhere")
        found = await diagnose()
    message = found.of("database").message.lower()
    assert "unknown database" in message or "does not exist" in message


async def test_no_database_is_made_by_looking(set_env: SetEnv, tmp_path: Path) -> None:
    set_env(database_url=f"sqlite:///{tmp_path}/nothing.db")
    found = await diagnose()
    assert found.of("database").remedy == "Run scripts/migrate."
    assert not (tmp_path / "nothing.db").exists()
    set_env(database_url="sqlite://")
    assert "memory" in (await diagnose()).of("database").message


# --- MariaDB -------------------------------------------------------------------------------------


async def test_a_default_charset_that_loses_characters_is_told(
    set_env: SetEnv, tmp_path: Path, own_database: OwnDatabase
) -> None:
    async with own_database("mariadb", "CHARACTER SET latin1") as url:
        await asyncio.to_thread(migrate, url, tmp_path)
        set_env(database_url=url)
        found = await diagnose()
        finding = found.of("charset", "default is latin1")
        assert (finding.verdict, "utf8mb4" in (finding.remedy or "")) == (WARN, True)
        assert found.verdicts("charset") == [WARN, OK], "our tables say for themselves"
        await execute(
            url,
            "ALTER TABLE tags CONVERT TO CHARACTER SET latin1",
            "CREATE TABLE crashing (id int) ENGINE=MyISAM CHARACTER SET utf8mb4",
        )
        found = await diagnose()
    finding = found.of("charset", "crashing, tags")
    assert (finding.verdict, "ALTER TABLE" in (finding.remedy or "")) == (FAIL, True)


async def test_what_a_proxy_undoes_of_mariadbs_session_is_told(
    set_env: SetEnv, monkeypatch: pytest.MonkeyPatch, own_database: OwnDatabase
) -> None:
    undone = "SET SESSION sql_mode='', time_zone='+02:00'"
    monkeypatch.setattr(database, "_MARIADB_SESSION", undone)
    async with own_database("mariadb", "CHARACTER SET utf8mb4") as url:
        set_env(database_url=url)
        found = await diagnose()
    assert found.of("sql_mode", "empty").verdict is FAIL
    assert found.of("time_zone", "+02:00").verdict is FAIL


async def test_connections_that_lose_characters_are_told(
    set_env: SetEnv, monkeypatch: pytest.MonkeyPatch, own_database: OwnDatabase
) -> None:
    engine = database._engine

    def speaking_latin(*arguments: Any, **options: Any) -> Any:
        latin_engine = engine(*arguments, **options)
        event.listen(
            latin_engine.sync_engine, "connect", lambda raw, _: raw.cursor().execute(NAMES)
        )
        return latin_engine

    monkeypatch.setattr(database, "_engine", speaking_latin)
    async with own_database("mariadb", "CHARACTER SET utf8mb4") as url:
        set_env(database_url=url)
        found = await diagnose()
    assert found.of("charset", "connections speak latin1").verdict is FAIL


async def test_packets_too_small_for_bodies_are_told(
    set_env: SetEnv, own_database: OwnDatabase
) -> None:
    async with own_database("mariadb") as url:
        set_env(database_url=url, max_body_bytes=2**31)
        found = await diagnose()
    finding = found.of("max_allowed_packet")
    assert (finding.verdict, str(2**32 + 65_536) in (finding.remedy or "")) == (FAIL, True)


# --- PostgreSQL ----------------------------------------------------------------------------------


async def test_an_encoding_that_loses_characters_is_told(
    set_env: SetEnv, own_database: OwnDatabase
) -> None:
    latin = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    async with own_database("postgresql", latin) as url:
        set_env(database_url=url)
        found = await diagnose()
    assert found.of("charset", "LATIN1").verdict is FAIL


async def test_a_commit_that_does_not_wait_for_the_disk_is_told(
    set_env: SetEnv, own_database: OwnDatabase
) -> None:
    async with own_database("postgresql") as url:
        name = make_url(url).database
        await execute(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
        set_env(database_url=url)
        found = await diagnose()
    assert found.of("durability", "synchronous_commit is off").verdict is WARN
    assert found.of("durability", "fsync is on").verdict is OK


async def test_what_a_pooler_undoes_of_postgresqls_session_is_told(
    set_env: SetEnv, monkeypatch: pytest.MonkeyPatch, own_database: OwnDatabase
) -> None:
    monkeypatch.setitem(database._POSTGRESQL_SESSION, "timezone", "Europe/Madrid")
    async with own_database("postgresql") as url:
        set_env(database_url=url)
        found = await diagnose()
    assert found.of("time_zone", "Europe/Madrid").verdict is FAIL


# --- Servers -------------------------------------------------------------------------------------


@servers
async def test_transactions_and_pings_that_are_not_ours_are_told(
    kind: str, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch, own_database: OwnDatabase
) -> None:
    engine = database._engine

    def other_engine(*arguments: Any, **options: Any) -> Any:
        if options.get("isolation_level") == "READ COMMITTED":
            options |= {"isolation_level": "SERIALIZABLE", "pings": False}
        return engine(*arguments, **options)

    monkeypatch.setattr(database, "_engine", other_engine)
    async with own_database(kind) as url:
        set_env(database_url=url)
        found = await diagnose()
    assert "SERIALIZABLE" in found.of("isolation").message.upper()
    assert found.of("isolation").verdict is FAIL
    assert found.of("reconnect").verdict is FAIL


@servers
async def test_a_connection_to_another_server_is_not_cut(
    kind: str, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch, own_database: OwnDatabase
) -> None:
    """Behind a load balancer, another client's connection may have the same number."""

    async def another(_: object) -> object:
        return object()

    monkeypatch.setattr(databases, "_server", another)
    async with own_database(kind) as url:
        set_env(database_url=url)
        assert "reconnect" not in (await diagnose()).checks()


@servers
async def test_a_server_without_room_for_our_connections_is_told(
    kind: str, set_env: SetEnv, own_database: OwnDatabase
) -> None:
    async with own_database(kind) as url:
        verdicts = []
        for size in (500, 40):
            set_env(database_url=url, database_pool_size=size)
            finding = (await diagnose()).of("connections")
            assert f"up to {2 * size + 2} connections" in finding.message
            verdicts.append(finding.verdict)
    assert verdicts == [FAIL, WARN], "a second server needs as many"


@servers
@pytest.mark.parametrize(("seconds", "verdict"), [(5, WARN), (-5, WARN), (60, FAIL)])
async def test_clocks_that_disagree_are_told(
    kind: str,
    seconds: int,
    verdict: Verdict,
    set_env: SetEnv,
    monkeypatch: pytest.MonkeyPatch,
    own_database: OwnDatabase,
) -> None:
    def shifted() -> datetime:
        return utc_now() + timedelta(seconds=seconds)

    monkeypatch.setattr(databases, "utc_now", shifted)
    async with own_database(kind) as url:
        set_env(database_url=url)
        found = await diagnose()
    assert found.of("clock").verdict is verdict


# --- SQLite --------------------------------------------------------------------------------------


async def test_sqlite_that_may_lose_writes_is_told(
    set_env: SetEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await asyncio.to_thread(migrated_file, tmp_path)
    worse = ("journal_mode=DELETE", "synchronous=OFF", "foreign_keys=OFF")
    monkeypatch.setattr(sqlite, "_PRAGMAS", worse)
    set_env(database_url=url)
    found = await diagnose()
    for message in ("journal_mode is delete", "synchronous is 0", "foreign_keys is 0"):
        assert found.of("sqlite", message).verdict is FAIL


async def test_a_folder_that_takes_no_files_is_told(tmp_path: Path) -> None:
    # File permissions do not stop tests that run as root; this folder does.
    assert sqlitefile._folder(Path("/proc/version")).verdict is FAIL
    (tmp_path / "x.db").touch()
    assert sqlitefile._folder(tmp_path / "x.db").verdict is OK
