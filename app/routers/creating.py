"""The gate of operations that create, and what makes it safe to send such a request again.

A request may carry an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header). Whoever passes
the gate with one that was answered before gets that answer, and nothing happens again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Generic, TypeVar, cast

from fastapi import Depends, Request
from fastapi.security import SecurityScopes
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from app.core.exceptions import Conflict, FieldError, Invalid, StillUnderWay
from app.core.permissions import Caller, Permission
from app.crud import accounts, authorization, idempotency
from app.crud.idempotency import REPLAYED, Answer, Kept, Key, Replay
from app.models.users import email_key
from app.quotas import Door
from app.routers.bodies import loads
from app.routers.deps import Gate, permissions_of, reader_of, who_may, writer_of
from app.routers.doors import AtDoor
from app.routers.lists import Json
from app.schemas.users import normal_email
from app.writing import Unit, in_session

C = TypeVar("C", bound=Caller | None)
HEADER = "Idempotency-Key"
MAX_KEY = 255
_KEY = re.compile(rb"[!-~]{1,%d}" % MAX_KEY)
_NAME = HEADER.lower().encode()
_LOOKS, _PAUSE_SECONDS = 40, 0.05
_OF_ANY = {"content-length", "content-type"}
# By the collection that was added to: what raises NotFound for a row whose answer may not be shown
# any more. Posts and roles hold what their maker wrote, and no other person.
_STILL_THERE = {"users": accounts.require}


async def replay(_: Request, replay: Exception) -> Response:
    """That answer, byte by byte."""
    assert isinstance(replay, Replay)
    return _response(replay.answer)


def _response(answer: Answer) -> Response:
    headers = answer.headers | {REPLAYED: "true"}
    return Response(answer.body, answer.status, headers, media_type=Json.media_type)


def made(shown: dict[str, Any], *, at: str, version: int | None = None) -> Json:
    """The response for something new: what is shown of it, where it is, and its entity tag."""
    return Json.tagged(shown, {"Location": at}, status_code=201, version=version)


class Creation(Generic[C]):
    """Somebody's request to create something; of several with the same key, one does."""

    def __init__(
        self, request: Request, caller: C, key: Key | None, required: Sequence[Permission] = ()
    ) -> None:
        self._request = request
        self.caller = caller
        self._key = key
        self._required = required

    async def run(self, work: Callable[[Unit], Json]) -> Response:
        """Do a work that makes the response, in a short transaction (`app/writing.py`).

        `caller` is confirmed in that transaction before the work begins.
        """
        writer = writer_of(self._request)
        if self._key is None:
            return await writer.run(partial(self._confirmed, work))
        async with self._or_replay(self._key):
            return await writer.run(partial(self._confirmed, partial(_once, work, self._key)))

    def _confirmed(self, work: Callable[[Unit], Response], unit: Unit) -> Response:
        assert self.caller is not None, "what nobody asks for is made in a session"
        confirmed = authorization.confirm(unit, self.caller, self._required)
        self.caller = cast("C", confirmed)
        return work(unit)

    async def within(self, session: AsyncSession, make: Callable[[], Awaitable[Json]]) -> Response:
        """Make the response, in the transaction of a session.

        `caller`, if there is one, is confirmed in that transaction before anything is made.
        """
        if self.caller is not None:
            confirmed = await authorization.begin(session, self.caller, self._required)
            self.caller = cast("C", confirmed)
        if self._key is None:
            return await make()
        async with self._or_replay(self._key):
            response = await make()
            await in_session(session, partial(_keep, self._key, response))
        return response

    async def take_turn(self, claim: Callable[[str], Awaitable[bool]]) -> None:
        """Let one at a time go on, before anything is counted: those who find it done are told so.

        Raises Replay, or StillUnderWay after 2 s.
        """
        if self._key is None:
            return
        for _ in range(_LOOKS):
            is_ours = await claim(self._key.hash)
            kept = await idempotency.find(reader_of(self._request), self._key)
            if kept is not None:
                raise Replay(await self.told(self._key, kept))
            if is_ours:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise StillUnderWay

    def belongs_to(self, user_id: int) -> None:
        """Nobody asks: the answer is kept as long as the user it tells of may be told of."""
        if self._key is not None:
            self._key = replace(self._key, user_id=user_id)

    @asynccontextmanager
    async def _or_replay(self, key: Key) -> AsyncIterator[None]:
        try:
            yield
        except (Conflict, IntegrityError) as error:
            # What is in the way may well be what the same request has just made.
            kept = await idempotency.find(reader_of(self._request), key)
            if kept is None:
                raise
            raise Replay(await self.told(key, kept)) from error

    async def told(self, key: Key, kept: Kept) -> Answer:
        """What is remembered, if it was an answer to this. Raises IdempotencyKeyReused; NotFound
        for an answer that shows somebody who was deleted since."""
        if self.caller is None:
            return await _told_anybody(self._request, key, kept)
        answer = key.answer(kept)
        path, _, row_id = answer.headers["location"].rpartition("/")
        require = _STILL_THERE.get(path.rpartition("/")[2])
        if require is not None:
            await require(reader_of(self._request), user_id=int(row_id))
        return answer


