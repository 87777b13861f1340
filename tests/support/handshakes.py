"""A MariaDB server that refuses every login, and records the packets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext, SSLError

from pymysql.constants import CLIENT
from pymysql.constants.ER import ACCESS_DENIED_ERROR

_OFFERED = CLIENT.CAPABILITIES | CLIENT.PLUGIN_AUTH_LENENC_CLIENT_DATA


@dataclass
class RefusingServer:
    """What it offers, and what it has received: each packet, with whether it came in TLS."""

    tls: SSLContext | None = None
    plugin: bytes = b"mysql_native_password"
    says_too_much: bool = False
    port: int = 0
    heard: list[tuple[bool, bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet the client, read its packets, and refuse it."""
        try:
            writer.write(_packet(0, self._greeting()))
            number = 0
            if self.tls is not None:
                self.heard.append((False, await _read(reader)))
                if self.says_too_much:
                    writer.write(_packet(2, b"\0\0\0\2\0\0\0"))
                    await asyncio.sleep(0.05)
                await self.begin_tls(writer, self.tls)
                number = 1
            self.heard.append((self.tls is not None, await _read(reader)))
            refusal = b"\xff" + struct.pack("<H", ACCESS_DENIED_ERROR) + b"#28000denied"
            writer.write(_packet(number + 2, refusal))
            await writer.drain()
        except (OSError, SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def begin_tls(self, writer: asyncio.StreamWriter, context: SSLContext) -> None:
        """Go on in TLS."""
        await writer.start_tls(context)

    def _greeting(self) -> bytes:
        offered = _OFFERED | (CLIENT.SSL if self.tls else 0)
        low, high = struct.pack("<I", offered)[:2], struct.pack("<I", offered)[2:]
        salt = b"s" * 20
        return b"".join(
            [
                *(b"\x0a10.11.0\0", struct.pack("<I", 1), salt[:8], b"\0", low, b"\x2d\2\0"),
                *(high, bytes([21]), b"\0" * 10, salt[8:], b"\0", self.plugin, b"\0"),
            ]
        )


@asynccontextmanager
async def refusing_server(
    tls: SSLContext | None = None, plugin: bytes = b"mysql_native_password", *, hasty: bool = False
) -> AsyncIterator[RefusingServer]:
    """One that listens on a port of 127.0.0.1."""
    refusing = RefusingServer(tls, plugin, says_too_much=hasty)
    server = await asyncio.start_server(refusing.serve, "127.0.0.1", 0)
    refusing.port = server.sockets[0].getsockname()[1]
    async with server:
        yield refusing


def _packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return await reader.readexactly(int.from_bytes(head[:3], "little"))
