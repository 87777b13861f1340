"""Backups of MariaDB and MySQL: by the client programs that come with them.

Passwords reach those in a file for the owner alone: everybody on the machine can read a command
line.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from app.backups.contents import BackupError, Contents
from app.backups.dumps import read_dump
from app.backups.programs import Pieces, feed, pieces, run, tool
from app.sqlite import LOCK_WAIT_SECONDS

_TLS = ("ca", "capath", "cert", "cipher", "key")
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
        """A snapshot of these tables (all, when none is named), as SQL that stops at the first one
        that is there already."""
        program = tool("mariadb-dump", "mysqldump", package="mariadb-client")
        with self._options() as options, target.open("wb") as file:
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
        """MariaDB has no transactions for tables: what fails midway is said to have."""
        program = tool("mariadb", "mysql", package="mariadb-client")
        with self._options() as options:
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
    def _options(self) -> Iterator[str]:
        """The option that names a file with the rest; it has to be the first of all."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".cnf") as file:
            file.write("[client]\n")
            file.writelines(
                f"{name}={_quoted(value)}\n" for name, value in _client_options(self._url).items()
            )
            file.flush()
            yield f"--defaults-file={file.name}"


def _client_options(url: URL) -> dict[str, str]:
    """What the driver is told, under the names that the client programs know."""
    given = dict(url.get_dialect()().create_connect_args(url)[1])
    tls = {f"ssl-{name}": given.get("ssl", {}).get(name) for name in _TLS}
    names = {"user": "user", "password": "password", "host": "host", "port": "port"}
    names["unix_socket"] = "socket"
    options = {name: given[ours] for ours, name in names.items() if ours in given} | tls
    # As the driver has it: newer programs demand TLS, and check it, unless they are told.
    options["ssl-verify-server-cert"] = int(tls["ssl-ca"] is not None)
    return {name: str(value) for name, value in options.items() if value is not None}


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
