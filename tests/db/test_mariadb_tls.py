"""TLS to a real MariaDB server: asked for and had, or nothing happens.

Its users may come in TLS alone (REQUIRE SSL, REQUIRE X509), so what works has used it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
import uvloop
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import connect
from benchmarks.databases import engine_on
from tests.conftest import SECRET, make_settings
from tests.support.certificates import Authority
from tests.support.client import API, PASSWORD
from tests.support.database_servers import DatabaseServer, database_server, programs
from tests.support.process import environment, run_command, serving

pytestmark = pytest.mark.server
WORD = "contraseña € \" ' \\"


@dataclass
class World:
    """A server with TLS, whose certificate is for 127.0.0.1, and one without."""

    folder: Path
    encrypted: DatabaseServer
    plain: DatabaseServer

    def url(self, options: str = "", *, user: str = "root", host: str = "127.0.0.1") -> str:
        """What DATABASE_URL takes, with the names of files in it."""
        password = "" if user == "root" else f":{quote(WORD)}"
        server = f"mysql://{quote(user)}{password}@{host}:{self.encrypted.port}/app"
        return f"{server}?{self.options(options)}"

    def options(self, options: str) -> str:
        for name in ("ca", "other", "client"):
            options = options.replace(f"{name}.", f"{self.folder}/{name}.")
        return options


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    if not programs("mariadb"):
        if os.environ.get("CI"):
            pytest.fail("mariadb is not installed")
        pytest.skip("mariadb is not installed")
    folder = tmp_path_factory.mktemp("tls")
    authority, _ = Authority(folder), Authority(folder, "other")
    authority.issue("client")
    cert, key = authority.issue("server", "127.0.0.1")
    options = (f"--ssl-ca={authority.file}", f"--ssl-cert={cert}", f"--ssl-key={key}")
    async with AsyncExitStack() as stack:
        encrypted = stack.enter_context(database_server("mariadb", *options))
        plain = stack.enter_context(database_server("mariadb"))
        for server in (encrypted, plain):
            await server.ready()
            server.make_database("app")
        with encrypted.engine("mysql").begin() as connection:
            for user, demand in (("ñ€", "SSL"), ("certified", "X509")):
                given = {"user": user, "word": WORD}
                connection.exec_driver_sql(
                    f"CREATE USER %(user)s@'%%' IDENTIFIED BY %(word)s REQUIRE {demand}", given
                )
                connection.exec_driver_sql("GRANT ALL ON *.* TO %(user)s@'%%'", given)
        yield World(folder, encrypted, plain)


async def cipher(engine: AsyncEngine) -> str:
    async with engine.connect() as connection:
        found = await connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        return str(found.mappings().one()["Value"])


async def outcome(url: str, folder: Path) -> str:
    """How the app's connections turn out, of each kind the same: encrypted, plain or refused."""
    database = connect(make_settings(url, folder))
    found = set()
    for engine in (database.engine, database.reading, database.probing):
        try:
            found.add("encrypted" if await cipher(engine) else "plain")
        except DBAPIError as error:
            found.add("refused" if "(2026, " in str(error.orig) else str(error.orig))
    await database.dispose()
    [one] = found
    return one


MATRIX = [
    ("", "plain", "plain"),
    ("charset=utf8mb4&connect_timeout=5", "plain", "plain"),
    ("ssl=false", "plain", "plain"),
    ("ssl-mode=DISABLED", "plain", "plain"),
    ("sslmode=disable", "plain", "plain"),
    ("ssl-mode=PREFERRED", "encrypted", "plain"),
    ("sslmode=prefer", "encrypted", "plain"),
    ("ssl=true", "encrypted", "refused"),
    ("ssl=1", "encrypted", "refused"),
    ("useSSL=true", "encrypted", "refused"),
    ("ssl-mode=REQUIRED", "encrypted", "refused"),
    ("ssl_mode=REQUIRED", "encrypted", "refused"),
    ("sslmode=require", "encrypted", "refused"),
    ("tls=skip-verify", "encrypted", "refused"),
    ("ssl_ca=ca.pem", "encrypted", "refused"),
    ("ssl_ca=ca.pem&ssl_verify_cert=true&ssl_verify_identity=true", "encrypted", "refused"),
    ("ssl-mode=VERIFY_CA&ssl_ca=ca.pem", "encrypted", "refused"),
    ("ssl-mode=VERIFY_IDENTITY&ssl_ca=ca.pem", "encrypted", "refused"),
    ("sslmode=verify-full&ssl_ca=ca.pem", "encrypted", "refused"),
    ("ssl_ca=ca.pem&ssl_cert=client.pem&ssl_key=client.key", "encrypted", "refused"),
    ("ssl_ca=other.pem", "refused", "refused"),
    ("ssl-mode=REQUIRED&ssl_ca=other.pem", "refused", "refused"),
    ("ssl_ca=other.pem&ssl_verify_cert=false", "encrypted", "refused"),
    # Of no authority that the machine knows.
    ("tls=true", "refused", "refused"),
    ("sslmode=verify-ca", "refused", "refused"),
]


@pytest.mark.parametrize(("options", "with_tls", "without"), MATRIX)
async def test_what_is_asked_for_is_had_or_refused(
    world: World, options: str, with_tls: str, without: str, tmp_path: Path
) -> None:
    url = world.url(options)
    assert await outcome(url, tmp_path) == with_tls
    other = url.replace(str(world.encrypted.port), str(world.plain.port))
    assert await outcome(other, tmp_path) == without


