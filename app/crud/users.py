"""Accounts: made, found, changed, put in the trash and taken out of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Boolean, ColumnElement, bindparam, or_, select
from sqlalchemy import update as sql_update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.core.context import request_context
from app.core.exceptions import (
    EmailTaken,
    FieldError,
    Invalid,
    WrongCurrentPassword,
)
from app.core.passwords import MAX_PASSWORD, MIN_LENGTH, Policy, weaknesses
from app.core.permissions import ADMIN_ROLE, USER_ROLE, Caller, Permission
from app.core.security import Passwords
from app.crud import admins, outbox, sessions
from app.crud.base import (
    flush_or_conflict,
    flush_out,
    gathered,
    one_or_404,
    read_one,
    scattered_rows,
)
from app.crud.listings import Listing, contains, filters_of
from app.crud.pages import PageOf, Pages
from app.database import Database
from app.models.base import INCLUDE_DELETED
from app.models.outbox import MailKind
from app.models.posts import Post
from app.models.roles import Role
from app.models.users import User, UserRole, email_key
from app.reading import Query, Reader
from app.schemas.users import (
    ManagedUser,
    MemberQuery,
    ProfileUpdate,
    Registration,
    UserCreate,
    UserQuery,
    UserUpdate,
    normal_email,
)

_PRIVATE = {"email": None, "phone": None, "birth_date": None}
_EMAIL_CONFLICT = {"uq_users_live_email": EmailTaken}
_WITH_PERMISSIONS = selectinload(User.roles).selectinload(Role.granted)
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
_ONE = Query(select(*_SHOWN).where(User.id == bindparam("user_id")))


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


async def register(
    session: AsyncSession, *, data: Registration, passwords: Passwords, policy: Policy
) -> User:
    """A new account with the role `user`, and its welcome mail, in one transaction.

    Raises Invalid for a weak password and EmailTaken.
    """
    refuse_weak(data.password, policy, email=data.email, name=data.name)
    password_hash = await passwords.hash(data.password)
    user = User(
        **data.model_dump(exclude={"password"}),
        email_key=email_key(data.email),
        password_hash=password_hash,
        locale=request_context().locale,
    )
    await _add(session, user, roles=[USER_ROLE])
    outbox.enqueue(session, MailKind.welcome, user)
    await session.flush()
    return user


async def create(session: AsyncSession, *, data: UserCreate) -> User:
    """A new account without a password, with the role `user`. Raises EmailTaken."""
    user = User(**data.model_dump(), email_key=email_key(data.email))
    await _add(session, user, roles=[USER_ROLE])
    return user


async def create_admin(session: AsyncSession, *, email: str, name: str, password_hash: str) -> User:
    """An account with the role `admin`. Raises EmailTaken."""
    user = User(email=email, email_key=email_key(email), name=name, password_hash=password_hash)
    await _add(session, user, roles=[ADMIN_ROLE, USER_ROLE])
    return user


async def _add(session: AsyncSession, user: User, *, roles: list[str]) -> None:
    user.roles = list(await session.scalars(select(Role).where(Role.name.in_(roles))))
    session.add(user)
    await flush_or_conflict(session, _EMAIL_CONFLICT)


def refuse_weak(password: str, policy: Policy, *, email: str, name: str) -> None:
    """Raise Invalid, with every reason, for a password the policy refuses."""
    bounds = {"min": MIN_LENGTH[policy], "max": MAX_PASSWORD}
    found = weaknesses(password, policy, email, name)
    if found:
        raise Invalid([FieldError("password", reason, bounds) for reason in found])


async def find_credentials(session: AsyncSession, *, email: str) -> User | None:
    """The live account with an address, disabled or not; None when there is none."""
    known = normal_email(email)
    if known is None:
        return None
    return await session.scalar(select(User).where(User.live_email == email_key(known)))


async def lock_unchanged(session: AsyncSession, account: User) -> User | None:
    """The account again, locked, if it is still what was verified."""
    statement = select(User).where(
        User.id == account.id, User.password_hash == account.password_hash, User.is_active
    )
    return await session.scalar(statement.with_for_update())


async def read(reader: Reader, *, user_id: int) -> dict[str, Any]:
    """A live user with their roles, or NotFound."""
    return _item(await read_one(reader, _ONE, user_id=user_id))


async def require(reader: Reader, *, user_id: int) -> None:
    """Raise NotFound unless there is such a live user."""
    await read_one(reader, _ONE, user_id=user_id)


async def read_me(reader: Reader, *, caller: Caller) -> dict[str, Any]:
    """The caller's own account, with what its roles permit."""
    permitted = [name for name in Permission if caller.may(name)]
    return await read(reader, user_id=caller.user_id) | {"permissions": permitted}


async def get_for_update(
    session: AsyncSession, *, user_id: int, include_deleted: bool = False
) -> User:
    """A user, locked, with their roles and what these permit, or NotFound."""
    statement = select(User).where(User.id == user_id).options(_WITH_PERMISSIONS)
    statement = statement.execution_options(**{INCLUDE_DELETED: include_deleted})
    return await one_or_404(session, statement.with_for_update(of=User))


async def update(session: AsyncSession, *, user: User, data: ProfileUpdate | UserUpdate) -> User:
    """Apply what the body holds. Disabling ends every session; raises LastAdmin."""
    changes: dict[str, Any] = data.model_dump()
    if user.is_active and changes.get("is_active") is False:
        await admins.keep_an_admin(session, without=user.id)
        await sessions.end_all(session, user_id=user.id)
    for name, value in changes.items():
        setattr(user, name, value)
    await session.flush()
    return user


async def confirm_password(
    database: Database, *, passwords: Passwords, user_id: int, password: str
) -> None:
    """Raise WrongCurrentPassword unless it is the user's. Holds no transaction meanwhile."""
    async with database.begin(readonly=True) as session:
        stored = await session.scalar(select(User.password_hash).where(User.id == user_id))
    matches, _ = await passwords.verify(password, stored)
    if not matches:
        raise WrongCurrentPassword


async def soft_delete(session: AsyncSession, *, user: User) -> None:
    """Put a user and their live posts in the trash and end their sessions; raises LastAdmin."""
    await admins.keep_an_admin(session, without=user.id)
    user.soft_delete()
    await flush_out(session, user)
    await session.execute(
        sql_update(Post)
        .where(Post.author_id == user.id)
        # A post that comes back is the post that went: same version, same last change.
        .values(deleted_at=user.deleted_at, deleted_with_author=True, updated_at=Post.updated_at)
    )
    await sessions.end_all(session, user_id=user.id)


async def restore(session: AsyncSession, *, user: User) -> User:
    """Take a user out of the trash, with the posts that went in with them.

    Raises EmailTaken when somebody else has the address by now. A live user stays as they are.
    """
    if user.deleted_at is not None:
        user.restore()
        await flush_or_conflict(session, _EMAIL_CONFLICT)
        await session.execute(
            sql_update(Post)
            .where(Post.author_id == user.id, Post.deleted_with_author)
            .values(deleted_at=None, deleted_with_author=False, updated_at=Post.updated_at)
            .execution_options(**{INCLUDE_DELETED: True})
        )
    return user


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
        matching=matching.where(User.deleted_at.is_not(None)) if deleted else matching,
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


def shown_to(caller: Caller, shown: ManagedUser) -> ManagedUser:
    """What a caller sees of somebody: what is private only with `users:read`."""
    return shown if caller.may(Permission.users_read) else shown.model_copy(update=_PRIVATE)
