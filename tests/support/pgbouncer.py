"""A PgBouncer of one's own, on a free port, in front of a PostgreSQL server that others use too."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from tests.support.database_servers import AS_ROOT, as_owner, free_ports

PATIENCE_SECONDS = 20
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_INI = """
[databases]
* = host={host} port={port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
"""


def program() -> str:
    """Where PgBouncer is; CI has it, elsewhere the test is skipped."""
    found = shutil.which("pgbouncer", path=PATH)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("pgbouncer is not installed: .ci/services does that")
        pytest.skip("pgbouncer is not installed")
    return found


@contextmanager
def pgbouncer(target: str | URL, mode: str, *, size: int = 4) -> Iterator[str]:
    """The database's URL by way of a pooler that has `size` connections to the server."""
    url, [port] = make_url(target), free_ports(1)
    found, folder = program(), Path(tempfile.mkdtemp(prefix="cimiento-pgbouncer-"))
    password = f" password={url.password}" if url.password else ""
    ini = _INI.format(
        host=url.host,
        port=url.port,
        user=url.username,
        password=password,
        listen_port=port,
        mode=mode,
        size=size,
    )
    (folder / "pgbouncer.ini").write_text(ini)
    if AS_ROOT:  # which it refuses to run as
        for path in (folder, folder / "pgbouncer.ini"):
            shutil.chown(path, "postgres")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [found, str(folder / "pgbouncer.ini")],
            stdout=log,
            stderr=log,
            **as_owner("postgresql"),
        )
    try:
        _await(port, process, folder / "log")
        by_way = url.set(host="127.0.0.1", port=port)
        yield by_way.render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise AssertionError(log.read_text())
