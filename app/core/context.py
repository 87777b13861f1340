"""What is known of the request at hand, for every log line and every error body."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestContext:
    """Facts of one request; the caller's part is filled in once it is known."""

    request_id: str
    locale: str = "en"
    ip: str = ""
    user_agent: str = ""
    user_id: int | None = None
    # Of the app, or the command: whose addresses are taken though no public DNS has them.
    special_use_domains: Sequence[str] = ()
    # What the answer says beside the headers of its route, be it a refusal or not.
    headers: dict[str, str] = field(default_factory=dict)


current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def request_context() -> RequestContext:
    """Return the context of the request being served; an empty one outside any request."""
    return current.get() or RequestContext(request_id="")
