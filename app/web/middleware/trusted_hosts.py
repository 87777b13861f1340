"""Which hosts a request may be for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.exceptions import UntrustedHost
from app.web.problems import problem


class TrustedHostsMiddleware:
    """Refuses requests for hosts that are not ours. `hosts` may hold `*.example.com`."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self.app = app
        self.exact = frozenset(hosts)
        self.suffixes = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._trusts(Headers(scope=scope).getlist("host")):
            await self.app(scope, receive, send)
        else:
            await problem(UntrustedHost(), scope)(scope, receive, send)

    def _trusts(self, headers: list[str]) -> bool:
        if len(headers) != 1:
            return False
        host = re.sub(r":[0-9]*$", "", headers[0]).lower()
        return host in self.exact or host.endswith(self.suffixes or ("\0",))
