"""What endpoints ask for, as typed aliases: sessions, callers, rows, links."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache, partial
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, Path, Request, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.core.context import request_context
from app.core.exceptions import InvalidToken, Unauthenticated
from app.core.permissions import (
    Caller,
    Permission,
    require_any,
    require_holds,
    require_may_edit,
    require_may_manage,
)
from app.core.security import AccessTokens, Passwords
from app.crud import authorization, posts, roles, user_queries, users
from app.crud.sessions import TokenAuthenticator
from app.db.engine import Database
from app.db.pagination import Paginator
from app.db.queries import QueryRunner
from app.db.transactions import TransactionRunner
from app.models.posts import Post
from app.models.roles import Role
from app.models.users import User
from app.schemas.base import MAX_ID, QueryInt
from app.tasks.outbox_runner import OutboxRunner
from app.web.etags import IfMatch, require_etag, require_version

API = "/api/v1"


# One row, one path: ` 1`, `+1`, `01` and `1.0` are not ids.
Id = Annotated[QueryInt, Path(ge=1, le=MAX_ID, description="The `id` of the record.")]


def _of_app(name: str) -> Any:
    """Return a dependency that hands out what `main.create_app` put on `app.state`."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


SettingsDep = Annotated[Settings, _of_app("settings")]
DatabaseDep = Annotated[Database, _of_app("database")]
PasswordsDep = Annotated[Passwords, _of_app("passwords")]
TokensDep = Annotated[AccessTokens, _of_app("tokens")]
DispatcherDep = Annotated[OutboxRunner, _of_app("dispatcher")]


def paginator_of(request: Request) -> Paginator:
    """Return what reads pages and rows. No dependency: one costs as much as reading a row does."""
    paginator: Paginator = request.app.state.paginator
    return paginator


def query_runner_of(request: Request) -> QueryRunner:
    """Return what runs prepared queries."""
    return paginator_of(request).reader


def transaction_runner_of(request: Request) -> TransactionRunner:
    """Return what runs functions as transactions."""
    runner: TransactionRunner = request.app.state.transaction_runner
    return runner


async def _wake(background: BackgroundTasks, dispatcher: DispatcherDep) -> None:
    background.add_task(dispatcher.wake)


# For operations that enqueue emails: wakes the delivery after the response was sent.
WAKE_MAIL_DELIVERY = Depends(_wake)


# --- The session -----------------------------------------------------------------------------


async def get_session(request: Request, database: DatabaseDep) -> AsyncIterator[AsyncSession]:
    """Open the request's one transaction; commit it before the response leaves."""
    readonly = request.method in {"GET", "HEAD"}
    async with database.begin(readonly=readonly) as session:
        yield session


# The scope matters: with the default one the commit would follow the response.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


# --- The caller ------------------------------------------------------------------------------


class OptionalAuth(OAuth2PasswordBearer):
    """Find the caller; None without credentials. Bad credentials are refused, never ignored.

    Looked up before the request's transaction begins: no lock is held, and no second
    connection waited for, while a write hashes a password.
    """

    def __init__(self) -> None:
        super().__init__(
            tokenUrl=f"{API}/auth/login",
            refreshUrl=f"{API}/auth/login",
            scheme_name="OAuth2",
            description="Log in with email and password. The session has the permissions of your"
            " roles, or those of them that `scope` names.",
        )

    async def __call__(self, request: Request) -> Caller | None:  # type: ignore[override]  # more
        header_values = [
            value for name, value in request.scope["headers"] if name == b"authorization"
        ]
        if not header_values:
            return None
        scheme, _, token = header_values[0].decode("latin-1").partition(" ")
        if len(header_values) > 1:
            raise InvalidToken
        if scheme.lower() != "bearer":
            return None
        authenticator: TokenAuthenticator = request.app.state.authenticator
        caller = await authenticator.authenticate(token)
        request_context().user_id = caller.user_id
        return caller


class RequireAnyPermission(OptionalAuth):
    """Authenticate the caller; refuse one who holds none of the permissions of the operation."""

    async def __call__(  # type: ignore[override]  # FastAPI hands it the scopes
        self, request: Request, scopes: SecurityScopes
    ) -> Caller:
        caller = await super().__call__(request)
        if caller is None:
            raise Unauthenticated
        if scopes.scopes:
            require_any(caller, *permissions_of(scopes))
        return caller


class RequireAnyPermissionToWrite(RequireAnyPermission):
    """Do the same for an operation that writes in the request's session, and check the caller again
    by the first statement of its transaction.

    An operation that does something before the transaction (hash a password, look for a repeated
    request) takes `RequireAnyPermission` and calls `authorization.authorize_write` itself.
    """

    async def __call__(  # type: ignore[override]  # more than its base
        self, request: Request, scopes: SecurityScopes, session: SessionDep
    ) -> Caller:
        # What is known already refuses without a lock.
        caller = await super().__call__(request, scopes)
        return await authorization.authorize_write(session, caller, permissions_of(scopes))


