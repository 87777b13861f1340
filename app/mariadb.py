"""MariaDB's driver, with one name for every way in which a server hangs up."""

from __future__ import annotations

from typing import Any

from aiomysql import Connection as DriverConnection
from aiomysql import OperationalError
from pymysql.constants.CR import CR_SERVER_LOST


class Connection(DriverConnection):  # type: ignore[misc] # it has no types
    """A connection that is lost as OperationalError, whatever the event loop makes of it.

    uvloop raises RuntimeError when something is written to a transport that the server has reset,
    or its socket is asked for. Neither the driver nor SQLAlchemy takes that for a connection that
    is gone: the ping before a connection's use failed instead of replacing it.

    And one that asks for no ROLLBACK, which the pool does after every use, where the last thing it
    did was to commit or to roll back.
    """

    _has_ended = False  # its transaction, with nothing sent since

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except RuntimeError as error:
            raise _lost(error) from error

    def _write_bytes(self, data: bytes) -> None:
        try:
            super()._write_bytes(data)
        except RuntimeError as error:
            raise _lost(error) from error

    async def _execute_command(self, command: int, sql: Any) -> None:
        self._has_ended = False
        await super()._execute_command(command, sql)

    async def commit(self) -> None:
        await super().commit()
        self._has_ended = True

    async def rollback(self) -> None:
        if not self._has_ended:
            await super().rollback()
            self._has_ended = True

    async def ensure_closed(self) -> None:
        try:
            await super().ensure_closed()
        except RuntimeError:  # nobody is there to say goodbye to
            self.close()


async def connect(**arguments: Any) -> Connection:
    """An open connection; what is given, and raised, is the driver's."""
    connection = Connection(**arguments)
    await connection._connect()
    return connection


def _lost(error: RuntimeError) -> OperationalError:
    return OperationalError(CR_SERVER_LOST, f"Lost connection to the server: {error}")
