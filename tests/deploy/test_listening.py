"""Listening addresses, trusted proxies, signals and reloads of a server."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.server import listeners, serving
from app.server.listeners import TrustedProxies
from tests.support.faults import eventually
from tests.support.process import Server, environment, running
from tests.support.settings import GOOD_SECRET


@asynccontextmanager
async def served(folder: Path, *arguments: str, **settings: object) -> AsyncIterator[Server]:
    """A server at a port of its own choice; a request to it waits until it answers."""
    env = environment(port=0, data_dir=folder, secret_key=GOOD_SECRET, **settings)
    async with running("serve", *arguments, cwd=folder, env=env) as server:
        line = await server.logged("Uvicorn running on")
        server.port = int(re.findall(r":(\d+) ", line["message"])[0])
        await server.logged("Application startup complete")
        yield server


async def seen_from(server: Server, url: str, **headers: str) -> str:
    """The address that the log names for a request."""
    given = {"X-Request-ID": f"request-{len(server.log):04}", **headers}
    async with httpx2.AsyncClient() as http:
        assert (await http.get(f"{url}/health", headers=given)).status_code == 200
    async with asyncio.timeout(10):
        while True:
            for line in server.log:
                if line["request_id"] == given["X-Request-ID"]:
                    return str(line["ip"])
            await asyncio.sleep(0.02)


FORWARDED = "X-Forwarded-For"


@pytest.mark.parametrize("workers", [1, 2])
async def test_every_interface_is_those_of_both_families(tmp_path: Path, workers: int) -> None:
    """And who comes by IPv4 has an address of IPv4, proxies too."""
    proxies = "::ffff:127.0.0.1, ::1, 192.0.2.77/24"
    async with served(tmp_path, host="::", workers=workers, trusted_proxies=proxies) as server:
        four, six = f"http://127.0.0.1:{server.port}", f"http://[::1]:{server.port}"
        assert await seen_from(server, four) == "127.0.0.1"
        assert await seen_from(server, six) == "::1"
        for url in (four, six):
            assert await seen_from(server, url, **{FORWARDED: "203.0.113.9"}) == "203.0.113.9"
            through = "::ffff:203.0.113.9, ::ffff:192.0.2.1"
            assert await seen_from(server, url, **{FORWARDED: through}) == "203.0.113.9"


async def test_strangers_are_not_believed_in_either_family(tmp_path: Path) -> None:
    async with served(tmp_path, host="::", trusted_proxies="192.0.2.1") as server:
        url = f"http://127.0.0.1:{server.port}"
        assert await seen_from(server, url, **{FORWARDED: "203.0.113.9"}) == "127.0.0.1"


@pytest.fixture
def hangup_counts() -> Iterator[None]:
    """Under nohup, what is begun here would ignore SIGHUP, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_counts")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_request_under_way_ends_before_one_process_does(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with served(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"POST /api/v1/auth/register HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        writer.write(head + b"Content-Type: application/json\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.3)
        server.process.send_signal(number)
        await server.logged("Shutting down")
        writer.write(b"}")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 422")
        writer.close()
        async with asyncio.timeout(15):
            assert await server.process.wait() == -number


async def test_a_change_of_the_code_starts_it_again(tmp_path: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(Path(serving.__file__).parents[1], code / "app")
    env = environment(port=0, data_dir=tmp_path, secret_key=GOOD_SECRET) | {"PYTHONPATH": str(code)}
    async with running("serve", "--reload", cwd=tmp_path, env=env) as server:

        def count(beginning: str) -> int:
            return sum(line["message"].startswith(beginning) for line in server.log)

        await server.logged("Application startup complete")
        async with asyncio.timeout(30):
            # Once it watches; another change would stop the new start in the middle.
            while not count("WatchFiles detected changes"):
                (code / "app" / "__init__.py").touch()
                await asyncio.sleep(0.5)
            await eventually(lambda: count("Application startup complete") == 2, seconds=30)


# --- Sockets ---------------------------------------------------------------------------------


def addresses(host: str, port: int = 0) -> list[tuple[Any, ...]]:
    with listeners.listening(host, port) as sockets:
        return [each.getsockname()[:2] for each in sockets]


def test_an_address_is_one_socket() -> None:
    [(host, port)] = addresses("127.0.0.1")
    assert (host, port > 0) == ("127.0.0.1", True)


def test_a_name_of_both_families_is_a_socket_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ((socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0)))
    found = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in kinds]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    first, second = addresses("both")
    assert (first[0], second[0], first[1]) == ("::1", "127.0.0.1", second[1])


def test_a_family_that_is_switched_off_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert [host for host, _ in addresses("both")] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("host", "number", "says"),
    [
        ("127.0.0.1", errno.EADDRINUSE, "PORT=7 is in use"),
        ("127.0.0.1", errno.EACCES, "PORT=7 is not for this user"),
        ("::1", errno.EAFNOSUPPORT, "HOST=::1 is no address of this machine"),
        ("192.0.2.1", errno.EADDRNOTAVAIL, "HOST=192.0.2.1 is no address of this machine"),
        ("127.0.0.1", errno.EINVAL, "HOST=127.0.0.1 is neither"),
    ],
)
def test_what_cannot_be_listened_at_is_told(
    monkeypatch: pytest.MonkeyPatch, host: str, number: int, says: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(listeners, "_bound", refuse)
    with pytest.raises(SystemExit, match="refusing to start: ") as refused:
        addresses(host, 7)
    assert says in str(refused.value.code)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "127.0.0.1:80", "no host"])
def test_what_is_no_host_is_told(host: str) -> None:
    with pytest.raises(SystemExit, match="is neither an address nor a known name"):
        addresses(host)


def test_a_port_that_is_taken_leaves_no_socket_open() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(SystemExit, match="is in use"):
        addresses("127.0.0.1", listener.getsockname()[1])


# --- Proxies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        ("127.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("::FFFF:7f00:1", True),
        ("fe80::1%eth0", True),
        ("fe80::2%eth0", False),
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:11.1.2.3", False),
        ("::ffff:nonsense", False),
        ("::ffff:0:0:1", False),
    ],
)
def test_proxies_are_known_in_whatever_notation(peer: str, is_trusted: bool) -> None:
    assert (peer in TrustedProxies(["127.0.0.1", "10.0.0.0/8", "fe80::1"])) is is_trusted


def test_who_a_request_was_forwarded_for_has_its_own_address() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    through = "::ffff:203.0.113.9, ::ffff:10.0.0.1"
    assert proxies.get_trusted_client_address(through) == ("203.0.113.9", 0)
