"""What limits how often anybody may try: a dependency for each operation that is a door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request

from app.core.context import request_context
from app.core.exceptions import TooManyRequests
from app.crud import audit
from app.crud.credentials import Confirmation
from app.crud.idempotency import Replay
from app.database import Database
from app.models.audit import AuditAct
from app.quotas import Door
from app.routers.deps import CurrentCaller, DatabaseDep, PasswordsDep
from app.throttling import Attempt, Gate


class AtDoor:
    """Counts a try, hands it to the operation, and settles it by what became of it.

    The limits of the network are asked here; operations that verify a secret of an account, or
    send mails, ask for theirs by the Attempt.
    """

    def __init__(self, door: Door) -> None:
        self.door = door

    async def __call__(self, request: Request) -> AsyncIterator[Attempt]:
        gate: Gate = request.app.state.gate
        attempt = gate.attempt(self.door, ip=request_context().ip)
        outcome: BaseException | None = None
        try:
            await attempt.enter()
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
            told = None if isinstance(outcome, Replay) else outcome
            request.app.state.telemetry.attempted(attempt, told)
            request_context().headers.update(attempt.headers)
            if attempt.is_first_refusal:
                await _write_down(request.app.state.database, attempt)


def limited(door: Door) -> Any:
    """The dependency for a door; settled before the response leaves."""
    return Depends(AtDoor(door), scope="function")


LoginAttempt = Annotated[Attempt, limited(Door.login)]
PasswordAttempt = Annotated[Attempt, limited(Door.password)]
RegisterAttempt = Annotated[Attempt, limited(Door.register)]
ResetAttempt = Annotated[Attempt, limited(Door.reset)]
ForgotAttempt = Annotated[Attempt, limited(Door.forgot)]
ResendAttempt = Annotated[Attempt, limited(Door.resend)]


async def _confirmation(
    attempt: PasswordAttempt, caller: CurrentCaller, database: DatabaseDep, passwords: PasswordsDep
) -> Confirmation:
    return Confirmation(database, passwords, attempt, caller)


# For operations that ask for the present password.
Confirming = Annotated[Confirmation, Depends(_confirmation, scope="function")]


async def _write_down(database: Database, attempt: Attempt) -> None:
    assert attempt.refused_by is not None
    whom, quota = attempt.refused_by
    await audit.record_apart(
        database,
        AuditAct.limit_hit,
        ("user", attempt.user_id) if attempt.user_id else None,
        door=attempt.door,
        limit=whom,
        tries=quota.tries,
        seconds=quota.seconds,
    )
