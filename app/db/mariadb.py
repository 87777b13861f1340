"""MariaDB's driver, with one name for every way in which a server hangs up, and an end for
statements whose callers are gone.

A driver that is cancelled closes its socket, which MariaDB notices only when it has executed the
statement. Until the server has dropped such a connection, its place in the pool stays taken.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from contextlib import suppress
from dataclasses import dataclass
from ssl import SSLContext, SSLError
from typing import Any

from pymysql.charset import charset_by_name
from pymysql.connections import MAX_PACKET_LEN
from pymysql.constants.CLIENT import SSL
from pymysql.constants.CR import CR_SERVER_LOST, CR_SSL_CONNECTION_ERROR
from pymysql.constants.ER import NO_SUCH_THREAD
from pymysql.err import Error, InternalError, OperationalError

from app.db.aiomysql import imported
from app.db.tls import Tls, is_tls_option

DriverConnection: Any = imported().Connection
log = logging.getLogger("app.database")
# How long a connection may take to be gone before it is given up.
KILL_SECONDS = 2.0
# How long a connection in TLS may take to say goodbye.
CLOSE_SECONDS = 1.0
_LOOK_SECONDS = 0.01
_RETRY_SECONDS = 0.05
# Which server a connection leads to: a load balancer hides several behind one address, and their
# threads have the same numbers. SHOW is answered by a node that has lost its cluster, too.
WHICH_SERVER = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN"
    " ('hostname', 'port', 'datadir', 'server_id', 'server_uuid', 'wsrep_node_name')"
)


class Connection(DriverConnection):  # type: ignore[misc] # it has no types
    """A connection that is lost as OperationalError, whatever the event loop makes of it.

    uvloop raises RuntimeError when something is written to a transport that the server has reset,
    or its socket is asked for. Neither the driver nor SQLAlchemy takes that for a connection that
    is gone: the ping before a connection's use failed instead of replacing it.

    And one that asks for no ROLLBACK, which the pool does after every use, where the last thing it
    did was to commit or to roll back.

    And one that is encrypted before anything secret is sent, or refused, where TLS is asked for.
    """

    server: object = None  # which one this is a connection to
    killer: Killer | None = None
    _has_ended = False  # its transaction, with nothing sent since
    _was_cancelled = False  # with a statement under way
    _server_auth_plugin: str

    def __init__(
        self,
        *,
        password: str = "",
        encryption: Encryption | None = None,
        **arguments: Any,
    ) -> None:
        # The driver makes Latin-1 of it, which is what it is now; the clients make UTF-8 of it.
        super().__init__(password=password.encode().decode("latin-1"), **arguments)
        self._encryption = encryption

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except RuntimeError as error:
            raise _lost(error) from error
        # What the driver makes of a greeting that is not MariaDB's.
        except (InternalError, struct.error, IndexError, ValueError, OverflowError) as error:
            message = f"no MariaDB speaks at {self._host}:{self._port}"
            raise OperationalError(CR_SERVER_LOST, message) from error

    async def _request_authentication(self) -> None:
        if self._encryption is not None:
            if self.server_capabilities & SSL:
                await self._encrypt(self._encryption.context)
            elif self._encryption.is_required:
                raise _refused("DATABASE_URL asks for TLS, and the server has none")
        await super()._request_authentication()

    async def _encrypt(self, context: SSLContext) -> None:
        """Go on in TLS; the driver would do so on a copy of the socket, which uvloop has not."""
        self.client_flag |= SSL
        charset = charset_by_name(self.charset).id
        self.write_packet(struct.pack("<iIB23s", self.client_flag, MAX_PACKET_LEN, charset, b""))
        try:
            async with asyncio.timeout(self.connect_timeout):
                await self._refuse_unread()
                await self._writer.start_tls(context, server_hostname=self._host)
        except SSLError as error:
            raise _refused(f"TLS to {self._host} failed: {error}") from error
        self._secure = True
        if self._server_auth_plugin == "sha256_password":
            # It would ask for a key first, which a server asked in TLS does not send.
            self._server_auth_plugin = "mysql_native_password"

    async def _refuse_unread(self) -> None:
        """Refuse what was sent already: by nobody knows whom, and it would count as encrypted."""
        unread = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                unread = await self._reader.read(1)
        if unread:
            raise _refused("the server speaks before TLS has begun")

    def _write_bytes(self, data: bytes) -> None:
        try:
            super()._write_bytes(data)
        except RuntimeError as error:
            raise _lost(error) from error

    async def _execute_command(self, command: int, sql: Any) -> None:
        self._has_ended = False
        await super()._execute_command(command, sql)

    def _close_on_cancel(self) -> None:
        self._was_cancelled = True
        super()._close_on_cancel()

    async def commit(self) -> None:
        await super().commit()
        self._has_ended = True

    async def rollback(self) -> None:
        if not self._has_ended:
            await super().rollback()
            self._has_ended = True

    async def ensure_closed(self) -> None:
        """Close the connection; one that was cancelled is closed when the server has dropped it,
        or could not within KILL_SECONDS."""
        if self._was_cancelled and self.killer is not None:
            self._was_cancelled = False
            await self.killer.kill(self)
            return
        writer = self._writer
        try:
            await super().ensure_closed()
        except RuntimeError:  # nobody is there to say goodbye to
            self.close()
        if writer is not None and self._encryption is not None:
            # uvloop cannot close a loop in the middle of the end of TLS.
            with suppress(OSError):  # also that time is up
                async with asyncio.timeout(CLOSE_SECONDS):
                    await writer.wait_closed()


@dataclass(frozen=True)
class Encryption:
    """What encrypts connections, and whether a server without TLS is refused."""

    context: SSLContext
    is_required: bool

    @classmethod
    def of(cls, tls: Tls) -> Encryption | None:
        """Return it for what a URL asks for: None for nothing."""
        context = tls.context()
        return None if context is None else cls(context, tls.is_required)


class Opener:
    """Opens the connections of all pools of one app, which share one killer."""

    def __init__(self, tls: Tls | None = None) -> None:
        self._killer = Killer()
        self._encryption = Encryption.of(tls or Tls())

    async def __call__(self, **arguments: Any) -> Connection:
        """Return an open connection; what is given, and raised, is the driver's."""
        # As SQLAlchemy has taken them from the URL.
        arguments = {name: it for name, it in arguments.items() if not is_tls_option(name)}
        arguments["encryption"] = self._encryption
        connection = await _open(arguments)
        connection.killer = self._killer
        self._killer.arguments = arguments
        return connection

    async def dispose(self) -> None:
        """Stop what is under way."""
        await self._killer.dispose()


