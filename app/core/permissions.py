"""Who may do what: the permissions, the caller who holds them, and the rules over rows.

Permissions are granted to roles as data; which operation asks for which one stands in the
operation's own signature (`routers/deps.py`). The rules that depend on a row or on another
person stand here, as pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from app.core.exceptions import InsufficientScope


class Permission(StrEnum):
    """What a role can grant, as `resource:action`; described in `app/locales/`."""

    users_read = "users:read"
    users_write = "users:write"
    roles_read = "roles:read"
    roles_write = "roles:write"
    roles_assign = "roles:assign"
    posts_write = "posts:write"
    posts_moderate = "posts:moderate"
    audit_read = "audit:read"
    outbox_read = "outbox:read"
    outbox_write = "outbox:write"


# What reaches no further than what one has made oneself.
OWN_ROWS = frozenset({Permission.posts_write})
# What can give, take or restore rights. Transactions behind one of these run one after the other
# (`crud/authorization.py`).
GRANTING = frozenset({Permission.users_write, Permission.roles_write, Permission.roles_assign})
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


class Owned(Protocol):
    """A row somebody wrote."""

    @property
    def author_id(self) -> int: ...


def require(caller: Caller, *any_of: Permission) -> None:
    """Refuse a caller who holds none of the permissions (403, naming them)."""
    if not caller.permissions.intersection(any_of):
        raise InsufficientScope(any_of)


def require_may_edit(caller: Caller, post: Owned) -> None:
    """One's own posts with `posts:write`, anybody's with `posts:moderate`."""
    if post.author_id == caller.user_id and caller.may(Permission.posts_write):
        return
    require(caller, Permission.posts_moderate)


def require_holds(caller: Caller, permissions: Iterable[Permission]) -> None:
    """Nobody gives or takes away what they do not hold themselves."""
    missing = sorted(set(permissions) - caller.permissions)
    if missing:
        raise InsufficientScope(missing)


def require_may_manage(caller: Caller, permissions: Iterable[Permission]) -> None:
    """Nobody changes, disables or deletes somebody whose permissions reach further than theirs.

    Else `users:write` would be the way to the top: to an administrator's account.
    """
    require_holds(caller, set(permissions) - OWN_ROWS)


def reach_beyond_own_rows(permissions: Iterable[Permission]) -> bool:
    """Return whether permissions decide who may manage the user who holds them."""
    return not OWN_ROWS.issuperset(permissions)


def may_manage(caller: Caller, permissions: Iterable[Permission]) -> bool:
    """Return whether a caller may edit a user with these permissions: with `users:write`, by
    the rule of `require_may_manage`."""
    try:
        require(caller, Permission.users_write)
        require_may_manage(caller, permissions)
    except InsufficientScope:
        return False
    return True
