"""What endpoints ask for, as typed aliases: sessions, callers, rows, links."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import Depends, Header, Path, Request, Response, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.core.context import request_context
from app.core.exceptions import InvalidToken, PreconditionFailed, Unauthenticated
from app.core.permissions import (
    Caller,
    Permission,
    require,
    require_may_edit,
    require_may_manage,
)
from app.core.security import AccessTokens, Passwords
from app.crud import posts, roles, sessions, users
from app.crud.base import Cursors, PageOf
from app.database import Database
from app.models.posts import Post
from app.models.roles import Role
from app.models.users import User
from app.schemas.base import MAX_ID
from app.tasks.dispatcher import Dispatcher

T = TypeVar("T")
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
CursorsDep = Annotated[Cursors, _of_app("cursors")]
DispatcherDep = Annotated[Dispatcher, _of_app("dispatcher")]


# --- The session -----------------------------------------------------------------------------


async def get_session(request: Request, database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """The request's one transaction; it commits before the response leaves."""
    readonly = request.method in {"GET", "HEAD"}
    async with database.begin(readonly=readonly) as session:
        yield session


# The scope matters: with the default one the commit would follow the response.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


# --- The caller ------------------------------------------------------------------------------

_bearer = OAuth2PasswordBearer(
    tokenUrl=f"{API}/auth/login",
    scheme_name="OAuth2",
    description="Log in with e-mail and password; the permissions are those of your roles.",
    auto_error=False,
)
Bearer = Annotated[str | None, Depends(_bearer)]


async def maybe_caller(
    request: Request, token: Bearer, tokens: TokensDep, database: DatabaseDep
) -> Caller | None:
    """Who is asking; None without credentials. Bad credentials are refused, never ignored.

    Looked up in a transaction of its own, before the request's: no lock is held, and no
    second connection waited for, while a write hashes a password.
    """
    if len(request.headers.getlist("authorization")) > 1:
        raise InvalidToken
    if token is None:
        return None
    claims = tokens.verify(token)
    async with database.begin(readonly=True) as session:
        caller = await sessions.identify(session, claims)
    if caller is None:
        raise InvalidToken
    request_context().user_id = caller.user_id
    return caller


MaybeCaller = Annotated[Caller | None, Depends(maybe_caller)]


async def authorize(scopes: SecurityScopes, caller: MaybeCaller) -> Caller:
    """The one gate: an authenticated caller who holds any of the permissions asked for."""
    if caller is None:
        raise Unauthenticated
    if scopes.scopes:
        require(caller, *map(Permission, scopes.scopes))
    return caller


def _who_may(*permissions: Permission) -> Any:
    return Security(authorize, scopes=[*permissions])


CurrentCaller = Annotated[Caller, _who_may()]
UsersReader = Annotated[Caller, _who_may(Permission.users_read)]
UsersWriter = Annotated[Caller, _who_may(Permission.users_write)]
RolesReader = Annotated[Caller, _who_may(Permission.roles_read)]
RolesWriter = Annotated[Caller, _who_may(Permission.roles_write)]
RolesAssigner = Annotated[Caller, _who_may(Permission.roles_assign)]
PostsWriter = Annotated[Caller, _who_may(Permission.posts_write)]
PostsEditor = Annotated[Caller, _who_may(Permission.posts_write, Permission.posts_moderate)]
OutboxReader = Annotated[Caller, _who_may(Permission.outbox_read)]
OutboxWriter = Annotated[Caller, _who_may(Permission.outbox_write)]


# --- Rows: unknown or invisible is 404, visible but not yours is 403 -------------------------


async def _post(post_id: Id, session: SessionDep, caller: MaybeCaller) -> Post:
    return await posts.get(session, caller=caller, post_id=post_id)


IfMatch = Annotated[str | None, Header(description="The post's `ETag`.")]


async def _post_for_update(
    post_id: Id, session: SessionDep, caller: PostsEditor, if_match: IfMatch = None
) -> Post:
    post = await posts.get_for_update(session, caller=caller, post_id=post_id)
    require_may_edit(caller, post)
    _require_match(if_match, post)
    return post


async def _post_for_restore(
    post_id: Id, session: SessionDep, caller: PostsEditor, if_match: IfMatch = None
) -> Post:
    post = await posts.get_for_restore(session, caller=caller, post_id=post_id)
    require_may_edit(caller, post)
    _require_match(if_match, post)
    return post


async def _managed_user(user_id: Id, session: SessionDep, caller: UsersWriter) -> User:
    user = await users.get_for_update(session, user_id=user_id)
    require_may_manage(caller, user.permissions)
    return user


async def _deleted_user(user_id: Id, session: SessionDep, caller: UsersWriter) -> User:
    user = await users.get_for_update(session, user_id=user_id, include_deleted=True)
    require_may_manage(caller, user.permissions)
    return user


async def _me_for_update(session: SessionDep, caller: CurrentCaller) -> User:
    return await users.get_for_update(session, user_id=caller.user_id)


async def _role(role_id: Id, session: SessionDep, _: RolesReader) -> Role:
    return await roles.get(session, role_id=role_id)


async def _role_for_update(role_id: Id, session: SessionDep, _: RolesWriter) -> Role:
    return await roles.get_for_update(session, role_id=role_id)


PostForRead = Annotated[Post, Depends(_post)]
PostForUpdate = Annotated[Post, Depends(_post_for_update)]
PostForRestore = Annotated[Post, Depends(_post_for_restore)]
UserForUpdate = Annotated[User, Depends(_managed_user)]
UserForRestore = Annotated[User, Depends(_deleted_user)]
MeForUpdate = Annotated[User, Depends(_me_for_update)]
RoleForRead = Annotated[Role, Depends(_role)]
RoleForUpdate = Annotated[Role, Depends(_role_for_update)]


# --- Headers ---------------------------------------------------------------------------------


def etag(post: Post) -> str:
    """The entity tag of a post's current version."""
    return f'"{post.version}"'


def _require_match(if_match: str | None, post: Post) -> None:
    """RFC 9110 §13.1.1: any of the listed tags, or `*`."""
    if if_match is None:
        return
    given = {tag.strip() for tag in if_match.split(",")}
    if not given & {"*", etag(post)}:
        raise PreconditionFailed


def created(request: Request, response: Response, row_id: int) -> None:
    """Say where a new row is."""
    response.headers["Location"] = f"{request.url.path}/{row_id}"


class Links:
    """Adds RFC 8288 links and the total to the response of a listing."""

    def __init__(self, request: Request, response: Response) -> None:
        self._url = request.url
        self._headers = response.headers

    def to(self, page: PageOf[T]) -> PageOf[T]:
        links = {"first": self._link(page=1)}
        if page.page is not None and page.total_pages is not None:
            if page.has_prev:
                links["prev"] = self._link(page=page.page - 1)
            if page.has_next:
                links["next"] = self._link(page=page.page + 1)
            links["last"] = self._link(page=max(page.total_pages, 1))
            self._headers["X-Total-Count"] = str(page.total)
        elif page.next_cursor:
            links["next"] = self._link(cursor=page.next_cursor)
        self._headers["Link"] = ", ".join(f'<{url}>; rel="{rel}"' for rel, url in links.items())
        return page

    def _link(self, **position: object) -> str:
        # Path and query only: the Host header is the client's word, not ours.
        url = self._url.remove_query_params(["page", "cursor"]).include_query_params(**position)
        return f"{quote(url.path)}?{url.query}"


LinksDep = Annotated[Links, Depends()]
