"""uvicorn, with an end that drops no connection that was accepted.

By itself uvicorn closes what seems idle the moment SIGTERM arrives: a request that is on its way
over such a connection, or waits in the queue of the listening socket, is answered by a reset. Of
several processes the parent even keeps that queue open, with no process to serve it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.supervisors import ChangeReload, Multiprocess, multiprocess

from app.core.addresses import server_url
from app.server.listeners import TrustedProxies, listening
from app.server.protocol import BoundedProtocol

__all__ = ["listening", "serve"]
log = logging.getLogger("uvicorn.error")
_APP = Path(__file__).parents[1]

# Longer than proxies keep idle connections (nginx 60 s): the one that closes must be the one that
# also sends, or now and then a request meets a connection that has just been closed.
KEEP_ALIVE_SECONDS = 75
# Requests have this long to end after SIGTERM: more than REQUEST_TIMEOUT_SECONDS.
GRACE_SECONDS = 5
# Connections that seem idle have this long of it to send what they have begun to.
LINGER_SECONDS = 0.5
_LOOK_SECONDS = 0.05


def serve(
    app: str, sockets: Sequence[socket.socket], *, reload: bool = False, **options: Any
) -> None:
    """Run the application that a factory makes (`module:name`) at bound sockets (`listening`) until
    SIGTERM or Ctrl-C; with `reload`, start it again whenever a file of this package changes.

    `options` are uvicorn's. Ends the process with status 3 when it cannot start.
    """
    watched: dict[str, Any] = {"reload": True, "reload_dirs": [str(_APP)]} if reload else {}
    config = _Config(
        app,
        factory=True,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        http=BoundedProtocol,
        # The app has no WebSockets.
        ws="none",
        **watched,
        **options,
    )
    if reload:
        ChangeReload(config, target=Server(config).run, sockets=[*sockets]).run()
        return
    if config.workers > 1:
        # uvicorn has no setting for what its processes run.
        multiprocess.Process = _Worker  # type: ignore[misc]
        _log_address(config, sockets)
        _Supervisor(config, sockets=[*sockets]).run()
        return
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run([*sockets])
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


def _log_address(config: uvicorn.Config, sockets: Sequence[socket.socket]) -> None:
    url = server_url(config.host, sockets[0].getsockname()[1], as_bound=True)
    log.info("Uvicorn running on %s (Press CTRL+C to quit)", url)


class _Config(uvicorn.Config):
    """uvicorn's, with our test for proxies."""

    def load(self) -> None:
        """Load the application, and what is around it."""
        super().load()
        if isinstance(self.loaded_app, ProxyHeadersMiddleware):
            self.loaded_app.trusted_hosts = TrustedProxies(self.forwarded_allow_ips)


class Server(uvicorn.Server):
    """A server that announces its end.

    The application's lifespan state names it as `app`: its `state.readiness` is drained first, so
    that /health/ready answers 503, for `state.settings.shutdown_delay_seconds`, before
    connections are refused.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where; of several processes the first one says it."""
        await super().startup(sockets)
        if self.started and sockets and self.config.workers == 1:
            _log_address(self.config, sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGHUP as on SIGTERM, unless it is ignored, as under nohup."""
        with super().capture_signals():
            before = signal.getsignal(signal.SIGHUP)
            if before is not signal.SIG_IGN and _is_in_main_thread():
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                if _is_in_main_thread():
                    signal.signal(signal.SIGHUP, before)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._announce()
            await self._stop_listening(sockets or [])
            await self._linger()
        finally:
            await super().shutdown(sockets)

    async def _announce(self) -> None:
        """Tell load balancers by /health/ready, and clients by `Connection: close`, to go
        elsewhere; meanwhile serve them."""
        app = self.lifespan.state["app"]
        app.state.readiness.drain()
        close = (b"connection", b"close")
        self.server_state.default_headers = [*self.server_state.default_headers, close]
        for connection in self.server_state.connections:
            if _is_busy(connection):
                connection.shutdown()  # after its answer, that is
        await self._wait(app.state.settings.shutdown_delay_seconds, lambda: True)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets, but let in who waits at them."""
        open_ones = [each for server in self.servers for each in server.sockets]
        listeners = [copy for each in open_ones if (copy := _copy(each)) is not None]
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        # The queue was no longer than this: a flood that goes on is not let in.
        waiting = (_waiting_at(each, at_most=self.config.backlog) for each in listeners)
        for connection in chain.from_iterable(waiting):
            # A client that has hung up meanwhile needs no answer.
            with suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    async def _linger(self) -> None:
        """Give what seems idle the time to show that it is not."""
        await self._wait(LINGER_SECONDS, lambda: bool(self.server_state.connections))
        # The loop reads what has arrived by now, and what it read becomes requests.
        for _ in range(2):
            await asyncio.sleep(0)

    async def _wait(self, seconds: float, needed: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while needed() and loop.time() < end and not self.force_exit:  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(_LOOK_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(self.config, self.server_state, self.lifespan.state)
        return protocol


def _is_in_main_thread() -> bool:
    """Return whether signals may be listened to."""
    return threading.current_thread() is threading.main_thread()


def _is_busy(connection: Any) -> bool:
    cycle = getattr(connection, "cycle", None)
    return cycle is not None and not cycle.response_complete


def _copy(listener: Any) -> socket.socket | None:
    """Return a copy of the socket: it keeps its queue until the last copy is closed. None while
    this process may open nothing more: then no connection of the queue can be accepted either."""
    try:
        return socket.socket(fileno=os.dup(listener.fileno()))
    except OSError:
        return None


def _waiting_at(listener: socket.socket, *, at_most: int) -> Iterator[socket.socket]:
    """Yield the connections in a listener's queue; close it when there are no more, or no room."""
    listener.setblocking(False)
    with listener:
        for _ in range(at_most):
            try:
                connection, _address = listener.accept()
            except ConnectionAbortedError:
                continue
            except OSError:  # the queue is empty, or this process has no descriptor left
                return
            connection.setblocking(False)
            yield connection


class _Worker(multiprocess.Process):
    """One of several processes."""

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = Server(self.config)
        assert isinstance(self._server, Server)
        return self._server


class _Supervisor(Multiprocess):
    """The parent of several processes."""

    def terminate_all(self) -> None:
        """Leave the queue to the workers: who closes a socket last turns away who waits at it."""
        for each in self.sockets:
            each.close()
        super().terminate_all()
