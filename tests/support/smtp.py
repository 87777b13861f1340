"""A mail server to deliver to: keeps what it gets, and refuses or hangs on demand."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Delivery:
    """One message the server was given: envelope and content."""

    recipients: list[str]
    message: EmailMessage

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])


@dataclass
class Sink:
    """An SMTP server on a port of its own, in the event loop of the test.

    `answers` maps a recipient to what RCPT is answered with; `hanging` recipients get their
    answer to DATA only after `released` is set; RCPT and DATA are answered after `pace_seconds`.
    """

    port: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    pace_seconds: float = 0
    speaks_utf8: bool = True
    attempts: list[str] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None
    _connections: list[_Connection] = field(default_factory=list)

    async def start(self) -> None:
        """Listen; on the same port as before when it was stopped."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on, and end the ones that are open."""
        self.released.set()
        if self._server is not None:
            self._server.close()
            for connection in self._connections:
                await connection.end()
            self._connections.clear()
            await self._server.wait_closed()

    async def arrived(
        self, condition: Callable[[], object], patience: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until a condition on what arrived is true; fail after a generous while."""
        async with asyncio.timeout(patience), self._news:
            await self._news.wait_for(lambda: bool(condition()))

    def to(self, recipient: str) -> list[Delivery]:
        return [each for each in self.deliveries if recipient in each.recipients]

    def _connection(self) -> SMTP:
        connection = _Connection(
            self,
            enable_SMTPUTF8=self.speaks_utf8,
            hostname="sink.example",
            # Logins are offered, and all refused; nobody has to log in.
            authenticator=lambda *_: AuthResult(success=False, handled=False),
            auth_require_tls=False,
        )
        self._connections.append(connection)
        return connection

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await self._tell(lambda: self.attempts.append(address))
        await asyncio.sleep(self.pace_seconds)
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  aiosmtpd's name
        self, _: SMTP, __: Session, envelope: Envelope
    ) -> str:
        recipients = [str(address) for address in envelope.rcpt_tos]
        content = cast("bytes", envelope.content)
        message = email.message_from_bytes(content, policy=email.policy.default)
        delivery = Delivery(recipients, message)
        await self._tell(lambda: self.deliveries.append(delivery))
        await asyncio.sleep(self.pace_seconds)
        if self.hanging & set(recipients):
            await self.released.wait()
        return "250 OK"

    async def _tell(self, note: Callable[[], None]) -> None:
        async with self._news:
            note()
            self._news.notify_all()


class _Connection(SMTP):
    """aiosmtpd's protocol, with an end that leaves neither a task nor a socket behind."""

    async def end(self) -> None:
        if self.transport is not None:
            self.transport.close()
        if (task := self._handler_coroutine) is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def running_sink() -> AsyncIterator[Sink]:
    """A sink that listens until the end of the block."""
    sink = Sink()
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()
