"""Two API processes on two nodes of a Galera cluster of three, and the people who use them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Select, func, select, text

from app.core.permissions import Permission
from app.core.security import Passwords
from app.db.engine import Database, connect
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.one_time_tokens import OneTimeToken, Purpose
from app.models.roles import Role, RolePermission
from app.models.sessions import LoginSession
from app.models.users import User, UserRole, email_key
from tests.conftest import CHEAP, make_settings
from tests.faults.worlds import http_to, ready
from tests.support import canaries
from tests.support.client import API, PASSWORD
from tests.support.galera import Cluster, galera_cluster, provider
from tests.support.process import environment, run_command, serving

DATABASE = "cimiento"
# What a race may be answered; anything else is a defect.
ANSWERS = {200, 201, 202, 204, 400, 401, 403, 404, 409, 412, 422, 503}
_numbers = itertools.count(1)


@dataclass
class Person:
    """A user who is logged in, on whichever node."""

    id: int
    email: str
    headers: dict[str, str] = field(default_factory=dict)
    refresh_token: str = ""


@dataclass
class Nodes:
    """A client and a database a node; the databases wait for what the others have committed."""

    cluster: Cluster
    clients: list[httpx2.AsyncClient]
    databases: list[Database]
    password_hash: str
    overlapping: int = 0  # rounds in which all requests were under way at one moment
    requests: int = 0
    acknowledged: int = 0

    def reset_counts(self) -> None:
        """Count anew."""
        self.overlapping = self.requests = self.acknowledged = 0

    async def send(
        self,
        node: int,
        who: Person | None,
        method: str,
        path: str,
        json: Any = None,
        *,
        after: float = 0,
        **more: Any,
    ) -> httpx2.Response:
        """A request to one node, `after` so many seconds."""
        if after:
            await asyncio.sleep(after)
        headers = (who.headers if who else {}) | more.pop("headers", {})
        client = self.clients[node]
        return await client.request(method, API + path, json=json, headers=headers, **more)

    async def race(self, *requests: Awaitable[httpx2.Response]) -> list[httpx2.Response]:
        """Requests at once, when every node has what was committed so far; refuses defects."""
        for database in self.databases:
            async with database.begin() as session:
                await session.scalar(text("SELECT 1"))
        loop = asyncio.get_running_loop()

        async def timed(each: Awaitable[httpx2.Response]) -> tuple[float, httpx2.Response, float]:
            began = loop.time()
            return began, await each, loop.time()

        done = await asyncio.gather(*map(timed, requests))
        self.overlapping += max(each[0] for each in done) < min(each[2] for each in done)
        self.requests += len(done)
        self.acknowledged += sum(response.is_success for _, response, _ in done)
        for _, response, _ in done:
            assert response.status_code in ANSWERS, (response.status_code, response.text)
        return [response for _, response, _ in done]

    async def count(self, statement: Select[int]) -> int:
        """A number, the trash included, as every node finds it."""
        found = set()
        for database in self.databases:
            async with database.begin() as session:
                options = {INCLUDE_DELETED: True}
                found.add(await session.scalar(statement, execution_options=options))
        [number] = found
        return number or 0

    async def person(self, *roles: str, name: str = "Ana", log_in: bool = True) -> Person:
        """An account, written past the API, and logged in."""
        number = next(_numbers)
        email = f"racer{number}@example.com"
        async with self.databases[0].begin() as session:
            user = User(email=email, email_key=email_key(email), name=name)
            user.password_hash, user.email_verified_at = self.password_hash, utc_now()
            user.roles = list(await session.scalars(select(Role).where(Role.name.in_(roles))))
            session.add(user)
            await session.flush()
            found = Person(user.id, email)
        return await self.log_in(found) if log_in else found

    async def role(self, *permissions: Permission) -> tuple[int, str]:
        """A new role: its id and name."""
        async with self.databases[0].begin() as session:
            granted = [RolePermission(permission=each) for each in permissions]
            role = Role(name=f"role {next(_numbers)}", granted=granted)
            session.add(role)
            await session.flush()
            return role.id, role.name

    async def log_in(self, who: Person) -> Person:
        """The same person, in a new session."""
        answer = await self.clients[0].post(
            f"{API}/auth/login", data={"username": who.email, "password": PASSWORD}
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        who.headers = {"Authorization": f"Bearer {body['access_token']}"}
        who.refresh_token = body["refresh_token"]
        return who

    async def link(self, who: Person, purpose: Purpose, email: str = "") -> str:
        """The token of a link that was mailed to the user."""
        token = secrets.token_hex(32)
        async with self.databases[0].begin() as session:
            row = OneTimeToken(user_id=who.id, purpose=purpose, email=email or who.email)
            row.token_hash = hashlib.sha256(token.encode()).hexdigest()
            row.expires_at = utc_now() + timedelta(hours=1)
            session.add(row)
        return token

    async def change(self, *statements: Any) -> None:
        """Change rows past the API."""
        async with self.databases[0].begin() as session:
            for statement in statements:
                await session.execute(statement, execution_options={INCLUDE_DELETED: True})


def live_sessions(who: Person) -> Select[int]:
    """The sessions of a user that are not over."""
    live = LoginSession.ended_at.is_(None), LoginSession.user_id == who.id
    return select(func.count()).select_from(LoginSession).where(*live)


def role_members(role_id: int) -> Select[int]:
    """Rows that say that a user has a role."""
    return select(func.count()).select_from(UserRole).where(UserRole.role_id == role_id)


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster for all tests of this process."""
    if not provider():
        if os.environ.get("CI"):
            pytest.fail("Galera is not installed: mariadb-server, galera-4, rsync")
        pytest.skip("Galera is not installed")
    async with galera_cluster() as found:
        yield found


@pytest.fixture(scope="session")
async def nodes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """The API on two nodes, on a migrated database."""
    folder = tmp_path_factory.mktemp("nodes")
    cluster.nodes[0].make_database(DATABASE)
    environments = [env_of(node.url(DATABASE), folder) for node in cluster.nodes[:2]]
    status, _, complaint = await run_command("migrate", cwd=folder, env=environments[0])
    assert status == 0, complaint
    async with AsyncExitStack() as stack:
        clients, databases = [], []
        for node, env in zip(cluster.nodes[:2], environments, strict=True):
            server = await stack.enter_async_context(serving(folder, env))
            await ready(server)
            clients.append(await stack.enter_async_context(http_to(server.url, timeout=30)))
            database = connect(make_settings(node.url(DATABASE), folder))
            stack.push_async_callback(database.dispose)
            databases.append(database)
        password_hash = await Passwords(CHEAP).hash(PASSWORD)
        yield Nodes(cluster, clients, databases, password_hash)


def env_of(url: str, folder: Path) -> dict[str, str]:
    """Settings of a process on a node; all of them share their keys."""
    return environment(
        data_dir=folder / "data",
        database_url=url,
        secret_key=canaries.SECRET,
        port=0,
        rate_limit_enabled=False,
        access_log=False,
    )
