"""Rate limits: a dependency for each operation that takes passwords, tokens or addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from app.core.context import request_context
from app.core.exceptions import TooManyRequests
from app.core.permissions import Caller, Permission
from app.crud import audit_events
from app.crud.credentials import PasswordConfirmation
from app.crud.idempotency_keys import REPLAYED, ReplayResponse
from app.db.engine import Database
from app.models.audit_events import AuditAct
from app.rate_limits.limiter import RateLimitAttempt, RateLimiter
from app.rate_limits.outcomes import is_invalid, was_tried
from app.rate_limits.rules import LimitedAction
from app.web.dependencies import CurrentCaller, DatabaseDep, PasswordsDep, require_any_permission
from app.web.problems import problem

_REACHED = "cimiento.rate_limited"


class RateLimited:
    """Counts an attempt, hands it to the operation, and settles it by what became of it.

    The limits of the network are asked here; operations that verify a secret of an account, or
    send mails, ask for theirs by the attempt.
    """

    def __init__(self, action: LimitedAction) -> None:
        self.action = action

    async def __call__(self, request: Request) -> AsyncIterator[RateLimitAttempt]:
        async with self.attempt(request) as attempt:
            await attempt.enter()
            yield attempt

    @asynccontextmanager
    async def attempt(self, request: Request) -> AsyncIterator[RateLimitAttempt]:
        """Yield an attempt that is not counted yet; settle it at the end of the block."""
        request.scope[_REACHED] = True
        limiter: RateLimiter = request.app.state.rate_limiter
        attempt = limiter.attempt(self.action, ip=request_context().ip)
        outcome: BaseException | None = None
        try:
            yield attempt
        except BaseException as error:
            outcome = error
            try:
                await attempt.failed(error)
            except TooManyRequests as refusal:
                outcome = refusal
                raise refusal from None
            raise
        finally:
            await attempt.settle(outcome)
            failure = None if isinstance(outcome, ReplayResponse) else outcome
            request.app.state.telemetry.attempted(attempt, failure)
            request_context().headers.update(attempt.headers)
            if attempt.is_first_refusal:
                await _write_down(request.app.state.database, attempt)


class RateLimitedLogin(RateLimited):
    """Leaves it to the operation to enter: its form says whether it is a login at all."""

    def __init__(self) -> None:
        super().__init__(LimitedAction.login)

    async def __call__(self, request: Request) -> AsyncIterator[RateLimitAttempt]:
        async with self.attempt(request) as attempt:
            yield attempt


def limited(action: LimitedAction) -> Any:
    """Return the dependency that limits an action; settled before the response leaves."""
    return Depends(RateLimited(action), scope="function")


LoginAttempt = Annotated[RateLimitAttempt, Depends(RateLimitedLogin(), scope="function")]
PasswordAttempt = Annotated[RateLimitAttempt, limited(LimitedAction.password)]
RegisterAttempt = Annotated[RateLimitAttempt, limited(LimitedAction.register)]
ResetAttempt = Annotated[RateLimitAttempt, limited(LimitedAction.reset)]
ForgotAttempt = Annotated[RateLimitAttempt, limited(LimitedAction.forgot)]
ResendAttempt = Annotated[RateLimitAttempt, limited(LimitedAction.resend)]


# --- Input that is refused before its operation is reached -----------------------------------


def count_unread(app: FastAPI) -> None:
    """Count bodies that cannot be read for the action they were sent to; in front of the handlers
    that are there by now."""
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _counting(app.exception_handlers[kind]))


def _counting(answer: Any) -> Any:
    async def count(request: Request, error: Exception) -> Response:
        is_unread = is_invalid(error) and _REACHED not in request.scope
        route: BaseRoute | None = request.scope.get("route")
        if is_unread and (rate_limited := _rate_limited_dependency_of(route)):
            try:
                async with rate_limited.attempt(request):
                    raise error
            except TooManyRequests as refusal:
                return problem(refusal, request.scope)
            except type(error):
                pass
        response: Response = await answer(request, error)
        return response

    return count


def _rate_limited_dependency_of(route: BaseRoute | None) -> RateLimited | None:
    wanted = [getattr(route, "dependant", None)]
    for dependant in filter(None, wanted):
        if isinstance(dependant.call, RateLimited):
            return dependant.call
        wanted += dependant.dependencies
    return None


# --- Writes: how many posts an account may write a minute ------------------------------------


_REPLAY = (REPLAYED.lower().encode(), b"true")
# Who edits posts, as known before the transaction: that is begun by the operation's own dependency.
_Editor = Annotated[
    Caller, require_any_permission(Permission.posts_write, Permission.posts_moderate)
]


class WriteRateLimit(RateLimited):
    """Counts a change of a post for the caller's account, before its transaction begins."""

    def __init__(self) -> None:
        super().__init__(LimitedAction.write)

    async def __call__(  # type: ignore[override]  # more than a request
        self, request: Request, caller: _Editor
    ) -> AsyncIterator[RateLimitAttempt]:
        async with self.attempt(request) as attempt:
            await attempt.write(caller.user_id)
            yield attempt

    async def run_create(
        self, request: Request, user_id: int, write: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Count a new post, run `write`, and return its response; uncount it if nothing was
        written. Raise TooManyRequests.

        Called, not a dependency: that does the same in ten times the time (measured).
        """
        limiter: RateLimiter = request.app.state.rate_limiter
        counters = limiter.counters
        if counters is None or not limiter.limits_writing:
            return await write()
        counted = [limiter.writes_of(user_id)]
        if (await counters.add(counted))[0] > counted[0].limit:
            await counters.add(counted, -1)
            async with self.attempt(request) as attempt:
                # Refuses, unless there is room again: then it is counted by now.
                await attempt.write(user_id)
        try:
            response = await write()
        except BaseException as error:
            if not was_tried(error):
                await counters.add(counted, -1)
            raise
        if _REPLAY in response.raw_headers:
            await counters.add(counted, -1)
        return response


write_rate_limit = WriteRateLimit()
LIMIT_WRITES = Depends(write_rate_limit, scope="function")


# --- The password, asked for again -----------------------------------------------------------


async def _confirmation(
    attempt: PasswordAttempt, caller: CurrentCaller, database: DatabaseDep, passwords: PasswordsDep
) -> PasswordConfirmation:
    return PasswordConfirmation(database, passwords, attempt, caller)


# For operations that ask for the present password.
Confirming = Annotated[PasswordConfirmation, Depends(_confirmation, scope="function")]


async def _write_down(database: Database, attempt: RateLimitAttempt) -> None:
    assert attempt.refused_by is not None
    scope, limit = attempt.refused_by
    await audit_events.record_apart(
        database,
        AuditAct.limit_hit,
        ("user", attempt.user_id) if attempt.user_id else None,
        door=attempt.action,
        limit=scope,
        tries=limit.max_attempts,
        seconds=limit.seconds,
    )
