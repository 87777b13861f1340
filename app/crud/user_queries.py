"""What is shown of accounts, one by one and in listings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from pydantic import MISSING
from sqlalchemy import Boolean, ColumnElement, Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import InvalidToken
from app.core.permissions import Caller, Permission
from app.db.holders import Held, Holders
from app.db.paginated_queries import PaginatedQuery, count_of, filters_of, sought
from app.db.pagination import PageResult, Paginator
from app.db.projections import rows_as_text, split_rows
from app.db.queries import PreparedQuery, QueryRunner
from app.db.rows import read_one
from app.db.search import Search
from app.db.transactions import session_transaction
from app.models.roles import Role
from app.models.search import UserSearch
from app.models.users import User, UserRole
from app.schemas.users import (
    MemberQuery,
    UserQuery,
    UserUpdate,
)

_PRIVATE = {"email": None, "phone": None, "birth_date": None}
_ROLES = select(Role.id).join(UserRole, UserRole.role_id == Role.id)
_PERSON = (
    *(User.id, User.email, User.name, User.phone, User.birth_date, User.locale, User.is_active),
    *(User.email_verified_at, User.created_at, User.updated_at),
)
_COLUMNS = (
    *(*_PERSON, User.deleted_at),
    rows_as_text(
        *(Role.id, Role.name),
        of=_ROLES.where(UserRole.user_id == User.id).correlate(User),
    ),
)
_THIS = select(*_COLUMNS).where(User.id == bindparam("user_id"))
_ONE, _LIVE_OR_NOT = PreparedQuery(_THIS), PreparedQuery(_THIS, include_deleted=True)


def _person(row: tuple[Any, ...]) -> dict[str, Any]:
    id_, email, name, phone, birth_date, locale, is_active, verified_at, created, updated = row[:10]
    return {
        "id": id_,
        "email": email,
        "name": name,
        "phone": phone,
        "birth_date": birth_date,
        "locale": locale,
        "is_active": is_active,
        "email_verified": verified_at is not None,
        "created_at": created,
        "updated_at": updated,
    }


def _as_dict(row: tuple[Any, ...]) -> dict[str, Any]:
    """An account as `schemas.users.User` describes it."""
    deleted_at, roles = row[10:12]
    found = [{"id": int(id_), "name": name} for id_, name in split_rows(roles)]
    found.sort(key=lambda role: str(role["name"]))
    return _person(row) | {"roles": found, "deleted_at": deleted_at}


async def read(reader: QueryRunner, *, user_id: int) -> dict[str, Any]:
    """A live user with their roles, or NotFound."""
    return _as_dict(await read_one(reader, _ONE, user_id=user_id))


async def require(reader: QueryRunner, *, user_id: int) -> None:
    """Raise NotFound unless there is such a live user."""
    await read_one(reader, _ONE, user_id=user_id)


async def read_me(reader: QueryRunner, *, caller: Caller) -> dict[str, Any]:
    """The caller's own account, with what its roles permit. Raises InvalidToken for one that
    another process has deleted since the caller was looked up."""
    rows = await reader.rows(_ONE, {"user_id": caller.user_id})
    if not rows:
        raise InvalidToken
    return _with_permissions(_as_dict(rows[0]), caller)


async def show(session: AsyncSession, *, caller: Caller, user_id: int) -> dict[str, Any]:
    """A (flushed) user as reading them would find them, live or in the trash; what is private
    about them only for `users:read`."""
    found = await show_all(session, user_id=user_id)
    return found if caller.may(Permission.users_read) else found | _PRIVATE


def as_shown(data: UserUpdate, *, caller: Caller) -> UserUpdate:
    """Return the changes that a caller can mean: what they are shown as null, and send back so,
    they leave as it is."""
    if caller.may(Permission.users_read):
        return data
    hidden = _PRIVATE.keys() & data.model_fields_set
    kept = {name for name in hidden if getattr(data, name) is None}
    return data.model_copy(update=dict.fromkeys(kept, MISSING))


async def show_all(session: AsyncSession, *, user_id: int) -> dict[str, Any]:
    """The same, with what is private."""
    rows = await session_transaction(
        session, lambda transaction: transaction.rows(_LIVE_OR_NOT, user_id=user_id)
    )
    return _as_dict(rows[0])


async def show_me(session: AsyncSession, *, caller: Caller) -> dict[str, Any]:
    """The (flushed) account of the caller, as `read_me` would find it."""
    return _with_permissions(await show_all(session, user_id=caller.user_id), caller)


def _with_permissions(shown: dict[str, Any], caller: Caller) -> dict[str, Any]:
    return shown | {"permissions": [name for name in Permission if caller.may(name)]}


async def list_users(paginator: Paginator, *, query: UserQuery) -> PageResult[dict[str, Any]]:
    """Users that match the filters, with their roles."""
    given = filters_of(query)
    held = Held.few
    if "role" in given:
        held = await _HAVING_ROLE.held(paginator, query, given)
    words = sought(query)
    listing = _listing(query.deleted, tuple(given), held, is_search=bool(words))
    return await paginator.paginate(listing, query, given | words)


# By the column that is unique, of live roles.
_THE_ROLE = select(Role.id).where(Role.live_name == bindparam("role")).scalar_subquery()
_HAVING_ROLE = Holders.of(User, select(UserRole.user_id).where(UserRole.role_id == _THE_ROLE))
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "is_active": User.is_active == bindparam("is_active", type_=Boolean),
}


def _matching(deleted: bool, filters: tuple[str, ...], held: Held) -> Select[Any]:
    conditions = [
        _HAVING_ROLE.filter(held) if name == "role" else _FILTERS[name] for name in filters
    ]
    matching = select(User.id).where(*conditions)
    return matching.where(User.can_be_restored()) if deleted else matching


@lru_cache(32)
def _listing(
    deleted: bool, filters: tuple[str, ...], held: Held, *, is_search: bool
) -> PaginatedQuery[dict[str, Any]]:
    return PaginatedQuery(
        name="users",
        matching=_matching(deleted, filters, held),
        count_queries=(count_of(_matching(deleted, filters, Held.count)),),
        id=User.id,
        keys={"created_at": User.created_at, "name": User.name, "email": User.email},
        rows=lambda page: select(*_COLUMNS).join(page, page.c.id == User.id),
        item=_as_dict,
        include_deleted=deleted,
        search=Search.of(UserSearch, User.id) if is_search else None,
    )


_MEMBERS = Holders.of(
    User, select(UserRole.user_id).where(UserRole.role_id == bindparam("role_id"))
)


@cache
def _members(held: Held) -> PaginatedQuery[dict[str, Any]]:
    return PaginatedQuery(
        # Not by e-mail: the order, and the cursors, would tell what the items hide.
        name="members",
        matching=select(User.id).where(_MEMBERS.filter(held)),
        count_queries=(count_of(select(User.id).where(_MEMBERS.filter(Held.count))),),
        id=User.id,
        keys={"created_at": User.created_at, "name": User.name},
        rows=lambda page: select(*_PERSON).join(page, page.c.id == User.id),
        item=_person,
    )


_ROLE = PreparedQuery(select(Role.id).where(Role.id == bindparam("role_id")))


async def list_members(
    paginator: Paginator, *, caller: Caller, role_id: int, query: MemberQuery
) -> PageResult[dict[str, Any]]:
    """Users who have a role, or NotFound; with what is private about them only for `users:read`."""
    given = {"role_id": role_id}
    held = await _MEMBERS.held(paginator, query, given)
    page = await paginator.paginate(_members(held), query, given)
    # Only an empty page leaves open whether there is such a role: one statement less otherwise.
    if not page.items:
        await read_one(paginator.reader, _ROLE, role_id=role_id)
    return page if caller.may(Permission.users_read) else page.of(lambda item: item | _PRIVATE)
