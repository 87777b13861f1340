"""Graceful shutdown: accepted requests are answered, and connections are closed in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.supervisors import ChangeReload, Multiprocess, multiprocess

from app.core.security import Passwords
from app.main import close_app, create_app
from app.server import serving
from app.server.listeners import TrustedProxies
from tests.conftest import CHEAP, make_settings
from tests.support.faults import eventually


class InThisLoop(serving.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # same use
        """Leave Ctrl-C to pytest."""
        return nullcontext()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


@asynccontextmanager
async def running(folder: Path, **settings: object) -> AsyncIterator[InThisLoop]:
    """Start a server, yield it before it is asked to end, and end it after the block."""
    url = f"sqlite+aiosqlite:///{folder}/test.db"
    app = create_app(make_settings(url, folder, **settings), passwords=Passwords(CHEAP))
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on")
    server = InThisLoop(config)
    serving_it = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield server
    finally:
        server.should_exit = server.force_exit = True
        await serving_it
        # A forced exit leaves out the end of the app's lifespan.
        await app.state.dispatcher.stop()
        await close_app(app)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(server: InThisLoop) -> Streams:
    return await asyncio.open_connection("127.0.0.1", server.port)


def asking(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: testserver\r\n\r\n".encode()


async def answered(reader: asyncio.StreamReader) -> tuple[int, str]:
    """The status, and the whole head, of an answer."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
    return int(head.split()[1]), head


async def ask(streams: Streams, path: str) -> tuple[int, str]:
    streams[1].write(asking(path))
    return await answered(streams[0])


async def test_who_waits_in_the_queue_is_served(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        # In one breath: the loop has no time to accept it.
        early = socket.create_connection(("127.0.0.1", server.port))
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        early.sendall(asking("/health"))
        shared = socket.create_server(("127.0.0.1", 0))  # as several processes are given
        port, ending = server.port, asyncio.create_task(server.shutdown([shared]))
        early.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=early)
        status, head = await answered(reader)
        assert (status, "connection: close" in head) == (200, True)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await ending
        assert shared.fileno() == -1


class _Listener(socket.socket):
    """Raise the given errors from `accept`, then return a new connection at every call."""

    def __init__(self, *errors: OSError) -> None:
        super().__init__()
        self._errors = [*errors]
        self.accepted: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        if self._errors:
            raise self._errors.pop(0)
        ours, theirs = socket.socketpair()
        self.accepted.append(theirs)
        return ours, None


@pytest.mark.parametrize("where", ["dup", "accept"])
async def test_who_may_open_no_more_files_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(_: object) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    listener = _Listener(OSError(errno.EMFILE, "Too many open files"))
    async with running(tmp_path) as server:
        with monkeypatch.context() as patch:
            if where == "dup":
                patch.setattr(os, "dup", full)
            else:
                patch.setattr(serving, "_copy", lambda _: listener)
            await server.shutdown()
        assert not server.servers[0].is_serving()
        assert listener.accepted == []
        assert server.lifespan.shutdown_event.is_set()
    listener.close()


async def test_a_flood_is_let_in_no_further_than_the_queue_was_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as server:
        server.config.backlog = 4
        listener = _Listener(ConnectionAbortedError())
        monkeypatch.setattr(serving, "_copy", lambda _: listener)
        await server.shutdown()
        assert len(listener.accepted) == 3
        assert listener.fileno() == -1
    for each in listener.accepted:
        each.close()


async def test_what_goes_wrong_on_the_way_does_not_keep_the_app_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("a defect")

    async with running(tmp_path) as server:
        monkeypatch.setattr(serving.Server, "_linger", fail)
        with pytest.raises(RuntimeError):
            await server.shutdown()
        assert server.lifespan.shutdown_event.is_set()
        monkeypatch.undo()


