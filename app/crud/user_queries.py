"""Queries of accounts: one account, and lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic import MISSING
from sqlalchemy import Boolean, ColumnElement, Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import InvalidToken
from app.core.permissions import Caller, Permission
from app.db.paginated_queries import PaginatedQuery, count_of, filters_of, sought
from app.db.pagination import PageResult, Paginator
from app.db.projections import Projection, Source, references
from app.db.queries import PreparedQuery, QueryRunner
from app.db.rows import read_one
from app.db.search import Search
from app.db.selective_filters import FilterForm, SelectiveFilter
from app.db.transactions import session_transaction
from app.models.roles import Role
from app.models.search import UserSearch
from app.models.users import User, UserRole
from app.schemas import users as schemas

_PRIVATE = {"email": None, "phone": None, "birth_date": None}
_ROLES = select(Role.id).join(UserRole, UserRole.role_id == Role.id)
_EMAIL_VERIFIED = Source((User.email_verified_at,), lambda verified_at: verified_at is not None)
_PROJECTION = Projection(
    schemas.User,
    User,
    email_verified=_EMAIL_VERIFIED,
    roles=references(
        *(Role.id, Role.name), from_select=_ROLES.where(UserRole.user_id == User.id).correlate(User)
    ),
)
_MEMBER = Projection(schemas.Member, User, email_verified=_EMAIL_VERIFIED)
_THIS = _PROJECTION.select().where(User.id == bindparam("user_id"))
_BY_ID, _LIVE_OR_NOT = PreparedQuery(_THIS), PreparedQuery(_THIS, include_deleted=True)


async def read(reader: QueryRunner, *, user_id: int) -> dict[str, Any]:
    """Return the live user with their roles; raise NotFound otherwise."""
    return _PROJECTION.from_row(await read_one(reader, _BY_ID, user_id=user_id))


async def require(reader: QueryRunner, *, user_id: int) -> None:
    """Raise NotFound unless there is such a live user."""
    await read_one(reader, _BY_ID, user_id=user_id)


async def read_me(reader: QueryRunner, *, caller: Caller) -> dict[str, Any]:
    """Return the caller's own account with its permissions; raise InvalidToken for one that
    another process has deleted since the caller was authenticated."""
    rows = await reader.rows(_BY_ID, {"user_id": caller.user_id})
    if not rows:
        raise InvalidToken
    return _with_permissions(_PROJECTION.from_row(rows[0]), caller)


async def show(session: AsyncSession, *, caller: Caller, user_id: int) -> dict[str, Any]:
    """Return a (flushed) user as `read` would, live or in the trash; private fields only for
    `users:read`."""
    user = await show_all(session, user_id=user_id)
    return user if caller.may(Permission.users_read) else user | _PRIVATE


def as_shown(data: schemas.UserUpdate, *, caller: Caller) -> schemas.UserUpdate:
    """Return the changes without the private fields that the caller was shown as null and sends
    back so."""
    if caller.may(Permission.users_read):
        return data
    hidden = _PRIVATE.keys() & data.model_fields_set
    kept = {name for name in hidden if getattr(data, name) is None}
    return data.model_copy(update=dict.fromkeys(kept, MISSING))


async def show_all(session: AsyncSession, *, user_id: int) -> dict[str, Any]:
    """Return a (flushed) user, live or in the trash, with the private fields."""
    rows = await session_transaction(
        session, lambda transaction: transaction.rows(_LIVE_OR_NOT, user_id=user_id)
    )
    return _PROJECTION.from_row(rows[0])


async def show_me(session: AsyncSession, *, caller: Caller) -> dict[str, Any]:
    """Return the (flushed) account of the caller as `read_me` would."""
    return _with_permissions(await show_all(session, user_id=caller.user_id), caller)


def _with_permissions(shown: dict[str, Any], caller: Caller) -> dict[str, Any]:
    return shown | {"permissions": [name for name in Permission if caller.may(name)]}


async def list_users(
    paginator: Paginator, *, query: schemas.UserQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the users that match the filters, with their roles."""
    parameters = filters_of(query)
    form = FilterForm.selective
    if "role" in parameters:
        form = await _HAVING_ROLE.choose_form(paginator, query, parameters)
    words = sought(query)
    listing = _listing(query.deleted, tuple(parameters), form, is_search=bool(words))
    return await paginator.paginate(listing, query, parameters | words)


# By the column that is unique, of live roles.
_THE_ROLE = select(Role.id).where(Role.live_name == bindparam("role")).scalar_subquery()
_HAVING_ROLE = SelectiveFilter.by_association(
    User, select(UserRole.user_id).where(UserRole.role_id == _THE_ROLE)
)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "is_active": User.is_active == bindparam("is_active", type_=Boolean),
}


def _filtered_ids(deleted: bool, filters: tuple[str, ...], form: FilterForm) -> Select[Any]:
    conditions = [
        _HAVING_ROLE.filter(form) if name == "role" else _FILTERS[name] for name in filters
    ]
    filtered_ids = select(User.id).where(*conditions)
    return filtered_ids.where(User.can_be_restored()) if deleted else filtered_ids


@lru_cache(32)
def _listing(
    deleted: bool, filters: tuple[str, ...], form: FilterForm, *, is_search: bool
) -> PaginatedQuery:
    return PaginatedQuery(
        name="users",
        filtered_ids=_filtered_ids(deleted, filters, form),
        count_queries=(count_of(_filtered_ids(deleted, filters, FilterForm.count)),),
        id=User.id,
        sort_columns={"created_at": User.created_at, "name": User.name, "email": User.email},
        projection=_PROJECTION,
        include_deleted=deleted,
        search=Search.of(UserSearch, User.id) if is_search else None,
    )


_MEMBERS = SelectiveFilter.by_association(
    User, select(UserRole.user_id).where(UserRole.role_id == bindparam("role_id"))
)


@cache
def _members(form: FilterForm) -> PaginatedQuery:
    return PaginatedQuery(
        # Not by e-mail: the order, and the cursors, would disclose what the items hide.
        name="members",
        filtered_ids=select(User.id).where(_MEMBERS.filter(form)),
        count_queries=(count_of(select(User.id).where(_MEMBERS.filter(FilterForm.count))),),
        id=User.id,
        sort_columns={"created_at": User.created_at, "name": User.name},
        projection=_MEMBER,
    )


_ROLE = PreparedQuery(select(Role.id).where(Role.id == bindparam("role_id")))


async def list_members(
    paginator: Paginator, *, caller: Caller, role_id: int, query: schemas.MemberQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the users of a role, private fields only for `users:read`; raise NotFound
    if there is no such role."""
    parameters = {"role_id": role_id}
    form = await _MEMBERS.choose_form(paginator, query, parameters)
    page = await paginator.paginate(_members(form), query, parameters)
    # Only an empty page leaves open whether there is such a role: one statement less otherwise.
    if not page.items:
        await read_one(paginator.reader, _ROLE, role_id=role_id)
    return page if caller.may(Permission.users_read) else page.of(lambda item: item | _PRIVATE)
