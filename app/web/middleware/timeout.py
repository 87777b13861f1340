"""An answer in time, whatever the request waits for."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.exceptions import AppError, Unavailable
from app.web.problems import problem

log = logging.getLogger("app.request")
# A read that takes longer is worth a look whether its client still waits.
LOOK_SECONDS = 0.5
# The status of a client that has hung up, in logs and metrics; never sent. As nginx has it.
HUNG_UP = 499
_READS = frozenset({"GET", "HEAD"})


class TimeoutMiddleware:
    """Answers 503 after `seconds`, without waiting for what hangs to let go of its resources.

    A driver that talks to a frozen server may need seconds to be cancelled; the caller need
    not. The request's task is cancelled and cleans up behind the answer. So is the task of a
    request that only reads, and takes longer than LOOK_SECONDS, when its client hangs up.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self.seconds)
        try:
            await self.app(scope, request.receive, request.send)
        except asyncio.CancelledError:
            if not request.was_ended or request.task.uncancel() > 0:
                raise
        finally:
            await request.settle()


class _Request:
    """One request and its time. Lets either the application or the end of the time start the
    response, never both."""

    was_ended = False  # by its time or its client
    _started = False
    _answering: asyncio.Task[None] | None = None
    _watch: asyncio.Task[None] | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._scope = scope
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._loop = loop = asyncio.get_running_loop()
        if seconds > LOOK_SECONDS and scope["method"] in _READS:
            self._timer = loop.call_later(LOOK_SECONDS, self._look)
        else:
            self._timer = loop.call_later(seconds, self._expire)

    async def send(self, message: Message) -> None:
        if not self.was_ended:
            self._started = True
            await self._send(message)

    async def receive(self) -> Message:
        """Restart the clock at each part of the body: a slow upload is the client's time."""
        message = await self._receive()
        self._timer.cancel()
        self._timer = self._loop.call_later(self._seconds, self._expire)
        return message

    async def settle(self) -> None:
        """Leave nothing behind."""
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._answering is not None:
            await self._answering

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._seconds - LOOK_SECONDS, self._expire)
        self._watch = self._loop.create_task(self._wait_for_hang_up())

    async def _wait_for_hang_up(self) -> None:
        """Throw away what a read sends as its body, and ignore a limit that it meets: the body is
        not used."""
        with suppress(AppError):
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._stop(PlainTextResponse(status_code=HUNG_UP))

    def _expire(self) -> None:
        if self._stop(problem(Unavailable(), self._scope)):
            log.warning("deadline exceeded", extra={"path": self._scope["path"]})

    def _stop(self, answer: Response) -> bool:
        """Answer in place of the application, which is cancelled; once a response has begun it is
        left to end."""
        if self._started or self.was_ended:
            return False
        self.was_ended = True
        self._answering = self._loop.create_task(answer(self._scope, self._receive, self._send))
        self.task.cancel()
        return True
