"""An answer whatever happened: a transaction runs again, a defect is a 500."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.exceptions import AppError, InternalError
from app.db.failures import described, is_of_database, trace_of
from app.db.retries import RETRIES, pause
from app.web.problems import problem

log = logging.getLogger("app.request")


class RetryMiddleware:
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
        body = _RecordedBody(receive)
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


class _RecordedBody:
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
