"""A Redis of the test's own: to be killed, frozen and restarted without anybody else noticing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from redis.exceptions import RedisError

PATIENCE_SECONDS = 20


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@dataclass
class RedisServer:
    """`redis-server` on a port of its own, with nothing on disk: once killed, it forgets all."""

    folder: Path
    port: int
    password: str = ""
    tls_port: int = 0
    process: Process | None = None

    @property
    def certificate(self) -> Path:
        """What its TLS is to be verified with."""
        return self.folder / "redis.pem"

    @property
    def url(self) -> str:
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, again on the same port after `kill`; returns when it answers."""
        command = ("redis-server", "--port", str(self.port), "--bind", "127.0.0.1")
        kept = ("--save", "", "--appendonly", "no", "--dir", str(self.folder))
        login = ("--requirepass", self.password) if self.password else ()
        tls = self._tls_options() if self.tls_port else ()
        self.process = await asyncio.create_subprocess_exec(
            *command, *kept, *login, *tls, stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.answers():
                assert self.process.returncode is None, "redis-server has ended"
                await asyncio.sleep(0.02)

    async def answers(self) -> bool:
        """Whether it answers within half a second."""
        client: Redis = Redis.from_url(
            self.url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None
        )
        try:
            return bool(await client.get("") is None)
        except (OSError, RedisError):
            return False
        finally:
            await client.aclose()

    def freeze(self) -> None:
        """It keeps its connections, takes new ones, and says nothing."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, with what it was sent meanwhile."""
        self._send(signal.SIGCONT)

    async def kill(self) -> None:
        """kill -9: everybody is hung up on, and all is forgotten."""
        if self.process is not None and self.process.returncode is None:
            self._send(signal.SIGKILL)
            await self.process.wait()

    def _tls_options(self) -> tuple[str, ...]:
        port = ("--tls-port", str(self.tls_port), "--tls-auth-clients", "no")
        key = ("--tls-key-file", str(self.folder / "redis.key"))
        return (*port, *key, "--tls-cert-file", str(self.certificate))

    def _send(self, what: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, what)


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    private_key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder(name, name, private_key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(Encoding.PEM))
    key.write_bytes(
        private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@asynccontextmanager
async def running_redis(
    folder: Path, password: str = "", *, with_tls: bool = False
) -> AsyncIterator[RedisServer]:
    """A Redis that answers until the end of the block. It has to be installed in CI."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed")
    server = RedisServer(folder, free_port(), password)
    if with_tls:
        server.tls_port = free_port()
        make_certificate(server.certificate, folder / "redis.key")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
