"""The proxy as it is deployed: nginx with our configuration, at addresses of the test."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.process import ROOT

FOLDER = ROOT / "deploy" / "nginx"
# Not on the path of everybody.
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PATIENCE_SECONDS = 20


@dataclass
class Nginx:
    """A running proxy."""

    port: int
    tls_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def required() -> str:
    """The program; without it the test is skipped, and in CI it fails."""
    if PROGRAM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx is not installed")
    return PROGRAM


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def arranged(folder: Path, servers: Sequence[int], *, quick: bool, tls: bool) -> Nginx:
    """Our configuration in a folder, with other addresses; `quick`: with waits of a second."""
    proxy = Nginx(free_port(), free_port())
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    for file in folder.glob("*.conf"):
        text = file.read_text()
        if file.name == "nginx.conf":
            for port, old in zip(servers, (11, 12), strict=True):
                text = replaced(text, f"172.30.253.{old}:8000", f"127.0.0.1:{port}")
            text = replaced(text, "listen 8080;", f"listen 127.0.0.1:{proxy.port};")
            text = text.replace("# include tls.conf;", "include tls.conf;" if tls else "")
        text = text.replace("listen 8443 ", f"listen 127.0.0.1:{proxy.tls_port} ")
        text = re.sub("/(tmp|etc/tls/cimiento)/", f"{folder}/", text)
        if quick:
            pattern = r"(client_\w+_timeout|send_timeout|proxy_read_timeout) \d+s;"
            text = re.sub(pattern, r"\1 1s;", text)
        file.write_text(text)
    return proxy


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


@asynccontextmanager
async def proxying(
    folder: Path, *servers: int, quick: bool = False, tls: bool = False
) -> AsyncIterator[Nginx]:
    """A proxy that answers; ended, by its own pid, at the end of the block."""
    program = required()
    proxy = arranged(folder, servers, quick=quick, tls=tls)
    # Its workers give up root, and could not reach the folders of the test.
    user = " user root;" if os.getuid() == 0 else ""
    process = await asyncio.create_subprocess_exec(
        *(program, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"),
        *("-g", f"daemon off;{user}"),
        stdout=PIPE,
        stderr=PIPE,
    )
    output = asyncio.create_task(process.communicate())
    try:
        await _answers(proxy.port, output)
        yield proxy
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await output
        # Shown when the test fails.
        logging.getLogger("tests.nginx").warning("%s", (out + err).decode())


async def _answers(port: int, output: asyncio.Task[tuple[bytes, bytes]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not output.done():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
    pytest.fail(f"nginx did not start: {output.result()[1].decode()}")


# --- What stands behind it in its place --------------------------------------------------------


@dataclass
class Upstream:
    """A server that records each request, and answers by `answer`, which returns the bytes to
    send; None closes the connection without an answer, b"" keeps it open."""

    answer: Callable[[bytes], bytes | None]
    port: int = 0
    heard: list[bytes] = field(default_factory=list)
    hang: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            self.heard.append(head + body)
            if (answer := self.answer(head)) == b"":
                await self.hang.wait()
            elif answer:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


OK = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nX-Request-ID: 12345678\r\n\r\nok"
)


@asynccontextmanager
async def upstream(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[Upstream]:
    """Such a server, while the block runs."""
    behind = Upstream(answer)
    server = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    behind.port = server.sockets[0].getsockname()[1]
    try:
        yield behind
    finally:
        behind.hang.set()
        server.close()
