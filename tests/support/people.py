"""People by the dozen: put into the database directly, logged in, so that worlds are cheap.

What tests are about goes over HTTP; how accounts are created and logged in to has its own tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import select

from app.core.permissions import USER_ROLE, Permission
from app.models.base import utc_now
from app.models.roles import Role, RolePermission
from app.models.sessions import LoginSession
from app.models.users import User, email_key
from app.resources import RESOURCES
from tests.support.client import PASSWORD, Client, Person

# What the role `user` grants, in the order in which permissions are returned.
_GRANTED = {name for each in RESOURCES for name in each.granted_to_users}
GRANTED_TO_USERS = [str(name) for name in Permission if name in _GRANTED]
_numbers = itertools.count(1)
# Hashed once: its cost is no part of what is tested.
_hashes: dict[str, str] = {}


async def new_user(client: Client, roles: Iterable[str] = (USER_ROLE,)) -> Person:
    """Create a user with these roles, logged in."""
    (person,) = await new_users(client, [*roles])
    return person


async def user_with(client: Client, *permissions: Permission) -> Person:
    """Create a user, logged in, whose only role grants exactly these permissions."""
    (person,) = await new_users(client, [granting(*permissions)])
    return person


def granting(*permissions: Permission) -> Role:
    """A new role with exactly these permissions."""
    granted = [RolePermission(permission=name) for name in permissions]
    return Role(name=f"role {next(_numbers)}", granted=granted)


async def new_users(client: Client, *roles_of_each: list[str | Role]) -> list[Person]:
    """Create a user for each list of roles, with an account, a session and a token."""
    if PASSWORD not in _hashes:
        _hashes[PASSWORD] = await client.app.state.passwords.hash(PASSWORD)
    async with client.database.begin() as session:
        known = {role.name: role for role in await session.scalars(select(Role))}
        users = [
            _new_user([known[role] if isinstance(role, str) else role for role in roles])
            for roles in roles_of_each
        ]
        session.add_all(users)
        await session.flush()
        now = utc_now()
        logins = [
            LoginSession(user_id=user.id, last_used_at=now, expires_at=now + timedelta(days=1))
            for user in users
        ]
        session.add_all(logins)
        await session.flush()
    return [_logged_in(client, login, user) for login, user in zip(logins, users, strict=True)]


def _new_user(roles: list[Role]) -> User:
    number = next(_numbers)
    email = f"person{number}@example.com"
    return User(
        email=email,
        email_key=email_key(email),
        name=f"Person {number}",
        phone=f"600{number:07}",
        password_hash=_hashes[PASSWORD],
        roles=roles,
    )


def _logged_in(client: Client, login: LoginSession, user: User) -> Person:
    token = client.app.state.tokens.issue(user_id=user.id, session_id=login.id)
    headers = {"Authorization": f"Bearer {token}"}
    account = {"id": user.id, "email": user.email, "name": user.name}
    return Person(client.http, client.app, client.contract, headers, account, token)