async def test_a_name_is_looked_at_where_identity_is_asked_for(
    world: World, tmp_path: Path
) -> None:
    for options, found in (
        ("ssl_ca=ca.pem", "encrypted"),
        ("ssl_ca=ca.pem&ssl_verify_identity=true", "refused"),
        ("ssl_ca=ca.pem&sslmode=verify-full", "refused"),
        ("ssl_ca=ca.pem&tls=true", "refused"),
    ):
        assert await outcome(world.url(options, host="localhost"), tmp_path) == found


def test_it_is_the_same_in_the_event_loop_of_production(world: World, tmp_path: Path) -> None:
    """uvloop, whose sockets cannot be copied; with more than a buffer in each direction."""

    async def work() -> None:
        database = connect(make_settings(world.url("ssl_ca=ca.pem", user="ñ€"), tmp_path))
        async with database.engine.connect() as connection:
            text = "ñ" * 2_000_000
            found = await connection.exec_driver_sql("SELECT %s", (text,))
            assert found.scalar_one() == text
            found = await connection.exec_driver_sql("SELECT seq FROM seq_1_to_100000")
            assert len(found.all()) == 100_000
        await database.dispose()

    uvloop.run(work())
    asyncio.run(work())


async def test_certificates_of_clients_are_shown(world: World, tmp_path: Path) -> None:
    own = "ssl_ca=ca.pem&ssl_cert=client.pem&ssl_key=client.key"
    assert await outcome(world.url(own, user="certified"), tmp_path) == "encrypted"
    refused = await outcome(world.url("ssl_ca=ca.pem", user="certified"), tmp_path)
    assert "Access denied" in refused


async def test_what_kills_statements_comes_in_tls_as_well(world: World, tmp_path: Path) -> None:
    """Its user may not come otherwise."""
    url = world.url("ssl-mode=VERIFY_IDENTITY&ssl_ca=ca.pem", user="ñ€")
    database = connect(make_settings(url, tmp_path))

    async def sleep() -> None:
        async with database.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT SLEEP(30)")

    sleeping = asyncio.create_task(sleep())
    await asyncio.sleep(0.3)
    sleeping.cancel()
    async with asyncio.timeout(3):
        await asyncio.wait({sleeping})
    async with database.engine.connect() as connection:
        found = await connection.exec_driver_sql("SHOW PROCESSLIST")
        assert not [row for row in found if "SLEEP" in str(row.Info)]
    await database.dispose()


def test_engines_that_wait_have_the_same_tls(world: World) -> None:
    for options, encrypted in (
        ("ssl=false", False),
        ("ssl_ca=ca.pem", True),
        ("sslmode=require", True),
    ):
        user = "ñ€" if encrypted else "root"
        engine = engine_on("mariadb", make_url(world.url(options, user=user)))
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()
        engine.dispose()
        assert bool(found[1]) is encrypted


# --- Scripts ---------------------------------------------------------------------------------


def settings_of(url: str, folder: Path) -> dict[str, str]:
    return environment(data_dir=folder, database_url=url, secret_key=SECRET, port=0)


@pytest.mark.parametrize(
    "options",
    [
        "ssl_ca=ca.pem",
        "ssl-mode=REQUIRED",
        "ssl-mode=VERIFY_IDENTITY&ssl_ca=ca.pem&ssl_cert=client.pem&ssl_key=client.key",
    ],
)
async def test_the_app_and_its_scripts_use_it(world: World, options: str, tmp_path: Path) -> None:
    user = "certified" if "client." in options else "ñ€"
    env = settings_of(world.url(options, user=user), tmp_path)

    async def run(*arguments: str) -> str:
        status, out, err = await run_command(*arguments, cwd=tmp_path, env=env)
        assert status == 0, out + err
        return out

    await run("migrate")
    account = {"email": f"{user.encode().hex()}{len(options)}@example.com", "name": "Ñandú"}
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        registered = await http.post(f"{API}/auth/register", json=account | {"password": PASSWORD})
        assert registered.status_code == 201, registered.text
    backup = tmp_path / "backup"
    await run("backup", str(backup))
    assert account["email"] in backup.read_text()
    await run("restore", "--force", str(backup))
    assert "ok    database:" in (await run_command("doctor", cwd=tmp_path, env=env))[1]


@pytest.mark.parametrize("command", ["migrate", "backup", "run", "doctor"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ssl=true", "DATABASE_URL asks for TLS, and the server has none"),
        ("ssl_ca=/nope.pem", "DATABASE_URL: ssl_ca is not usable: /nope.pem"),
        ("nonsense=1", "DATABASE_URL: unknown options: nonsense"),
    ],
)
async def test_scripts_end_in_a_line(
    world: World, command: str, options: str, reason: str, tmp_path: Path
) -> None:
    url = f"mysql://root@127.0.0.1:{world.plain.port}/app?{options}"
    files = [str(tmp_path / "file")] if command == "backup" else []
    env = settings_of(url, tmp_path)
    status, out, err = await run_command(command, *files, cwd=tmp_path, env=env)
    assert status == 1
    if command == "doctor":
        assert reason in out
        assert err == ""
    else:
        assert reason in err
        assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in out + err
