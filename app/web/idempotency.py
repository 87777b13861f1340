"""Requests that create something, and may safely be sent again.

A request may carry an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header). A permitted
caller whose key was answered before gets that answer, and nothing happens again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Generic, TypeVar, cast

from fastapi import Depends, Request
from fastapi.security import SecurityScopes
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from app.core.exceptions import Conflict, FieldError, Invalid, RequestInProgress
from app.core.permissions import Caller, Permission
from app.crud import authorization, idempotency_keys, user_queries
from app.crud.idempotency_keys import REPLAYED, Answer, Key, ReplayedResponse, StoredResponse
from app.db.queries import QueryRunner
from app.db.transactions import Transaction, session_transaction
from app.models.users import email_key
from app.rate_limits.rules import LimitedAction
from app.schemas.emails import normal_email
from app.web.dependencies import (
    RequirePermissions,
    permissions_of,
    query_runner_of,
    require_permissions,
    transaction_runner_of,
)
from app.web.rate_limits import RateLimited
from app.web.responses import FastJSONResponse
from app.web.strict_route import loads

C = TypeVar("C", bound=Caller | None)
HEADER = "Idempotency-Key"
MAX_KEY = 255
_KEY = re.compile(rb"[!-~]{1,%d}" % MAX_KEY)
_NAME = HEADER.lower().encode()
_LOOKS, _PAUSE_SECONDS = 40, 0.05
_OF_ANY = {"content-length", "content-type"}
# Raises NotFound for a row whose stored answer may not be shown any more.
RequireShown = Callable[[QueryRunner, int], Awaitable[None]]


async def replay(_: Request, replay: Exception) -> Response:
    """Return the stored answer, byte by byte."""
    assert isinstance(replay, ReplayedResponse)
    return _response(replay.answer)


def _response(answer: Answer) -> Response:
    headers = answer.headers | {REPLAYED: "true"}
    return Response(answer.body, answer.status, headers, media_type=FastJSONResponse.media_type)


class IdempotentRequest(Generic[C]):
    """A request to create something; of several with the same key, one is carried out."""

    def __init__(
        self,
        request: Request,
        caller: C,
        key: Key | None,
        required: Sequence[Permission] = (),
        require_shown: RequireShown | None = None,
    ) -> None:
        self._require_shown = require_shown
        self._request = request
        self.caller = caller
        self._key = key
        self._required = required

    async def run(self, work: Callable[[Transaction], FastJSONResponse]) -> Response:
        """Do a work that makes the response, in a short transaction (`app/db/transactions.py`).

        `caller` is confirmed in that transaction before the work begins.
        """
        runner = transaction_runner_of(self._request)
        if self._key is None:
            return await runner.run(partial(self._confirmed, work))
        async with self._or_replay(self._key):
            return await runner.run(partial(self._confirmed, partial(_once, work, self._key)))

    def _confirmed(
        self, work: Callable[[Transaction], Response], transaction: Transaction
    ) -> Response:
        assert self.caller is not None, "what needs no login is created in a session"
        confirmed = authorization.confirm(transaction, self.caller, self._required)
        self.caller = cast("C", confirmed)
        return work(transaction)

    async def within(
        self, session: AsyncSession, make: Callable[[], Awaitable[FastJSONResponse]]
    ) -> Response:
        """Make the response, in the transaction of a session.

        `caller`, if there is one, is confirmed in that transaction before `make` is called.
        """
        if self.caller is not None:
            confirmed = await authorization.begin(session, self.caller, self._required)
            self.caller = cast("C", confirmed)
        if self._key is None:
            return await make()
        async with self._or_replay(self._key):
            response = await make()
            await session_transaction(session, partial(_keep, self._key, response))
        return response

    async def take_turn(self, claim: Callable[[str], Awaitable[bool]]) -> None:
        """Let one request with this key go on at a time, before any limit counts it.

        Raise ReplayedResponse if it was answered meanwhile, RequestInProgress after 2 s.
        """
        if self._key is None:
            return
        for _ in range(_LOOKS):
            is_ours = await claim(self._key.hash)
            kept = await idempotency_keys.find(query_runner_of(self._request), self._key)
            if kept is not None:
                raise ReplayedResponse(await self.resolve(self._key, kept))
            if is_ours:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise RequestInProgress

    def belongs_to(self, user_id: int) -> None:
        """Have the stored answer of a public request deleted with the user whom it shows."""
        if self._key is not None:
            self._key = replace(self._key, user_id=user_id)

    @asynccontextmanager
    async def _or_replay(self, key: Key) -> AsyncIterator[None]:
        try:
            yield
        except (Conflict, IntegrityError) as error:
            # The conflict may be with what the same request has just created.
            kept = await idempotency_keys.find(query_runner_of(self._request), key)
            if kept is None:
                raise
            raise ReplayedResponse(await self.resolve(key, kept)) from error

    async def resolve(self, key: Key, kept: StoredResponse) -> Answer:
        """Return the stored answer to this request. Raise IdempotencyKeyReused if it was another
        request; NotFound if the answer shows a user who was deleted since."""
        if self.caller is None:
            return await _resolve_public(self._request, key, kept)
        answer = key.answer(kept)
        if self._require_shown is not None:
            row_id = int(answer.headers["location"].rpartition("/")[2])
            await self._require_shown(query_runner_of(self._request), row_id)
        return answer


def _once(
    work: Callable[[Transaction], FastJSONResponse], key: Key, transaction: Transaction
) -> Response:
    # Looked for here too: requests that share a COMMIT see it before all others.
    kept = idempotency_keys.find_within(transaction, key)
    if kept is not None:
        return _response(key.answer(kept))
    response = work(transaction)
    _keep(key, response, transaction)
    return response


def _keep(key: Key, response: FastJSONResponse, transaction: Transaction) -> None:
    headers = {name: value for name, value in response.headers.items() if name not in _OF_ANY}
    idempotency_keys.keep(
        transaction, key, Answer(response.status_code, headers, bytes(response.body).decode())
    )


# --- The dependencies ------------------------------------------------------------------------


class AcceptsIdempotencyKey:
    """A dependency that takes the header; `app/web/openapi.py` documents it."""


class IdempotentCreation(AcceptsIdempotencyKey, RequirePermissions):
    """Require permissions, then replay what was answered before.

    `require_shown` raises NotFound for a row whose answer must not be repeated: it shows another
    person, who was deleted since.
    """

    def __init__(self, require_shown: RequireShown | None = None) -> None:
        super().__init__()
        self._require_shown = require_shown

    async def __call__(  # type: ignore[override]  # more than a caller
        self, request: Request, scopes: SecurityScopes
    ) -> IdempotentRequest[Caller]:
        caller = await super().__call__(request, scopes)
        return await _creation(request, caller, permissions_of(scopes), self._require_shown)


class PublicIdempotentCreation(AcceptsIdempotencyKey):
    """Do the same for what may be created without a login."""

    async def __call__(self, request: Request) -> IdempotentRequest[None]:
        return await _creation(request, None)


async def _require_user(reader: QueryRunner, user_id: int) -> None:
    await user_queries.require(reader, user_id=user_id)


_create = IdempotentCreation()
PostCreation = Annotated[
    IdempotentRequest[Caller], require_permissions(Permission.posts_write, by=_create)
]
UserCreation = Annotated[
    IdempotentRequest[Caller],
    require_permissions(Permission.users_write, by=IdempotentCreation(_require_user)),
]
RoleCreation = Annotated[
    IdempotentRequest[Caller], require_permissions(Permission.roles_write, by=_create)
]
PublicCreation = Annotated[IdempotentRequest[None], Depends(PublicIdempotentCreation())]


async def _creation(
    request: Request,
    caller: C,
    required: Sequence[Permission] = (),
    require_shown: RequireShown | None = None,
) -> IdempotentRequest[C]:
    """Return the request; raise ReplayedResponse if it was answered before."""
    key = await _key_of(request, caller)
    creation = IdempotentRequest(request, caller, key, required, require_shown)
    if key is not None:
        state = request.app.state
        kept = await idempotency_keys.find_or_delete_expired(
            state.query_runner, state.database, key
        )
        if kept is not None:
            raise ReplayedResponse(await creation.resolve(key, kept))
    return creation


async def _key_of(request: Request, caller: Caller | None) -> Key | None:
    given = [value for name, value in request.scope["headers"] if name == _NAME]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Invalid([FieldError(HEADER, "idempotency_key_invalid")])
    body, address = _canonical(await request.body())
    return idempotency_keys.key_of(
        request.app.state.settings.keys,
        owner=address if caller is None else caller.user_id,
        value=given[0].decode(),
        request=f"{request.method} {request.scope['path']}\0{body}",
    )


def _canonical(body: bytes) -> tuple[str, str]:
    """Return a text that is the same for bodies that say the same, in whatever order; and the
    address in the body, if there is one."""
    try:
        found = loads(body)
        text = json.dumps(found, sort_keys=True)
    except (ValueError, RecursionError):
        return body.decode("latin-1"), ""  # refused later on
    email = found.get("email") if isinstance(found, dict) else None
    return text, email_key(normal_email(email) or email) if isinstance(email, str) else ""


_at_repeat = asynccontextmanager(RateLimited(LimitedAction.repeat).__call__)


async def _resolve_public(request: Request, key: Key, kept: StoredResponse) -> Answer:
    """Return the stored answer; raise TooManyRequests after as many attempts as at a login: whether
    the request is the same tells whether the password is."""
    async with _at_repeat(request) as attempt:
        await attempt.on_account(key.hash, user_id=kept.user_id)
        return key.answer(kept)
