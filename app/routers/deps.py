"""What endpoints ask for, as typed aliases: sessions, callers, rows, links."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import cache, partial
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, Path, Request, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.core.context import request_context
from app.core.exceptions import InvalidToken, Unauthenticated
from app.core.permissions import (
    Caller,
    Permission,
    require,
    require_may_edit,
    require_may_manage,
)
from app.core.security import AccessTokens, Passwords
from app.crud import accounts, authorization, posts, roles, users
from app.crud.pages import Pages
from app.crud.sessions import Identities
from app.database import Database
from app.models.posts import Post
from app.models.roles import Role
from app.models.users import User
from app.reading import Reader
from app.routers.etags import IfMatch, require_shown, require_version
from app.schemas.base import MAX_ID
from app.tasks.engine import Engine
from app.writing import Writer

API = "/api/v1"


def _canonical(value: object) -> object:
    """One row, one path: ` 1`, `+1`, `01` and `1.0` are not ids."""
    if not isinstance(value, str) or not _ROW_ID.fullmatch(value):
        raise PydanticCustomError("int_parsing", "not an id")
    return value


_ROW_ID = re.compile(r"[0-9]|[1-9][0-9]*|-[1-9][0-9]*")
Id = Annotated[int, BeforeValidator(_canonical), Path(ge=1, le=MAX_ID)]


def _of_app(name: str) -> Any:
    """A dependency that hands out what `main.create_app` put on `app.state`."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


SettingsDep = Annotated[Settings, _of_app("settings")]
DatabaseDep = Annotated[Database, _of_app("database")]
PasswordsDep = Annotated[Passwords, _of_app("passwords")]
TokensDep = Annotated[AccessTokens, _of_app("tokens")]
DispatcherDep = Annotated[Engine, _of_app("dispatcher")]


def pages_of(request: Request) -> Pages:
    """What reads pages, and rows. No dependency: one costs as much as reading a row does."""
    found: Pages = request.app.state.pages
    return found


def reader_of(request: Request) -> Reader:
    """What reads rows."""
    return pages_of(request).reader


def writer_of(request: Request) -> Writer:
    """What gives a function a transaction."""
    found: Writer = request.app.state.writer
    return found


async def _wake(background: BackgroundTasks, dispatcher: DispatcherDep) -> None:
    background.add_task(dispatcher.wake)


# For an operation that writes mails: they are looked for once it was answered.
MAILS = Depends(_wake)


# --- The session -----------------------------------------------------------------------------