class Killer:
    """Kills connections that were cancelled, over one more connection that is opened for it.

    A task that waits for a kill holds a place in a pool, which bounds their number.
    """

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}
        self._condemned: dict[Connection, asyncio.Future[None]] = {}
        self._work: asyncio.Task[None] | None = None

    async def kill(self, connection: Connection) -> None:
        """Return when the server has dropped a connection, or after KILL_SECONDS."""
        gone = asyncio.get_running_loop().create_future()
        self._condemned[connection] = gone
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._kill_all())
        try:
            await asyncio.wait({gone}, timeout=KILL_SECONDS)
            if not gone.done():
                log.warning("statement left to the server", extra={"seconds": KILL_SECONDS})
        finally:
            self._condemned.pop(connection, None)

    async def dispose(self) -> None:
        """Stop what is under way, and have nobody wait for it."""
        for gone in self._condemned.values():
            gone.set_result(None)
        self._condemned.clear()
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})

    async def _kill_all(self) -> None:
        """Kill until nobody waits. A server may be full, or another one answer: try again."""
        while self._condemned:
            # As asyncio and the driver say that a server is away, silent or full.
            with suppress(OSError, Error):
                async with asyncio.timeout(KILL_SECONDS):
                    await self._kill_those_on_one_server()
            if self._condemned:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _kill_those_on_one_server(self) -> None:
        own = await _open(self.arguments)
        try:
            while found := [each for each in self._condemned if each.server == own.server]:
                for each in found:
                    if await _is_gone(each, own) and (gone := self._condemned.pop(each, None)):
                        gone.set_result(None)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await own.ensure_closed()


async def _open(arguments: dict[str, Any]) -> Connection:
    connection = Connection(**arguments)
    await connection._connect()
    try:
        connection.server = await _server_of(connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def _server_of(connection: Connection) -> object:
    async with connection.cursor() as cursor:
        await cursor.execute(WHICH_SERVER)
        return sorted(await cursor.fetchall())


async def _is_gone(connection: Connection, own: Connection) -> bool:
    """Kill a connection; True if the server does not know it any more."""
    try:
        async with own.cursor() as cursor:
            await cursor.execute(f"KILL {connection.thread_id()}")
    except Error as error:
        if own.closed:
            raise
        return bool(error.args[0] == NO_SUCH_THREAD)
    return False


def _lost(error: RuntimeError) -> OperationalError:
    return OperationalError(CR_SERVER_LOST, f"Lost connection to the server: {error}")


def _refused(reason: str) -> OperationalError:
    return OperationalError(CR_SSL_CONNECTION_ERROR, reason)