def permissions_of(scopes: SecurityScopes) -> tuple[Permission, ...]:
    """Return the permissions that an operation asks for: any of them is enough."""
    return _permissions(*scopes.scopes)


@cache
def _permissions(*names: str) -> tuple[Permission, ...]:
    return tuple(map(Permission, names))


_to_read, _to_write = RequireAnyPermission(), RequireAnyPermissionToWrite()
OptionalCaller = Annotated[Caller | None, Depends(OptionalAuth())]


def require_any_permission(
    *permissions: Permission, dependency: RequireAnyPermission = _to_read
) -> Any:
    """Return the dependency that requires any of these permissions."""
    return Security(dependency, scopes=[*permissions])


def require_any_permission_to_write(*permissions: Permission) -> Any:
    """Return the dependency that requires any of these permissions and checks them again in the
    request's transaction."""
    return require_any_permission(*permissions, dependency=_to_write)


# Who reads.
CurrentCaller = Annotated[Caller, require_any_permission()]
UsersReader = Annotated[Caller, require_any_permission(Permission.users_read)]
RolesReader = Annotated[Caller, require_any_permission(Permission.roles_read)]
AuditReader = Annotated[Caller, require_any_permission(Permission.audit_read)]
OutboxReader = Annotated[Caller, require_any_permission(Permission.outbox_read)]
# Who writes.
ActingCaller = Annotated[Caller, require_any_permission_to_write()]
UsersWriter = Annotated[Caller, require_any_permission_to_write(Permission.users_write)]
RolesWriter = Annotated[Caller, require_any_permission_to_write(Permission.roles_write)]
RolesAssigner = Annotated[Caller, require_any_permission_to_write(Permission.roles_assign)]
PostsEditor = Annotated[
    Caller, require_any_permission_to_write(Permission.posts_write, Permission.posts_moderate)
]
OutboxWriter = Annotated[Caller, require_any_permission_to_write(Permission.outbox_write)]


# --- Rows: unknown or invisible is 404, visible but not yours is 403 -------------------------


_POST_EDIT_PERMISSIONS = {
    "edit_own": Permission.posts_write,
    "moderate": Permission.posts_moderate,
}


async def _post_for_update(
    post_id: Id, session: SessionDep, caller: PostsEditor, if_match: IfMatch
) -> Post:
    post = await posts.get_for_update(session, caller=caller, post_id=post_id)
    require_may_edit(caller, post, **_POST_EDIT_PERMISSIONS)
    require_version(if_match, post.version)
    return post


async def _post_for_restore(
    post_id: Id, session: SessionDep, caller: PostsEditor, if_match: IfMatch
) -> Post:
    post = await posts.get_for_restore(session, caller=caller, post_id=post_id)
    require_may_edit(caller, post, **_POST_EDIT_PERMISSIONS)
    require_version(if_match, post.version)
    return post


async def _managed_user(
    user_id: Id, session: SessionDep, caller: UsersWriter, if_match: IfMatch
) -> User:
    user = await users.get_for_update(session, user_id=user_id)
    require_may_manage(caller, user.permissions)
    await require_etag(
        if_match, partial(user_queries.show, session, caller=caller, user_id=user_id)
    )
    return user


async def _deleted_user(
    user_id: Id, session: SessionDep, caller: UsersWriter, if_match: IfMatch
) -> User:
    user = await users.get_for_update(session, user_id=user_id, include_deleted=True)
    require_may_manage(caller, user.permissions)
    await require_etag(
        if_match, partial(user_queries.show, session, caller=caller, user_id=user_id)
    )
    return user


async def _me(session: SessionDep, caller: ActingCaller) -> User:
    return await users.get_for_update(session, user_id=caller.user_id)


MyAccount = Annotated[User, Depends(_me)]


async def _me_for_update(
    user: MyAccount, session: SessionDep, caller: ActingCaller, if_match: IfMatch
) -> User:
    await require_etag(if_match, partial(user_queries.show_me, session, caller=caller))
    return user


async def _role_for_update(
    role_id: Id, session: SessionDep, caller: RolesWriter, if_match: IfMatch
) -> Role:
    role = await roles.get_for_update(session, role_id=role_id)
    # Before anything is compared: who may not change it learns nothing of it.
    require_holds(caller, role.permissions)
    await require_etag(if_match, partial(roles.show, session, role_id=role_id))
    return role


PostForUpdate = Annotated[Post, Depends(_post_for_update)]
PostForRestore = Annotated[Post, Depends(_post_for_restore)]
UserForUpdate = Annotated[User, Depends(_managed_user)]
UserForRestore = Annotated[User, Depends(_deleted_user)]
MeForUpdate = Annotated[User, Depends(_me_for_update)]
RoleForUpdate = Annotated[Role, Depends(_role_for_update)]


# --- Headers ---------------------------------------------------------------------------------


def location(request: Request, row_id: int) -> str:
    """Return where a new row of this collection is."""
    return f"{request.scope['path']}/{row_id}"