async def get_session(request: Request, database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """The request's one transaction; it commits before the response leaves."""
    readonly = request.method in {"GET", "HEAD"}
    async with database.begin(readonly=readonly) as session:
        yield session


# The scope matters: with the default one the commit would follow the response.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


# --- The caller ------------------------------------------------------------------------------


class Identified(OAuth2PasswordBearer):
    """Who is asking; None without credentials. Bad credentials are refused, never ignored.

    Looked up before the request's transaction begins: no lock is held, and no second
    connection waited for, while a write hashes a password.
    """

    def __init__(self) -> None:
        super().__init__(
            tokenUrl=f"{API}/auth/login",
            refreshUrl=f"{API}/auth/login",
            scheme_name="OAuth2",
            description="Log in with e-mail and password; the permissions are those of your roles.",
        )

    async def __call__(self, request: Request) -> Caller | None:  # type: ignore[override]  # more
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if not given:
            return None
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        if len(given) > 1:
            raise InvalidToken
        if scheme.lower() != "bearer":
            return None
        identities: Identities = request.app.state.identities
        caller = await identities.caller(token)
        request_context().user_id = caller.user_id
        return caller


class Gate(Identified):
    """The one gate: an authenticated caller who holds any of the permissions asked for."""

    async def __call__(  # type: ignore[override]  # FastAPI hands it the scopes
        self, request: Request, scopes: SecurityScopes
    ) -> Caller:
        caller = await super().__call__(request)
        if caller is None:
            raise Unauthenticated
        if scopes.scopes:
            require(caller, *permissions_of(scopes))
        return caller


class WriteGate(Gate):
    """The gate of an operation that changes something in the request's session: it begins the
    transaction, and finds out in it whether the caller still may.

    What has to come before the transaction (hashing a password, looking for a repeated request)
    has a gate without one, and begins it by `authorization.begin` itself.
    """

    async def __call__(  # type: ignore[override]  # more than Gate
        self, request: Request, scopes: SecurityScopes, session: SessionDep
    ) -> Caller:
        # What is known already refuses without a lock.
        caller = await super().__call__(request, scopes)
        return await authorization.begin(session, caller, permissions_of(scopes))


def permissions_of(scopes: SecurityScopes) -> tuple[Permission, ...]:
    """Return the permissions that an operation asks for: any of them is enough."""
    return _permissions(*scopes.scopes)


@cache
def _permissions(*names: str) -> tuple[Permission, ...]:
    return tuple(map(Permission, names))


_gate, _write_gate = Gate(), WriteGate()
MaybeCaller = Annotated[Caller | None, Depends(Identified())]


def who_may(*permissions: Permission, gate: Gate = _gate) -> Any:
    """The dependency that lets those through who hold any of these."""
    return Security(gate, scopes=[*permissions])


def who_may_write(*permissions: Permission) -> Any:
    """The same for an operation that changes something."""
    return who_may(*permissions, gate=_write_gate)


# Who reads.
CurrentCaller = Annotated[Caller, who_may()]
UsersReader = Annotated[Caller, who_may(Permission.users_read)]
RolesReader = Annotated[Caller, who_may(Permission.roles_read)]
AuditReader = Annotated[Caller, who_may(Permission.audit_read)]
OutboxReader = Annotated[Caller, who_may(Permission.outbox_read)]
# Who writes.
ActingCaller = Annotated[Caller, who_may_write()]
UsersWriter = Annotated[Caller, who_may_write(Permission.users_write)]
RolesWriter = Annotated[Caller, who_may_write(Permission.roles_write)]
RolesAssigner = Annotated[Caller, who_may_write(Permission.roles_assign)]
PostsEditor = Annotated[Caller, who_may_write(Permission.posts_write, Permission.posts_moderate)]
OutboxWriter = Annotated[Caller, who_may_write(Permission.outbox_write)]


# --- Rows: unknown or invisible is 404, visible but not yours is 403 -------------------------


async def _post_for_update(
    post_id: Id, session: SessionDep, caller: PostsEditor, if_match: IfMatch
) -> Post:
    post = await posts.get_for_update(session, caller=caller, post_id=post_id)
    require_may_edit(caller, post)
    require_version(if_match, post.version)
    return post


async def _post_for_restore(
    post_id: Id, session: SessionDep, caller: PostsEditor, if_match: IfMatch
) -> Post:
    post = await posts.get_for_restore(session, caller=caller, post_id=post_id)
    require_may_edit(caller, post)
    require_version(if_match, post.version)
    return post


async def _managed_user(
    user_id: Id, session: SessionDep, caller: UsersWriter, if_match: IfMatch
) -> User:
    user = await users.get_for_update(session, user_id=user_id)
    require_may_manage(caller, user.permissions)
    await require_shown(if_match, partial(accounts.show, session, caller=caller, user_id=user_id))
    return user


async def _deleted_user(
    user_id: Id, session: SessionDep, caller: UsersWriter, if_match: IfMatch
) -> User:
    user = await users.get_for_update(session, user_id=user_id, include_deleted=True)
    require_may_manage(caller, user.permissions)
    await require_shown(if_match, partial(accounts.show, session, caller=caller, user_id=user_id))
    return user


async def _me(session: SessionDep, caller: ActingCaller) -> User:
    return await users.get_for_update(session, user_id=caller.user_id)


MyAccount = Annotated[User, Depends(_me)]


async def _me_for_update(
    user: MyAccount, session: SessionDep, caller: ActingCaller, if_match: IfMatch
) -> User:
    await require_shown(if_match, partial(accounts.show_me, session, caller=caller))
    return user


async def _role_for_update(
    role_id: Id, session: SessionDep, _: RolesWriter, if_match: IfMatch
) -> Role:
    role = await roles.get_for_update(session, role_id=role_id)
    await require_shown(if_match, partial(roles.show, session, role_id=role_id))
    return role


PostForUpdate = Annotated[Post, Depends(_post_for_update)]
PostForRestore = Annotated[Post, Depends(_post_for_restore)]
UserForUpdate = Annotated[User, Depends(_managed_user)]
UserForRestore = Annotated[User, Depends(_deleted_user)]
MeForUpdate = Annotated[User, Depends(_me_for_update)]
RoleForUpdate = Annotated[Role, Depends(_role_for_update)]


# --- Headers ---------------------------------------------------------------------------------


def location(request: Request, row_id: int) -> str:
    """Where a new row of this collection is."""
    return f"{request.url.path}/{row_id}"
