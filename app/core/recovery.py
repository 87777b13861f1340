"""The two innermost middlewares: an answer in time, and an answer whatever happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.exceptions import AppError, InternalError, Unavailable
from app.core.failures import RETRIES, described, is_of_database, pause, trace_of
from app.core.problems import problem

log = logging.getLogger("app.request")


class Deadline:
    """Answers 503 after `seconds`, without waiting for what hangs to let go of its resources.

    A driver that talks to a frozen server may need seconds to be cancelled; the caller need
    not. The request's task is cancelled and cleans up behind the answer.
    """

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _OneAnswer(send)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        replies: list[asyncio.Task[None]] = []

        def expire() -> None:
            if answer.claim_for_deadline():
                log.warning("deadline exceeded", extra={"path": scope["path"]})
                late = problem(Unavailable(), scope)
                replies.append(loop.create_task(late(scope, receive, send)))
                task.cancel()

        timer = loop.call_later(self.seconds, expire)

        async def receive_and_wait_anew() -> Message:
            # A slow upload is the client's time, not ours: the clock restarts at each part.
            nonlocal timer
            message = await receive()
            timer.cancel()
            timer = loop.call_later(self.seconds, expire)
            return message

        try:
            await self.app(scope, receive_and_wait_anew, answer.send)
        except asyncio.CancelledError:
            if not replies or task.uncancel() > 0:
                raise
        finally:
            timer.cancel()
            if replies:
                await replies[0]


class _OneAnswer:
    """Lets either the application or the deadline start the response, never both."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._expired = False

    async def send(self, message: Message) -> None:
        if not self._expired:
            self._started = True
            await self._send(message)

    def claim_for_deadline(self) -> bool:
        self._expired = not self._started
        return self._expired


class Recover:
    """Answers what nothing else caught, and runs a request again when the database asks for it.

    Running again (deadlock, serialisation failure, lock) is safe because one request is one
    transaction, committed before the response starts: an attempt that raised has left nothing
    behind. The body read so far is replayed. A defect is logged once, with its trace.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        is_transient: Callable[[Exception], bool],
        refusal_of: Callable[[Exception], AppError | None],
    ) -> None:
        self.app = app
        self.is_transient = is_transient
        self.refusal_of = refusal_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Replay(receive)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        attempt = 0
        while True:
            try:
                await self.app(scope, body.receive, watched_send)
                return
            except Exception as error:
                if started:
                    raise
                if attempt == RETRIES or not self.is_transient(error):
                    await problem(self._judge(error), scope)(scope, receive, send)
                    return
                reason = described(error)
            await pause(attempt)
            attempt += 1
            log.info("transaction retried", extra={"attempt": attempt, **reason})
            body.rewind()

    def _judge(self, error: Exception) -> AppError:
        refusal = self.refusal_of(error)
        if refusal is not None:
            log.warning("database refused", extra=described(error))
            return refusal
        if is_of_database(error):
            log.error(
                "unhandled database error", extra={**described(error), "trace": trace_of(error)}
            )
        else:
            log.error("unhandled exception", exc_info=error)
        return InternalError()


class _Replay:
    """A `receive` that remembers what it handed out, to hand it out once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: list[Message] = []
        self._position = 0

    async def receive(self) -> Message:
        if self._position == len(self._seen):
            self._seen.append(await self._receive())
        self._position += 1
        return self._seen[self._position - 1]

    def rewind(self) -> None:
        self._position = 0
