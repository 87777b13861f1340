"""What is shown of accounts, one by one and in listings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Boolean, ColumnElement, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import InvalidToken
from app.core.permissions import Caller, Permission
from app.crud.base import (
    gathered,
    read_one,
    scattered_rows,
)
from app.crud.listings import Listing, contains, filters_of
from app.crud.pages import PageOf, Pages
from app.models.roles import Role
from app.models.users import User, UserRole
from app.reading import Query, Reader
from app.schemas.users import (
    MemberQuery,
    UserQuery,
)
from app.writing import in_session

_PRIVATE = {"email": None, "phone": None, "birth_date": None}
_ROLES = select(Role.id).join(UserRole, UserRole.role_id == Role.id)
_PERSON = (
    *(User.id, User.email, User.name, User.phone, User.birth_date, User.locale, User.is_active),
    *(User.email_verified_at, User.created_at, User.updated_at),
)
_SHOWN = (
    *(*_PERSON, User.deleted_at),
    gathered(
        *(Role.id, Role.name),
        of=_ROLES.where(UserRole.user_id == User.id).correlate(User),
    ),
)
_THIS = select(*_SHOWN).where(User.id == bindparam("user_id"))
_ONE, _LIVE_OR_NOT = Query(_THIS), Query(_THIS, include_deleted=True)


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


def _item(row: tuple[Any, ...]) -> dict[str, Any]:
    """An account as `schemas.users.User` describes it."""
    deleted_at, roles = row[10:12]
    found = [{"id": int(id_), "name": name} for id_, name in scattered_rows(roles)]
    found.sort(key=lambda role: str(role["name"]))
    return _person(row) | {"roles": found, "deleted_at": deleted_at}


async def read(reader: Reader, *, user_id: int) -> dict[str, Any]:
    """A live user with their roles, or NotFound."""
    return _item(await read_one(reader, _ONE, user_id=user_id))


async def require(reader: Reader, *, user_id: int) -> None:
    """Raise NotFound unless there is such a live user."""
    await read_one(reader, _ONE, user_id=user_id)


async def read_me(reader: Reader, *, caller: Caller) -> dict[str, Any]:
    """The caller's own account, with what its roles permit. Raises InvalidToken for one that
    another process has deleted since the caller was looked up."""
    rows = await reader.rows(_ONE, {"user_id": caller.user_id})
    if not rows:
        raise InvalidToken
    return _with_permissions(_item(rows[0]), caller)


async def show(session: AsyncSession, *, caller: Caller, user_id: int) -> dict[str, Any]:
    """A (flushed) user as reading them would find them, live or in the trash; what is private
    about them only for `users:read`."""
    found = await show_all(session, user_id=user_id)
    return found if caller.may(Permission.users_read) else found | _PRIVATE


async def show_all(session: AsyncSession, *, user_id: int) -> dict[str, Any]:
    """The same, with what is private."""
    rows = await in_session(session, lambda unit: unit.rows(_LIVE_OR_NOT, user_id=user_id))
    return _item(rows[0])


async def show_me(session: AsyncSession, *, caller: Caller) -> dict[str, Any]:
    """The (flushed) account of the caller, as `read_me` would find it."""
    return _with_permissions(await show_all(session, user_id=caller.user_id), caller)


def _with_permissions(shown: dict[str, Any], caller: Caller) -> dict[str, Any]:
    return shown | {"permissions": [name for name in Permission if caller.may(name)]}


async def list_users(pages: Pages, *, query: UserQuery) -> PageOf[dict[str, Any]]:
    """Users that match the filters, with their roles."""
    given = filters_of(query)
    return await pages.page(_listing(query.deleted, tuple(given)), query, given)


_HAVING = select(UserRole.user_id).join(Role, Role.id == UserRole.role_id)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "is_active": User.is_active == bindparam("is_active", type_=Boolean),
    "role": User.id.in_(_HAVING.where(Role.name == bindparam("role"))),
    "q": or_(contains(User.name, "q"), contains(User.email, "q")),
}


@lru_cache(32)
def _listing(deleted: bool, filters: tuple[str, ...]) -> Listing[dict[str, Any]]:
    matching = select(User.id).where(*(_FILTERS[name] for name in filters))
    return Listing(
        name="users",
        matching=matching.where(User.can_be_restored()) if deleted else matching,
        id=User.id,
        keys={"created_at": User.created_at, "name": User.name, "email": User.email},
        rows=lambda page: select(*_SHOWN).join(page, page.c.id == User.id),
        item=_item,
        include_deleted=deleted,
    )


_MEMBERS = Listing(
    # Not by e-mail: the order, and the cursors, would tell what the items hide.
    name="members",
    matching=select(User.id).where(
        User.id.in_(select(UserRole.user_id).where(UserRole.role_id == bindparam("role_id")))
    ),
    id=User.id,
    keys={"created_at": User.created_at, "name": User.name},
    rows=lambda page: select(*_PERSON).join(page, page.c.id == User.id),
    item=_person,
)
_ROLE = Query(select(Role.id).where(Role.id == bindparam("role_id")))


async def list_members(
    pages: Pages, *, caller: Caller, role_id: int, query: MemberQuery
) -> PageOf[dict[str, Any]]:
    """Users who have a role, or NotFound; with what is private about them only for `users:read`."""
    page = await pages.page(_MEMBERS, query, {"role_id": role_id})
    # Only an empty page leaves open whether there is such a role: one statement less otherwise.
    if not page.items:
        await read_one(pages.reader, _ROLE, role_id=role_id)
    return page if caller.may(Permission.users_read) else page.of(lambda item: item | _PRIVATE)
