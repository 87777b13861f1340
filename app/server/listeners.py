"""The sockets of a server, alike for one process and for several, and which peers are proxies."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uvicorn.middleware.proxy_headers import _TrustedHosts

from app.core.addresses import is_every_interface, unmapped, without_zone

_REFUSED = "cimiento: refusing to start: "
_BACKLOG = 2_048  # as uvicorn has it
# Where a name stands for an address of both families, one of them may be switched off.
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Bind sockets for the block: every address of a name, and of `::` both families.

    End the process with one line where that cannot be.
    """
    sockets: list[socket.socket] = []
    try:
        try:
            _bind_all(sockets, host, port)
        except (OSError, UnicodeError) as error:
            raise SystemExit(_REFUSED + _reason(error, host, port)) from None
        yield sockets
    finally:
        for each in sockets:
            each.close()


def _bind_all(sockets: list[socket.socket], host: str, port: int) -> None:
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, type=kind, flags=flags)
    failures: list[OSError] = []
    for family, address in dict.fromkeys((each[0], each[4]) for each in found):
        # Of a port that was left open, all get the one that the first got.
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bound(family, (address[0], chosen, *address[2:])))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            failures.append(error)
    if not sockets:
        raise failures[0]


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            takes_both = is_every_interface(address[0])
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_both)
        listener.bind(address)
        # Bound alone, another socket that may be reused could be bound there too.
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except BaseException:
        listener.close()
        raise
    return listener


def _reason(error: Exception, host: str, port: int) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return f"PORT={port} is in use: end what listens there, or set another PORT"
        case errno.EACCES:
            return f"PORT={port} is not for this user: set one above 1023"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return f"HOST={host} is no address of this machine: 0.0.0.0 stands for all of them"
        case _:
            return f"HOST={host} is neither an address nor a known name"


class TrustedProxies(_TrustedHosts):
    """uvicorn's test for proxies, which takes addresses for what they stand for."""

    def _compute_trust(self, host: str) -> bool:
        return super()._compute_trust(without_zone(unmapped(host)))

    def get_trusted_client_address(self, x_forwarded_for: str) -> tuple[str, int]:
        """Return who a request was forwarded for."""
        host, port = super().get_trusted_client_address(x_forwarded_for)
        return unmapped(host), port
