"""An HTTP client that knows people: each has an account, a token and a few verbs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI
from sqlalchemy import select

from app.core.permissions import ADMIN_ROLE, Permission
from app.db.engine import Database
from app.models.roles import Role, RolePermission
from app.models.users import User, UserRole
from tests.support import canaries
from tests.support.openapi import Contract

API = "/api/v1"
PASSWORD = canaries.PASSWORD
_numbers = itertools.count(1)


@dataclass
class Client:
    """Sends requests and checks every response against the contract."""

    http: httpx2.AsyncClient
    app: FastAPI
    contract: Contract
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        found: Database = self.app.state.database
        return found

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        url = (
            path if path.startswith(("/api", "/health", "/errors", "/.well-known")) else API + path
        )
        headers = self.headers | dict(options.pop("headers", {}))
        response = await self.http.request(method, url, headers=headers, **options)
        self.contract.check(response)
        return response

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.request("POST", path, json=json, **options)

    async def put(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.request("PUT", path, json=json, **options)

    async def patch(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.request("PATCH", path, json=json, **options)

    async def delete(self, path: str, json: Any = None, **options: Any) -> httpx2.Response:
        return await self.request("DELETE", path, json=json, **options)

    # --- People ---------------------------------------------------------------------------

    async def register(self, name: str = "Ana", **fields: Any) -> dict[str, Any]:
        """A new account, as its owner makes it; the response's body."""
        number = next(_numbers)
        body = {"email": f"user{number}@example.com", "name": name, "password": PASSWORD}
        response = await self.post("/auth/register", body | fields)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    async def login(self, email: str, password: str = PASSWORD) -> str:
        """A bearer token."""
        token: str = (await self.log_in(email, password))["access_token"]
        return token

    async def log_in(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        """A new session's tokens, as the login answers them."""
        form = {"username": email, "password": password}
        response = await self.request("POST", "/auth/login", data=form)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def user(self, name: str = "Ana", **fields: Any) -> Person:
        """Register and log in a user with the role `user`."""
        return await self.person(await self.register(name, **fields))

    async def person(self, account: dict[str, Any], password: str = PASSWORD) -> Person:
        """An account's owner, logged in."""
        token = await self.login(account["email"], password)
        headers = {"Authorization": f"Bearer {token}"}
        return Person(self.http, self.app, self.contract, headers, account, token)

    async def admin(self, name: str = "Root") -> Person:
        """Register and log in a user with the role `admin`."""
        account = await self.register(name)
        await self._give(account["id"], ADMIN_ROLE)
        return await self.person(account)

    async def user_with(self, *permissions: Permission, name: str = "Member") -> Person:
        """Create a user whose only role grants exactly these permissions, logged in."""
        account = await self.register(name)
        async with self.database.begin() as session:
            user = await session.get_one(User, account["id"])
            granted = [RolePermission(permission=permission) for permission in permissions]
            role = Role(name=f"member {account['id']}", granted=granted)
            session.add(role)
            await session.flush()
            for link in await session.scalars(select(UserRole).where(UserRole.user_id == user.id)):
                await session.delete(link)
            session.add(UserRole(user_id=user.id, role_id=role.id))
        return await self.person(account)

    async def moderator(self, name: str = "Mod") -> Person:
        """Register and log in a user who may write posts and moderate everybody's."""
        return await self.user_with(Permission.posts_write, Permission.posts_moderate, name=name)

    async def _give(self, user_id: int, role_name: str) -> None:
        async with self.database.begin() as session:
            role_id = await session.scalar(select(Role.id).where(Role.name == role_name))
            session.add(UserRole(user_id=user_id, role_id=role_id))


@dataclass
class Person(Client):
    """A client with a user's token."""

    account: dict[str, Any] = field(default_factory=dict)
    token: str = ""

    @property
    def id(self) -> int:
        return int(self.account["id"])

    @property
    def email(self) -> str:
        return str(self.account["email"])

    async def write(self, title: str = "A title", **fields: Any) -> dict[str, Any]:
        """A published post of theirs; the response's body."""
        body = {"title": title, "content": "Some content.", "status": "published"}
        response = await self.post("/posts", body | fields)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found
