"""Authorization: the permissions, the caller who holds them, and the rules over rows.

Permissions are granted to roles as data; which operation asks for which one stands in the
operation's own signature (`web/dependencies.py`). The rules that depend on a row or on another
person stand here, as pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar, Protocol

from pydantic_core import PydanticKnownError, core_schema

from app.core.exceptions import InsufficientScope


class _DeclaredPermissions(type):
    """Make `Permission` iterable, as an enum is, over what has been declared, in that order."""

    def __iter__(cls) -> Iterator[Permission]:
        return iter([*_DECLARED.values()])

    def __len__(cls) -> int:
        return len(_DECLARED)


class Permission(str, metaclass=_DeclaredPermissions):
    """What a role can grant, as `resource:action`; described in `app/locales/`."""

    # Not an enum: packages outside `app/` declare more, before the first request.
    __slots__ = ()
    users_read: ClassVar[Permission]
    users_write: ClassVar[Permission]
    roles_read: ClassVar[Permission]
    roles_write: ClassVar[Permission]
    roles_assign: ClassVar[Permission]
    posts_write: ClassVar[Permission]
    posts_moderate: ClassVar[Permission]
    audit_read: ClassVar[Permission]
    outbox_read: ClassVar[Permission]
    outbox_write: ClassVar[Permission]

    def __new__(cls, name: str) -> Permission:
        """Return the declared permission of this name; raise ValueError for any other."""
        if name not in _DECLARED:
            raise ValueError(f"{name!r} is not a declared permission")
        return _DECLARED[name]

    @classmethod
    def declare(cls, name: str, *, self_scoped: bool = False, granting: bool = False) -> Permission:
        """Return a new permission, or the one of this name.

        `self_scoped` and `granting` put it in `SELF_SCOPED_PERMISSIONS` and in `GRANTING`.
        """
        permission = _DECLARED.setdefault(name, str.__new__(cls, name))
        if self_scoped:
            SELF_SCOPED_PERMISSIONS.add(permission)
        if granting:
            GRANTING.add(permission)
        return permission

    @classmethod
    def _parse(cls, value: object) -> Permission:
        if isinstance(value, str) and value in _DECLARED:
            return _DECLARED[value]
        *others, last = (f"'{name}'" for name in _DECLARED)
        raise PydanticKnownError("enum", {"expected": f"{', '.join(others)} or {last}"})

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._parse, ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}"
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: object) -> dict[str, Any]:
        return {
            "type": "string",
            "enum": [*map(str, cls)],
            "title": cls.__name__,
            "description": cleandoc(cls.__doc__ or ""),
        }


_DECLARED: dict[str, Permission] = {}
# Permissions that reach no further than the rows of the user who holds them.
SELF_SCOPED_PERMISSIONS: set[Permission] = set()
# What can give, take or restore rights. Transactions behind one of these run one after the other
# (`crud/authorization.py`).
GRANTING: set[Permission] = set()
Permission.users_read = Permission.declare("users:read")
Permission.users_write = Permission.declare("users:write", granting=True)
Permission.roles_read = Permission.declare("roles:read")
Permission.roles_write = Permission.declare("roles:write", granting=True)
Permission.roles_assign = Permission.declare("roles:assign", granting=True)
Permission.posts_write = Permission.declare("posts:write", self_scoped=True)
Permission.posts_moderate = Permission.declare("posts:moderate")
Permission.audit_read = Permission.declare("audit:read")
Permission.outbox_read = Permission.declare("outbox:read")
Permission.outbox_write = Permission.declare("outbox:write")
ADMIN_ROLE = "admin"
USER_ROLE = "user"
SYSTEM_ROLES = frozenset({ADMIN_ROLE, USER_ROLE})


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated person behind a request.

    For a reading request as known of late; for a writing one as the database knows them in the
    request's transaction (`crud/authorization.py`).
    """

    user_id: int
    session_id: int
    permissions: frozenset[Permission]
    name: str = ""

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions


class HasAuthor(Protocol):
    """A row with an author."""

    @property
    def author_id(self) -> int: ...


def require_any(caller: Caller, *any_of: Permission) -> None:
    """Refuse a caller who holds none of the permissions (403, naming them)."""
    if not caller.permissions.intersection(any_of):
        raise InsufficientScope(any_of)


def require_may_edit(
    caller: Caller, row: HasAuthor, *, edit_own: Permission, moderate: Permission
) -> None:
    """Require `edit_own` or `moderate` for a row of the caller's, `moderate` for any other."""
    if row.author_id == caller.user_id and caller.may(edit_own):
        return
    require_any(caller, moderate)


def require_holds(caller: Caller, permissions: Iterable[Permission]) -> None:
    """Refuse a caller who gives or takes away permissions that they do not hold themselves."""
    missing = sorted(set(permissions) - caller.permissions)
    if missing:
        raise InsufficientScope(missing)


def require_may_manage(caller: Caller, permissions: Iterable[Permission]) -> None:
    """Refuse a caller who manages a user whose permissions reach further than theirs.

    Otherwise `users:write` would give access to an administrator's account.
    """
    require_holds(caller, set(permissions) - SELF_SCOPED_PERMISSIONS)


def reach_beyond_own_rows(permissions: Iterable[Permission]) -> bool:
    """Return whether permissions decide who may manage the user who holds them."""
    return not SELF_SCOPED_PERMISSIONS.issuperset(permissions)


def may_manage(caller: Caller, permissions: Iterable[Permission]) -> bool:
    """Return whether a caller may edit a user with these permissions: with `users:write`, by
    the rule of `require_may_manage`."""
    try:
        require_any(caller, Permission.users_write)
        require_may_manage(caller, permissions)
    except InsufficientScope:
        return False
    return True