async def test_a_request_on_an_idle_connection_is_served_then_the_connection_ends(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as server:
        kept, idle = await connected(server), await connected(server)
        status, head = await ask(kept, "/health")
        assert (status, "connection: close" in head) == (200, False)
        assert (await ask(idle, "/health"))[0] == 200
        ending = asyncio.create_task(server.shutdown())
        await asyncio.sleep(0)
        status, head = await ask(kept, "/health")
        assert (status, "connection: close" in head) == (200, True)
        for reader, writer in (kept, idle):
            assert await reader.read() == b"", "closed, not reset"
            writer.close()
        await ending


async def test_a_request_under_way_is_finished(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        reader, writer = await connected(server)
        writer.write(b"POST /api/v1/auth/register HTTP/1.1\r\nHost: testserver\r\n")
        writer.write(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{")
        await eventually(lambda: any(map(serving._is_busy, server.server_state.connections)))
        ending = asyncio.create_task(server.shutdown())
        await asyncio.sleep(0)
        writer.write(b"}")
        status, head = await answered(reader)
        assert (status, "connection: close" in head) == (422, True)
        writer.close()
        await ending


async def test_a_delay_lets_load_balancers_notice(tmp_path: Path) -> None:
    """Not ready, but there, for new connections too."""
    async with running(tmp_path, shutdown_delay_seconds=60) as server:
        streams = await connected(server)
        assert (await ask(streams, "/health/ready?exclude=database"))[0] == 200
        ending = asyncio.create_task(server.shutdown())
        await asyncio.sleep(0)
        status, head = await ask(streams, "/health/ready?exclude=database")
        assert (status, "connection: close" in head, "retry-after" in head) == (503, True, True)
        fresh = await connected(server)
        assert (await ask(fresh, "/health"))[0] == 200
        assert not ending.done()
        for _, writer in (streams, fresh):
            writer.close()
        server.force_exit = True
        async with asyncio.timeout(10):
            await ending


# --- One process, several processes ----------------------------------------------------------


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was run, without being run."""
    met: list[Any] = []

    def run(server: serving.Server, _: object) -> None:
        met.append(server)
        server.started = True
        raise KeyboardInterrupt

    monkeypatch.setattr(serving.Server, "run", run)
    monkeypatch.setattr(Multiprocess, "run", lambda this: met.append(this))  # noqa: PLW0108 this
    monkeypatch.setattr(multiprocess, "Process", multiprocess.Process)  # put back afterwards
    return met


@pytest.fixture
def _own_signals() -> Any:
    """A supervisor takes every signal over."""
    kept = {each: signal.getsignal(each) for each in signal.valid_signals()}
    yield
    for number, handler in kept.items():
        with suppress(OSError, TypeError):
            signal.signal(number, handler)


def test_one_process_serves_by_itself(ran: list[Any]) -> None:
    """Idle connections outlive those of proxies, and the grace period a request's deadline."""
    serving.serve("app.main:create_app", [], port=0, log_config=None)
    [server] = ran
    assert server.config.factory
    assert server.config.timeout_keep_alive > 60
    assert 4.5 < server.config.timeout_graceful_shutdown < 7


def test_a_server_that_does_not_start_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.Server, "run", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        serving.serve("app.main:create_app", [], port=0, log_config=None)
    assert caught.value.code == 3


def test_with_reload_the_code_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Any] = []
    monkeypatch.setattr(ChangeReload, "run", lambda this: met.append(this))  # noqa: PLW0108 this
    with serving.listening("127.0.0.1", 0) as sockets:
        serving.serve("app.main:create_app", sockets, reload=True, log_config=None)
        [supervisor] = met
        assert supervisor.sockets == sockets
        assert supervisor.config.reload_dirs == [Path(serving.__file__).parents[1]]
        assert isinstance(supervisor.target.__self__, serving.Server)


@pytest.mark.parametrize("proxies", [["::ffff:10.0.0.1", "10.0.0.0/8"], None])
@pytest.mark.usefixtures("no_settings")
def test_proxies_are_those_of_the_settings(proxies: list[str] | None) -> None:
    config = serving._Config(
        "app.main:create_app",
        factory=True,
        log_config=None,
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies,
    )
    config.load()
    found = config.loaded_app
    assert isinstance(found, ProxyHeadersMiddleware) is (proxies is not None)
    if proxies is not None:
        assert isinstance(found.trusted_hosts, TrustedProxies)


def handlers_of(server: serving.Server) -> tuple[Any, Any]:
    """What SIGHUP does while a server serves, and afterwards."""
    with server.capture_signals():
        meanwhile = signal.getsignal(signal.SIGHUP)
    return meanwhile, signal.getsignal(signal.SIGHUP)


@pytest.mark.usefixtures("_own_signals")
def test_a_hangup_ends_a_server_unless_it_is_to_be_ignored() -> None:
    server = serving.Server(uvicorn.Config("app.main:create_app", log_config=None))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert handlers_of(server) == (server.handle_exit, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert handlers_of(server) == (signal.SIG_IGN, signal.SIG_IGN)


async def test_in_another_thread_signals_are_left_alone() -> None:
    server = serving.Server(uvicorn.Config("app.main:create_app", log_config=None))
    before = signal.getsignal(signal.SIGHUP)
    assert await asyncio.to_thread(handlers_of, server) == (before, before)


async def test_one_process_says_where_it_listens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "propagate", True)
    caplog.set_level("INFO", "uvicorn.error")
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with monkeypatch.context() as patch, listening:
        serve = serving.Server.serve
        patch.setattr(InThisLoop, "serve", lambda this: serve(this, [listening]))
        async with running(tmp_path) as server:
            assert server.started
            assert f"Uvicorn running on {url} (Press CTRL+C to quit)" in caplog.messages


@pytest.mark.usefixtures("_own_signals")
def test_several_processes_leave_the_queue_to_the_workers(ran: list[Any]) -> None:
    with serving.listening("127.0.0.1", 0) as sockets:
        serving.serve("app.main:create_app", sockets, workers=2, log_config=None)
    [supervisor] = ran
    [listener] = supervisor.sockets
    worker = multiprocess.Process(supervisor.config, supervisor.sockets)
    assert isinstance(worker.server, serving.Server)
    assert worker.server is worker.server
    supervisor.terminate_all()
    assert listener.fileno() == -1
    worker.parent_conn.close()
    worker.child_conn.close()
