"""A TCP proxy in front of a database that goes away, goes silent or hangs up on demand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.engine import URL

CHUNK = 65_536
_NO_LINGER = struct.pack("ii", 1, 0)  # on, for no second: what closes then is reset
Link = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


@dataclass
class Proxy:
    """Forwards to one server. The counters prove that a fault was really met."""

    target: URL
    port: int = 0
    accepted: int = 0
    cut_off: int = 0
    held_back: int = 0
    loses_answers_to: bytes | None = None
    answers_lost: int = 0
    _waits_for_answer: set[asyncio.StreamWriter] = field(default_factory=set)
    _silent: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _links: set[Link] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The database's URL, by way of the proxy."""
        url = self.target.set(host="127.0.0.1", port=self.port)
        return url.render_as_string(hide_password=False)

    async def come_back(self) -> None:
        """Listen; again on the same port after `go_away`."""
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def go_away(self) -> None:
        """Hang up on everybody and refuse new connections."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def freeze(self) -> None:
        """Accept, keep what is open, and pass nothing on in either direction."""
        self._flowing.clear()

    def silence(self) -> None:
        """Pass nothing on any more of what is open now, for good; what is new is served."""
        for link in self._links:
            self._silent.update(link)

    def thaw(self) -> None:
        """Pass everything on that was held back, and what follows."""
        self._flowing.set()

    def cut(self) -> None:
        """Hang up on every connection at once: nothing that is under way arrives any more."""
        for link in self._links:
            self.cut_off += 1
            for writer in link:
                writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    def reset(self) -> None:
        """Cut every connection of the app by a reset (RST), not by an end (FIN)."""
        for to_app, _ in self._links:
            ours = to_app.get_extra_info("socket")
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.cut()

    async def close(self) -> None:
        self.go_away()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self._pass()
            server_reader, server_writer = await asyncio.open_connection(
                self.target.host, self.target.port
            )
            link = (writer, server_writer)
            self._links.add(link)
            try:
                await self._forward(reader, server_writer, server_reader, writer)
            finally:
                self._links.discard(link)
                server_writer.transport.abort()
        # One side has hung up: there is nobody to report it to.
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _forward(
        self,
        from_app: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_app: asyncio.StreamWriter,
    ) -> None:
        """Pump both ways until either side has hung up."""
        pumps = [
            asyncio.create_task(self._pump(from_app, to_server, asking=to_app)),
            asyncio.create_task(self._pump(from_server, to_app)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        asking: asyncio.StreamWriter | None = None,
    ) -> None:
        """`asking` is where answers go to what is pumped."""
        while data := await reader.read(CHUNK):
            await self._pass()
            if writer in self._silent:
                self.held_back += 1
                await asyncio.Event().wait()
            if asking and self.loses_answers_to and self.loses_answers_to in data:
                self._waits_for_answer.add(asking)
            if writer in self._waits_for_answer:
                self.answers_lost += 1
                return
            writer.write(data)
            await writer.drain()

    async def _pass(self) -> None:
        if not self._flowing.is_set():
            self.held_back += 1
            await self._flowing.wait()


@asynccontextmanager
async def proxy_for(target: URL) -> AsyncIterator[Proxy]:
    """A listening proxy; closed, with all its connections, at the end."""
    proxy = Proxy(target)
    await proxy.come_back()
    try:
        yield proxy
    finally:
        await proxy.close()
