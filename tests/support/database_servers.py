"""Database servers of one's own, durable as in production, that die, freeze and come back.

Each listens on a free port, with its data in a folder that is gone afterwards. Only processes
started here are signalled, by their ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

PATIENCE_SECONDS = 60
KINDS = ("mariadb", "postgresql")
AS_ROOT = os.geteuid() == 0
_URLS = {
    "mariadb": URL.create("mysql+aiomysql", "root", host="127.0.0.1"),
    "postgresql": URL.create("postgresql+psycopg", "postgres", host="127.0.0.1"),
}
_SYNC = {"mariadb": "mysql+pymysql", "postgresql": "postgresql+psycopg"}
_EXISTING = {"mariadb": "mysql", "postgresql": "postgres"}


def programs(kind: str) -> dict[str, str]:
    """Where the programs of a database are; empty when it is not installed."""
    wanted = {
        "mariadb": ("mariadb-install-db", "mariadbd"),
        "postgresql": ("initdb", "postgres"),
    }[kind]
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
    path = os.pathsep.join(["/usr/sbin", *map(str, versions), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in wanted}
    return {name: where for name, where in found.items() if where} if all(found.values()) else {}


@dataclass
class DatabaseServer:
    """One server; `kills` and `freezes` count what was done to it.

    `options` of the command line come after its own (MariaDB's alone).
    """

    kind: str
    folder: Path
    port: int
    options: tuple[str, ...] = ()
    kills: int = 0
    freezes: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _frozen: list[int] = field(default_factory=list)

    def url(self, database: str) -> str:
        """What DATABASE_URL takes."""
        url = _URLS[self.kind].set(port=self.port, database=database)
        return url.render_as_string(hide_password=False)

    def engine(self, database: str) -> Engine:
        """Plain connections past the API; none is kept."""
        url = _URLS[self.kind].set(drivername=_SYNC[self.kind], port=self.port, database=database)
        return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 2})

    def make_database(self, name: str) -> str:
        """An empty database; its URL."""
        engine = self.engine(_EXISTING[self.kind])
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        """Begin to start; on the same port and data as before."""
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, **as_owner(self.kind)
            )

    def command(self) -> list[str]:
        """How it is started."""
        return _command(self)

    async def ready(self) -> None:
        """Return when it executes statements."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await asyncio.to_thread(self._executes):
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2_000:]
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """`kill -9` of all its processes, and wait until they are gone."""
        assert self._process is not None
        self.thaw()
        assert self._process.poll() is None, "it was running"
        everyone = [*_children(self._process.pid), self._process.pid]
        for pid in reversed(everyone):
            _signal(pid, signal.SIGKILL)
        assert self._process.wait(timeout=PATIENCE_SECONDS) == -signal.SIGKILL
        _until(lambda: not any(map(_is_alive, everyone)))
        self.kills += 1

    def freeze(self) -> None:
        """SIGSTOP to all its processes: the kernel still accepts connections, nobody answers."""
        assert self._process is not None
        self._frozen = [self._process.pid, *_children(self._process.pid)]
        for pid in self._frozen:
            _signal(pid, signal.SIGSTOP)
        _until(lambda: self.is_frozen)
        self.freezes += 1

    @property
    def is_frozen(self) -> bool:
        """Whether none of its processes moves."""
        return bool(self._frozen) and all(_state(pid) in {"T", "Z", ""} for pid in self._frozen)

    def thaw(self) -> None:
        """SIGCONT to all that were stopped."""
        for pid in reversed(self._frozen):
            _signal(pid, signal.SIGCONT)
        self._frozen = []

    def end(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _executes(self) -> bool:
        try:
            with self.engine(_EXISTING[self.kind]).connect() as connection:
                connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            return False
        return True


@contextlib.contextmanager
def database_server(kind: str, *options: str) -> Iterator[DatabaseServer]:
    """A server that is starting; killed, with its data, at the end of the block."""
    # Not below pytest's folders: those are closed to PostgreSQL's user.
    folder = Path(tempfile.mkdtemp(prefix=f"cimiento-{kind}-"))
    try:
        if AS_ROOT and kind == "postgresql":
            shutil.chown(folder, "postgres")
        subprocess.run(making(kind, folder), check=True, capture_output=True, **as_owner(kind))
        [port] = free_ports(1)
        server = DatabaseServer(kind, folder, port, options)
        server.start()
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def making(kind: str, folder: Path) -> list[str]:
    """The command that makes the data of an empty server below a folder."""
    found = programs(kind)
    data = folder / "data"
    if kind == "postgresql":
        return [found["initdb"], "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]
    return [
        *(found["mariadb-install-db"], "--no-defaults", f"--datadir={data}"),
        *("--auth-root-authentication-method=normal", "--skip-test-db"),
        *(["--user=root"] if AS_ROOT else []),
    ]


def _command(server: DatabaseServer) -> list[str]:
    found, folder = programs(server.kind), server.folder
    if server.kind == "postgresql":
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder),
            "fsync": "on",
            "synchronous_commit": "on",
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [found["postgres"], "-D", str(folder / "data"), "-p", str(server.port), *given]
    return mariadb_command(server)


def mariadb_command(server: DatabaseServer, *, user: str = "root") -> list[str]:
    """The command of a MariaDB server of the tests; it runs as `user` if root starts it."""
    found, folder = programs("mariadb"), server.folder
    return [
        *(found["mariadbd"], "--no-defaults", f"--datadir={folder / 'data'}"),
        *("--bind-address=127.0.0.1", f"--port={server.port}", f"--socket={folder / 'socket'}"),
        *(f"--pid-file={folder / 'pid'}", "--innodb-buffer-pool-size=64M", "--skip-name-resolve"),
        *("--innodb-flush-log-at-trx-commit=1", "--character-set-server=utf8mb4"),
        *([f"--user={user}"] if AS_ROOT else []),
        *server.options,
    ]


def as_owner(kind: str) -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if not AS_ROOT or kind != "postgresql":
        return {}
    owner = pwd.getpwnam("postgres")
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}


def free_ports(number: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, each another."""
    with contextlib.ExitStack() as open_ones:
        listeners = [
            open_ones.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [listener.getsockname()[1] for listener in listeners]


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _is_alive(pid: int) -> bool:
    return _state(pid) not in {"", "Z"}


def _state(pid: int) -> str:
    """One letter, as `ps` has it; nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""
