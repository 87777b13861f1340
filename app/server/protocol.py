"""HTTP/1.1 on one connection: uvicorn's protocol, with bounds on what is kept in memory.

uvicorn bounds neither the head of a request nor the framing of its body, and parses all requests
that arrive in a row before it has answered the first: docs/adr/0027-bounded-heads.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.addresses import unmapped
from app.core.exceptions import AppError, BadRequest, HeadTooLarge
from app.web.middleware.request_context import raw_refusal

# The request line and all headers; likewise what a chunked body has beside its data.
MAX_HEAD = 65_536
# The parser gets so many bytes at once: it builds all requests in them before the first runs.
_PORTION = 8_192
# Each byte of a body pays for so many of its framing: chunks of one byte are allowed.
_FRAMING = 16
# A refused client may go on sending for a while: closed at once, it might not see the answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 * 2**20


class _Flow(FlowControl):
    """Parses what is left over before it reads on."""

    def __init__(self, transport: asyncio.Transport, parse_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._parse_on = parse_on

    def resume_reading(self) -> None:
        super().resume_reading()
        self._parse_on()


class BoundedProtocol(HttpToolsProtocol):
    """Answers 431 to a head of more than `MAX_HEAD` bytes, and parses requests that were sent in
    a row only when those before them are answered."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._unfinished = 0  # bytes since the last head was complete, but for those of the body
        self._unparsed = b""
        self._is_refused = False
        self._discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A socket of both families names peers of IPv4 in a form of its own.
        self.client = self.client and (unmapped(self.client[0]), self.client[1])
        self.flow = _Flow(transport, self._parse_on)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            self._discard(data)
        elif len(data) <= _PORTION and not self._unparsed and self._may_parse:
            self._parse(data)
        else:
            self._unparsed += data
            self._parse_on()

    def on_headers_complete(self) -> None:
        """Start the request; what stands behind a chunked body is no part of its head
        (RFC 9110 §6.5.1)."""
        self._unfinished = 0
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._unfinished -= min(_FRAMING * len(body), self._unfinished)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unparsed:
            self.flow.resume_reading()

    @property
    def _may_parse(self) -> bool:
        """Return whether no request waits for its turn, and no body for its reader."""
        return not (self.pipeline or self.flow.read_paused or self._is_refused)

    def _parse_on(self) -> None:
        """Parse what has arrived as far as that is wanted; read on when nothing is left."""
        while self._unparsed and self._may_parse:
            portion, self._unparsed = self._unparsed[:_PORTION], self._unparsed[_PORTION:]
            self._parse(portion)
        if self._unparsed:
            self.flow.pause_reading()

    def _parse(self, data: bytes) -> None:
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_HEAD and not self._is_refused:
            self.logger.warning("Head of a request too large.")
            self._refuse(HeadTooLarge())

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the shape of all errors; uvicorn would in plain text."""
        del msg  # was logged
        self._refuse(BadRequest())

    def _refuse(self, error: AppError) -> None:
        """Read no more requests, and say so unless an answer is under way."""
        self._is_refused, self._unparsed = True, b""
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # It is what follows this request: its answer is the last.
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        headers = [each for each in self.server_state.default_headers if each[0] != b"connection"]
        self.transport.write(raw_refusal(error, headers))
        with suppress(NotImplementedError):  # TLS has no such thing
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _LINGER_BYTES:
            self.transport.close()
