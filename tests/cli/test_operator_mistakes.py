"""Operator mistakes end with one line that says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from app.cli import database
from tests.conftest import SERVERS, on_server
from tests.support.commands import SetEnv, invoke
from tests.support.database_servers import free_ports
from tests.support.forking import Ended, Order, run_all
from tests.support.settings import GOOD_SECRET

Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Mistake:
    """A command, in a folder that something is wrong with, and what the line has to hold."""

    command: str
    says: str
    settings: dict[str, object] = field(default_factory=dict)
    prepare: Prepare = lambda _: None
    status: int = 1


def dotenv(text: str | bytes) -> Prepare:
    raw = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / ".env").write_bytes(raw)


def file(name: str, content: bytes = b"x") -> Prepare:
    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return make


def folder(name: str) -> Prepare:
    return lambda at: (at / name).mkdir(parents=True)


def where(
    command: str, says: str, prepare: Prepare = lambda _: None, **settings: object
) -> Mistake:
    return Mistake(command, says, settings, prepare)


def called(command: str, says: str) -> Mistake:
    return Mistake(command, says, status=2)


PRODUCTION: dict[str, Any] = {"environment": "production", "secret_key": GOOD_SECRET}
AWAY = ("mysql://ana:canary@127.0.0.1:1/app", "postgresql://ana:canary@127.0.0.1:1/app")
COMMANDS = (
    *("run", "migrate", "seed", "purge", "backup x.backup"),
    *(
        "rotate-key --keep-days 0",
        "create-admin --email a@b.example --name Ana --password Abcd-1234-efgh",
    ),
)

DOTENV = [
    where("run", ".env is not UTF-8", dotenv("PORT=8001\n".encode("utf-16"))),
    where("run", ".env is not UTF-8", dotenv("FIRST_ADMIN_EMAIL=ñ@example.com".encode("latin-1"))),
    where("migrate", ".env, line 1, is not NAME=value", dotenv("PORT=8001\n".encode("utf-16-le"))),
    where("run", ".env, line 3, is not", dotenv("PORT=8001\n\nHOST='127.0.0.1\nWORKERS=1\n")),
    where("run", ".env is a folder", folder(".env")),
    where("run", "DATABSE_URL (DATABASE_URL?)", dotenv("DATABSE_URL=sqlite:///x.db")),
    where("worker", "SMTP_USER (SMTP_USERNAME?)", dotenv("SMTP_USER=ana")),
    where("seed", "PROT (PORT?)", dotenv("PROT=1")),
    where("backup x", "SECRET-KEY (SECRET_KEY?)", dotenv("SECRET-KEY=1")),
]
SETTINGS = [
    where("run", "DATABASE_URL must name a file", database_url="sqlite://"),
    where("seed", "DATABASE_URL must name a file", database_url="sqlite:///:memory:"),
    where(
        "run", "DATABASE_URL must name a file", database_url="sqlite:///file:x?mode=memory&uri=true"
    ),
    where("run", "DATABASE_URL must name a file", database_url="sqlite:///a%00b"),
    where("run", "DATABASE_URL must name a database", database_url="mysql://ana@127.0.0.1"),
    where("run", "DATABASE_URL", database_url="my database"),
    where("purge", "DATABASE_URL", database_url="oracle://x"),
    where("run", "PORT: Input should be less than", port=70000),
    where("run", "PORT: Input should be a valid integer", port="http"),
    where("run", "WORKERS", workers=0),
    where("run", "TRASH_DAYS", trash_days=10**12),
    where("purge", "REQUEST_TIMEOUT_SECONDS", request_timeout_seconds="nan"),
    where("run", "LOG_LEVEL", log_level="loud"),
    where("run", "TRUSTED_HOSTS must list", trusted_hosts="https://api.example.com"),
    where("run", "TRUSTED_HOSTS must list", trusted_hosts="api.example.com:8000"),
    where("run", "CORS_ORIGINS must list", cors_origins="https://app.example.com/"),
    where("run", "REDIS_URL must be", redis_url="127.0.0.1:6379"),
    where("worker", "REDIS_URL must be", redis_url="redis://127.0.0.1:port"),
    where("worker", "workers need REDIS_URL"),
    where("beat", "workers need REDIS_URL"),
    where("run", "SMTP_HOST must be", smtp_host="smtp://mail.example.com"),
    where("run", "SMTP_HOST must be", smtp_host="mail.example.com:587"),
    where("run", "SMTP_PORT=465 needs SMTP_TLS=tls", smtp_host="m.example.com", smtp_port=465),
    where("run", "SMTP_TLS=tls needs SMTP_PORT=465", smtp_host="m.example.com", smtp_tls="tls"),
    where("run", "SMTP_USERNAME needs", smtp_host="m.example.com", smtp_username="ana"),
    where("run", "SMTP_PASSWORD needs", smtp_host="m.example.com", smtp_password="canary"),
    where("run", "FIRST_ADMIN_EMAIL is not an e-mail", first_admin_email="admin@company.local"),
    where("run", "SPECIAL_USE_DOMAINS must", special_use_domains="admin@company.local"),
    where("run --reload", "WORKERS=1", workers=2),
    where("run --reload", "ENVIRONMENT=development", **PRODUCTION),
    where("run", "SECRET_KEY must be", environment="production"),
    where("run", "needs a key pair", token_algorithm="ES256", **PRODUCTION),
]
FILES = [
    where("run", "DATA_DIR cannot be used: data: is no folder", file("data")),
    where("run", "DATA_DIR", data_dir="/proc/nowhere"),
    where("rotate-key", "/proc/nowhere", data_dir="/proc/nowhere"),
    where("run", "secret.key", folder("data/secret.key")),
    where("run", "secret.key is not UTF-8", file("data/secret.key", b"\xff\xfe")),
    where("rotate-key", "secret.key is not UTF-8", file("data/secret.key", b"\xff\xfe")),
    where("run", "SECRET_KEY must not be empty", file("data/secret.key", b"")),
    where("run", "1.pem is", file("data/keys/1.pem"), token_algorithm="ES256"),
    where("run", "1.pem", folder("data/keys/1.pem"), token_algorithm="ES256"),
    where("run", "cimiento.db (DATA_DIR): is a folder", folder("data/cimiento.db")),
    where(
        "migrate", "data (DATABASE_URL): is a folder", folder("data"), database_url="sqlite:///data"
    ),
    where("run", "not a database", file("data/cimiento.db", b"no database" * 500)),
    where("seed", "no folder nowhere", database_url="sqlite:///nowhere/x.db"),
    where("backup nowhere/x", "the folder nowhere does not exist"),
    where("backup /proc/x", "/proc"),
    where("restore missing.backup", "missing.backup"),
    where("restore x.backup", "x.backup", file("x.backup", b"canary")),
    where("restore x.backup", "x.backup", folder("x.backup")),
    *(where(each, "run scripts/migrate") for each in COMMANDS[2:4]),
    where("backup x.backup", "there is no database at data/cimiento.db"),
    *(where(each, "run scripts/migrate") for each in COMMANDS[5:]),
]
SERVERS_AWAY = [where(each, "refuses: ", database_url=url) for each in COMMANDS for url in AWAY] + [
    where("run", "nowhere.invalid", database_url="mysql://ana:canary@nowhere.invalid/app"),
    where("run", "nowhere.invalid", database_url="postgresql://ana:canary@nowhere.invalid/app"),
    where(
        "migrate",
        "(postgresql://127.0.0.1:1/app): see whether it runs there, and whether"
        " DATABASE_DIRECT_URL is right",
        database_url="postgresql://ana:canary@127.0.0.1:2/app",
        database_direct_url="postgresql://ana:canary@127.0.0.1:1/app",
    ),
]
CALLS = [
    called("run --no-such", "No such option: --no-such"),
    called("run now", "unexpected extra argument"),
    called("no-such-command", "No such command"),
    called("seed --users many", "--users"),
    called("seed --users 0", "--users"),
    called("seed --posts 999999999999999999999999", "--posts"),
    called("rotate-key --keep-days -1", "--keep-days"),
    called("rotate-key --keep-days 99999999999", "--keep-days"),
    called("backup", "Missing argument"),
    called("backup a b", "unexpected extra argument"),
    called("restore", "Missing argument"),
    called("create-admin --email nobody --name Ana --password Abcd-1234-efgh", "--email"),
    called("create-admin --email a@b.example --name Ana --password short", "--password"),
    Mistake("worker --no-such", "No such option", {"redis_url": "redis://127.0.0.1:1"}, status=2),
    Mistake("create-admin", "nothing was entered"),
]


def is_one_line(ended: Ended, mistake: Mistake) -> str:
    """Why a command has not ended as it should; nothing if it has."""
    line = ended.stderr
    wrong = [
        reason
        for reason, is_so in {
            f"status {ended.status}": ended.status != mistake.status,
            "more than a line": line.count("\n") != 1 or not line.endswith("\n"),
            "a trace": "Traceback" in line,
            f"not said: {mistake.says}": mistake.says not in line,
            "a secret": "canary" in line,
            "no beginning": not line.startswith("cimiento: "),
        }.items()
        if is_so
    ]
    return (
        f"{mistake.command} {mistake.settings}: {', '.join(wrong)}: {line[-1500:]}" if wrong else ""
    )


async def expect_lines(mistakes: list[Mistake], tmp_path: Path, *, side_by_side: int = 2) -> None:
    """Run commands that have to end in a line; fail with what was said instead."""
    orders = []
    # Each has a port to itself: some come as far as listening before their mistake is found.
    ports = free_ports(len(mistakes))
    for number, mistake in enumerate(mistakes):
        at = tmp_path / str(number)
        at.mkdir()
        mistake.prepare(at)
        settings = {"port": ports[number]} | mistake.settings
        orders.append(Order(mistake.command.split(), at, settings))
    ended = await run_all(orders, side_by_side=side_by_side)
    if wrong := [each for each in map(is_one_line, ended, mistakes) if each]:
        pytest.fail("\n".join(wrong))


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def listening(port: int) -> list[Mistake]:
    return [
        where("run", f"PORT={port} is in use", port=port),
        where("serve", f"PORT={port} is in use", port=port, host="localhost"),
        where("run", "HOST=192.0.2.1 is no address of this machine", host="192.0.2.1"),
        where("run", "HOST=2001:db8::1 is no address of this machine", host="2001:db8::1"),
        where("run", "HOST=no.such.invalid is neither", host="no.such.invalid"),
        where("run", "HOST=127.0.0.1:8000 is neither", host="127.0.0.1:8000"),
        where("run", "HOST=http://localhost is neither", host="http://localhost"),
    ]


async def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    with taken_port() as port:
        every = DOTENV + SETTINGS + FILES + CALLS + SERVERS_AWAY + listening(port)
        assert len(every) >= 100
        await expect_lines(every, tmp_path)


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
async def test_a_server_that_says_nothing_is_one_line(
    kind: str, monkeypatch: pytest.MonkeyPatch, set_env: SetEnv
) -> None:
    """As one of something else, or frozen."""
    monkeypatch.setattr(database, "REACH_SECONDS", 0.5)
    with taken_port() as port:
        set_env(database_url=f"{kind}://ana@127.0.0.1:{port}/app")
        ended = await invoke("migrate")
    line = str(ended.exception)
    assert (ended.exit_code, "\n" in line) == (1, False)
    assert f"the database at {kind}://127.0.0.1:{port}/app does not answer" in line


async def test_with_log_level_debug_there_is_a_trace(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    settings = {"log_level": "debug", "database_url": AWAY[0]}
    [ended] = await run_all([Order(["migrate"], tmp_path, settings)], side_by_side=1)
    assert (ended.status, "Traceback" in ended.stderr) == (1, True)
    assert "canary" not in ended.stderr


# --- Database servers --------------------------------------------------------------------------

REFUSED = {
    "mariadb": [
        ("{user}:canary@{place}/{database}", "set the right user and password"),
        ("{user}:right@{place}/no_such_database", "refuses"),
        ("{user}:right@{place}/{database}", "grant the user"),
        ("{admin}@{place}/no_such_database", "make that database"),
    ],
    "postgresql": [
        ("no_such_user:canary@{place}/{database}", "does not exist"),
        ("{admin}@{place}/no_such_database", "make that database"),
        ("{user}:right@{place}/{database}", "grant the user"),
    ],
}
MAKE = {
    "mariadb": ["CREATE USER {user}@'%' IDENTIFIED BY 'right'", "DROP USER {user}@'%'"],
    "postgresql": ["CREATE ROLE {user} LOGIN PASSWORD 'right'", "DROP ROLE {user}"],
}


@pytest.mark.parametrize("database_url", [*SERVERS], indirect=True)
async def test_a_server_that_refuses_is_one_line(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["database_url"]
    url = make_url(database_url)
    names = {"user": f"operators_{os.getpid()}", "database": url.database, "admin": url.username}
    names["place"] = f"{url.host}:{url.port}"
    create_user, drop_user = (each.format(**names) for each in MAKE[kind])
    empty = f"operators_{os.getpid()}"
    await on_server(SERVERS[kind], f"CREATE DATABASE {empty}")
    await on_server(SERVERS[kind], create_user)
    try:
        wrong = [
            where(
                command, says, database_url=f"{kind}://{form.format(**names | {'database': empty})}"
            )
            for form, says in REFUSED[kind]
            for command in ("run", "migrate")
        ]
        # One after the other: who migrates the same database waits for another, and says so.
        await expect_lines(wrong, tmp_path, side_by_side=1)
    finally:
        await on_server(SERVERS[kind], drop_user)
        await on_server(SERVERS[kind], f"DROP DATABASE {empty}")


@pytest.mark.parametrize("database_url", [*SERVERS], indirect=True)
async def test_scripts_before_the_first_migration_say_so(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["database_url"]
    empty = f"operators_empty_{os.getpid()}"
    await on_server(SERVERS[kind], f"CREATE DATABASE {empty}")
    try:
        url = make_url(database_url).set(database=empty).render_as_string(hide_password=False)
        early = [
            where(command, "run scripts/migrate", database_url=url)
            for command in COMMANDS
            if command.split()[0] not in {"run", "migrate", "backup"}
        ]
        await expect_lines(early, tmp_path)
    finally:
        await on_server(SERVERS[kind], f"DROP DATABASE {empty}")
