"""Backups of MariaDB and MySQL: by the client programs that come with them.

Passwords reach those in a file for the owner alone: everybody on the machine can read a command
line.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from app.cli.backup.contents import BackupError, Contents
from app.cli.backup.dumps import read_dump
from app.cli.backup.programs import Pieces, feed, pieces, run, tool
from app.db.sqlite import LOCK_WAIT_SECONDS
from app.db.tls import Mode, Tls, tls_of

# MariaDB's programs from here on look at both the authority and the name of a certificate, or at
# neither.
_VERSION = re.compile(rb"\b(\d+)\.(\d+)\.\d+-MariaDB")
_VERIFIES_BOTH = (11, 4)
_TAIL_BYTES = 400
_CONFINED = (
    # Nothing in a file is a command to the client, whatever it says: in the sandbox none reaches
    # files or a shell, and in binary mode there are none. A client without the first has the other.
    *("--loose-sandbox", "--binary-mode", "--local-infile=0", "--disable-named-commands"),
)


class MariaDb:
    """The database of a `mysql://` URL, MariaDB's or MySQL's."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def dump(self, target: Path, tables: Sequence[str] = ()) -> None:
        """Write a snapshot of these tables (all, if none is named), as SQL that stops at the first
        one that exists already."""
        program = tool("mariadb-dump", "mysqldump", package="mariadb-client")
        with self._options(program) as options, target.open("wb") as file:
            run(
                [
                    *(program, options, "--default-character-set=utf8mb4"),
                    # One transaction and no locks: others go on writing.
                    *("--single-transaction", "--skip-lock-tables", "--quick"),
                    *("--hex-blob", "--no-tablespaces", "--skip-add-drop-table"),
                    # Tables alone: nothing of ours is anything else.
                    "--skip-triggers",
                    *("--", str(self._url.database), *tables),
                ],
                stdout=file,
            )

    def check(self, source: Path) -> Contents:
        with source.open("rb") as file:
            head = file.read(_TAIL_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            tail = file.read()
        if b"-- MariaDB dump" not in head and b"-- MySQL dump" not in head:
            raise BackupError(f"{source} is no backup of MariaDB")
        if b"-- Dump completed" not in tail:
            raise BackupError(f"{source} is cut off")
        return read_dump(source)

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:
        """Run the script. MariaDB has no transactions for tables: report what failed midway."""
        program = tool("mariadb", "mysql", package="mariadb-client")
        with self._options(program) as options:
            command = [program, options, *_CONFINED, "--default-character-set=utf8mb4"]
            command.append(str(self._url.database))
            run([*command, "--execute=SELECT 1"])
            try:
                feed(command, self._script(source, dropping))
            except BackupError as error:
                raise BackupError(
                    f"{error} -- the database may be empty or incomplete now, serve nothing from"
                    " it: remove the cause, and restore again with --force"
                ) from error

    def _script(self, source: Path, dropping: Sequence[str]) -> Pieces:
        # Texts end where we saw them end, whatever mode the server begins with.
        yield b"SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO';\n"
        if dropping:
            names = ", ".join("`" + name.replace("`", "``") + "`" for name in dropping)
            waits = f"lock_wait_timeout={LOCK_WAIT_SECONDS}"
            yield f"SET SESSION {waits}, foreign_key_checks=0;".encode()
            yield f"DROP TABLE IF EXISTS {names};\n".encode()
        with source.open("rb") as file:
            yield from pieces(file)

    @contextmanager
    def _options(self, program: str) -> Iterator[str]:
        """Yield the option that names a file with the others; it has to be the first of all."""
        options = _client_options(self._url) | _tls_options(self._url, program)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".cnf") as file:
            file.write("[client]\n")
            file.writelines(f"{name}={_quoted(value)}\n" for name, value in options.items())
            file.flush()
            yield f"--defaults-file={file.name}"


def _client_options(url: URL) -> dict[str, str]:
    """Return the settings of the driver under the option names of the client programs."""
    given = {
        "user": url.username,
        "password": url.password,
        "host": url.host,
        "port": url.port,
        "socket": url.query.get("unix_socket"),
        # The programs take `localhost` for a socket of their own choice, whatever the port.
        "protocol": "SOCKET" if "unix_socket" in url.query else "TCP",
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _tls_options(url: URL, program: str) -> dict[str, str]:
    """Return the options for TLS. Programs of MariaDB's and of MySQL's may have the same name, and
    each refuses options of the other."""
    tls = tls_of(url)
    names = {"ssl-cert": tls.cert, "ssl-key": tls.key, "ssl-cipher": tls.cipher}
    if tls.is_verified:
        names |= {"ssl-ca": tls.ca, "ssl-capath": tls.capath}
    options = {name: value for name, value in names.items() if value is not None}
    said = subprocess.run([program, "--version"], capture_output=True, check=False).stdout  # noqa: S603
    if b"MariaDB" in said:
        return options | _of_mariadb(tls, said)
    if tls.mode is not None:
        options["ssl-mode"] = tls.mode.name
        # MySQL's have no authority by themselves.
        default = ssl.get_default_verify_paths().cafile
        if tls.is_verified and default and not (tls.ca or tls.capath):
            options["ssl-ca"] = default
    return options


def _of_mariadb(tls: Tls, said: bytes) -> dict[str, str]:
    """Return the TLS options of MariaDB's programs. Newer ones demand TLS and verify everything by
    default."""
    version = _VERSION.search(said)
    is_old = version is not None and (int(version[1]), int(version[2])) < _VERIFIES_BOTH
    # Where the old ones verify by an authority, a name may be left to itself.
    is_lax = tls.mode is Mode.VERIFY_CA and is_old and bool(tls.ca or tls.capath)
    options = {"ssl-verify-server-cert": str(int(tls.is_verified and not is_lax))}
    return options if tls.mode is None else options | {"ssl": str(int(tls.mode > Mode.DISABLED))}


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
