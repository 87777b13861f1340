"""Requests that create something, and may safely be sent again.

A request may carry an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header). A permitted
caller whose key has a stored response gets that one, and nothing happens again.
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
from app.crud.idempotency_keys import (
    REPLAYED,
    IdempotencyRecord,
    Key,
    ReplayResponse,
    StoredResponse,
)
from app.db.queries import QueryRunner
from app.db.transactions import Transaction, session_transaction
from app.models.users import email_key
from app.rate_limits.rules import LimitedAction
from app.schemas.emails import normal_email
from app.web.dependencies import (
    RequireAnyPermission,
    permissions_of,
    query_runner_of,
    require_any_permission,
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
# Raises NotFound for a row whose stored response may not be replayed any more.
RequireReplayable = Callable[[QueryRunner, int], Awaitable[None]]


async def replay(_: Request, replay: Exception) -> Response:
    """Return the stored response, byte by byte."""
    assert isinstance(replay, ReplayResponse)
    return _response(replay.response)


def _response(stored: StoredResponse) -> Response:
    headers = stored.headers | {REPLAYED: "true"}
    return Response(stored.body, stored.status, headers, media_type=FastJSONResponse.media_type)


class IdempotentRequest(Generic[C]):
    """A request to create something; of several with the same key, one is carried out."""

    def __init__(
        self,
        request: Request,
        caller: C,
        key: Key | None,
        required: Sequence[Permission] = (),
        require_replayable: RequireReplayable | None = None,
    ) -> None:
        self._require_replayable = require_replayable
        self._request = request
        self.caller = caller
        self._key = key
        self._required = required

    async def run_in_transaction(self, work: Callable[[Transaction], FastJSONResponse]) -> Response:
        """Recheck the caller and call `work` in one short transaction (`app/db/transactions.py`);
        return its response, or the stored one if the key was used before in the same COMMIT.

        Raise ReplayResponse if a concurrent request with the same key was committed first.
        """
        runner = transaction_runner_of(self._request)
        if self._key is None:
            return await runner.run(partial(self._recheck_and_run, work))
        async with self._or_replay(self._key):
            return await runner.run(partial(self._recheck_and_run, partial(_once, work, self._key)))

    def _recheck_and_run(
        self, work: Callable[[Transaction], Response], transaction: Transaction
    ) -> Response:
        assert self.caller is not None, "what needs no login is created in a session"
        caller = authorization.recheck_caller(transaction, self.caller, self._required)
        self.caller = cast("C", caller)
        return work(transaction)

    async def run_in_session(
        self, session: AsyncSession, make: Callable[[], Awaitable[FastJSONResponse]]
    ) -> Response:
        """Recheck the caller, if there is one, and call `make` in the transaction of a session;
        return its response.

        Raise ReplayResponse if a concurrent request with the same key was committed first.
        """
        if self.caller is not None:
            caller = await authorization.authorize_write(session, self.caller, self._required)
            self.caller = cast("C", caller)
        if self._key is None:
            return await make()
        async with self._or_replay(self._key):
            response = await make()
            await session_transaction(session, partial(_store, self._key, response))
        return response

    async def wait_for_key(self, claim: Callable[[str], Awaitable[bool]]) -> None:
        """Let one request with this key go on at a time, before any limit counts it.

        Raise ReplayResponse if it was answered meanwhile, RequestInProgress after 2 s.
        """
        if self._key is None:
            return
        for _ in range(_LOOKS):
            is_ours = await claim(self._key.hash)
            record = await idempotency_keys.find(query_runner_of(self._request), self._key)
            if record is not None:
                raise ReplayResponse(await self.resolve(self._key, record))
            if is_ours:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise RequestInProgress

    def belongs_to(self, user_id: int) -> None:
        """Have the stored response of a public request deleted with the user whom it shows."""
        if self._key is not None:
            self._key = replace(self._key, user_id=user_id)

    @asynccontextmanager
    async def _or_replay(self, key: Key) -> AsyncIterator[None]:
        try:
            yield
        except (Conflict, IntegrityError) as error:
            # The conflict may be with what the same request has just created.
            record = await idempotency_keys.find(query_runner_of(self._request), key)
            if record is None:
                raise
            raise ReplayResponse(await self.resolve(key, record)) from error

    async def resolve(self, key: Key, record: IdempotencyRecord) -> StoredResponse:
        """Return the stored response to this request. Raise IdempotencyKeyReused if it was another
        request; NotFound if the response shows a user who was deleted since."""
        if self.caller is None:
            return await _resolve_public(self._request, key, record)
        response = key.response_of(record)
        if self._require_replayable is not None:
            row_id = int(response.headers["location"].rpartition("/")[2])
            await self._require_replayable(query_runner_of(self._request), row_id)
        return response


def _once(
    work: Callable[[Transaction], FastJSONResponse], key: Key, transaction: Transaction
) -> Response:
    # Looked for here too: requests that share a COMMIT see it before all others.
    record = idempotency_keys.find_in_transaction(transaction, key)
    if record is not None:
        return _response(key.response_of(record))
    response = work(transaction)
    _store(key, response, transaction)
    return response


def _store(key: Key, response: FastJSONResponse, transaction: Transaction) -> None:
    headers = {name: value for name, value in response.headers.items() if name not in _OF_ANY}
    idempotency_keys.store(
        transaction,
        key,
        StoredResponse(response.status_code, headers, bytes(response.body).decode()),
    )


# --- The dependencies ------------------------------------------------------------------------


class IdempotencyKeyDependency:
    """A dependency that takes the header; `app/web/openapi.py` documents it."""


class AcceptsIdempotencyKey(IdempotencyKeyDependency, RequireAnyPermission):
    """Require any of the permissions, then replay what was answered before.

    `require_replayable` raises NotFound for a row whose stored response must not be replayed: it
    shows another person, who was deleted since.
    """

    def __init__(self, require_replayable: RequireReplayable | None = None) -> None:
        super().__init__()
        self._require_replayable = require_replayable

    async def __call__(  # type: ignore[override]  # more than a caller
        self, request: Request, scopes: SecurityScopes
    ) -> IdempotentRequest[Caller]:
        caller = await super().__call__(request, scopes)
        return await _idempotent_request(
            request, caller, permissions_of(scopes), self._require_replayable
        )


class AcceptsIdempotencyKeyWithoutLogin(IdempotencyKeyDependency):
    """Do the same for what may be created without a login."""

    async def __call__(self, request: Request) -> IdempotentRequest[None]:
        return await _idempotent_request(request, None)


async def _require_user(reader: QueryRunner, user_id: int) -> None:
    await user_queries.require(reader, user_id=user_id)


_create = AcceptsIdempotencyKey()
IdempotentPostRequest = Annotated[
    IdempotentRequest[Caller], require_any_permission(Permission.posts_write, dependency=_create)
]
IdempotentUserRequest = Annotated[
    IdempotentRequest[Caller],
    require_any_permission(Permission.users_write, dependency=AcceptsIdempotencyKey(_require_user)),
]
IdempotentRoleRequest = Annotated[
    IdempotentRequest[Caller], require_any_permission(Permission.roles_write, dependency=_create)
]
IdempotentPublicRequest = Annotated[
    IdempotentRequest[None], Depends(AcceptsIdempotencyKeyWithoutLogin())
]


async def _idempotent_request(
    request: Request,
    caller: C,
    required: Sequence[Permission] = (),
    require_replayable: RequireReplayable | None = None,
) -> IdempotentRequest[C]:
    """Return the request; raise ReplayResponse if it was answered before."""
    key = await _key_of(request, caller)
    idempotent = IdempotentRequest(request, caller, key, required, require_replayable)
    if key is not None:
        state = request.app.state
        record = await idempotency_keys.find_or_delete_expired(
            state.query_runner, state.database, key
        )
        if record is not None:
            raise ReplayResponse(await idempotent.resolve(key, record))
    return idempotent


async def _key_of(request: Request, caller: Caller | None) -> Key | None:
    header_values = [value for name, value in request.scope["headers"] if name == _NAME]
    if not header_values:
        return None
    if len(header_values) > 1 or not _KEY.fullmatch(header_values[0]):
        raise Invalid([FieldError(HEADER, "idempotency_key_invalid")])
    body, address = _canonical(await request.body())
    return idempotency_keys.key_of(
        request.app.state.settings.keys,
        owner=address if caller is None else caller.user_id,
        value=header_values[0].decode(),
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


async def _resolve_public(request: Request, key: Key, record: IdempotencyRecord) -> StoredResponse:
    """Return the stored response; raise TooManyRequests after as many attempts as at a login:
    whether the request is the same tells whether the password is."""
    async with _at_repeat(request) as attempt:
        await attempt.on_account(key.hash, user_id=record.user_id)
        return key.response_of(record)