def _once(work: Callable[[Unit], Json], key: Key, unit: Unit) -> Response:
    # Looked for here too: who shares a COMMIT sees it before anybody else.
    kept = idempotency.find_within(unit, key)
    if kept is not None:
        return _response(key.answer(kept))
    response = work(unit)
    _keep(key, response, unit)
    return response


def _keep(key: Key, response: Json, unit: Unit) -> None:
    headers = {name: value for name, value in response.headers.items() if name not in _OF_ANY}
    idempotency.keep(
        unit, key, Answer(response.status_code, headers, bytes(response.body).decode())
    )


# --- The gates -------------------------------------------------------------------------------


class TakesKey:
    """A dependency that takes the header; `app/openapi.py` documents it."""


class CreatingGate(TakesKey, Gate):
    """The gate, and behind it what was answered before."""

    async def __call__(  # type: ignore[override]  # more than a caller
        self, request: Request, scopes: SecurityScopes
    ) -> Creation[Caller]:
        caller = await super().__call__(request, scopes)
        return await _creation(request, caller, permissions_of(scopes))


class CreatingDoor(TakesKey):
    """The same for what anybody may create."""

    async def __call__(self, request: Request) -> Creation[None]:
        return await _creation(request, None)


_gate = CreatingGate()
PostCreation = Annotated[Creation[Caller], who_may(Permission.posts_write, gate=_gate)]
UserCreation = Annotated[Creation[Caller], who_may(Permission.users_write, gate=_gate)]
RoleCreation = Annotated[Creation[Caller], who_may(Permission.roles_write, gate=_gate)]
PublicCreation = Annotated[Creation[None], Depends(CreatingDoor())]


async def _creation(
    request: Request, caller: C, required: Sequence[Permission] = ()
) -> Creation[C]:
    """Raises Replay when it was answered before."""
    key = await _key_of(request, caller)
    creation = Creation(request, caller, key, required)
    if key is not None:
        state = request.app.state
        kept = await idempotency.find_or_forget(state.reader, state.database, key)
        if kept is not None:
            raise Replay(await creation.told(key, kept))
    return creation


async def _key_of(request: Request, caller: Caller | None) -> Key | None:
    given = [value for name, value in request.scope["headers"] if name == _NAME]
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Invalid([FieldError(HEADER, "idempotency_key_invalid")])
    body, address = _canonical(await request.body())
    return idempotency.key_of(
        request.app.state.settings.keys,
        owner=address if caller is None else caller.user_id,
        value=given[0].decode(),
        request=f"{request.method} {request.scope['path']}\0{body}",
    )


def _canonical(body: bytes) -> tuple[str, str]:
    """The same for bodies that say the same, whatever the order of their members; and the address
    in it, if there is one."""
    try:
        found = loads(body)
        text = json.dumps(found, sort_keys=True)
    except (ValueError, RecursionError):
        return body.decode("latin-1"), ""  # refused later on
    email = found.get("email") if isinstance(found, dict) else None
    return text, email_key(normal_email(email) or email) if isinstance(email, str) else ""


_at_repeat = asynccontextmanager(AtDoor(Door.repeat).__call__)


async def _told_anybody(request: Request, key: Key, kept: Kept) -> Answer:
    """Whether it was the same request tells whether the password was: asked no more often than at
    a login. Raises TooManyRequests."""
    async with _at_repeat(request) as attempt:
        await attempt.on_account(key.hash, user_id=kept.user_id)
        return key.answer(kept)
