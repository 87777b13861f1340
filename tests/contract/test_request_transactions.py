"""Each request is one transaction: all of it is committed, or the answer is an error."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager

import httpx2
import pytest
from fastapi.dependencies.models import Dependant
from sqlalchemy import func, select

from app.models.outbox import Mail
from app.models.users import User
from app.web.dependencies import get_session
from app.web.rate_limits import RateLimited
from tests.conftest import ROOT
from tests.contract.entries.base import Filled
from tests.contract.resources import COLLECTIONS, ENTRIES, WRITE_REQUESTS
from tests.support import faults
from tests.support.client import PASSWORD, Client
from tests.support.proxied_app import new_account
from tests.support.routes import all_routes

ATTEMPTS = 4
# Or leaves them with another password, which the table does not know.
ENDS_THE_CALLERS_SESSION = ("change_password", "delete_me", "logout")
Failing = Callable[..., AbstractContextManager[faults.Sabotage]]


# --- Every writing operation ---------------------------------------------------------------------


class World(Filled):
    """An admin, and one row of each kind in the state that each operation needs."""

    async def fill(self) -> World:
        for entry in ENTRIES:
            await entry.fill(self)
        return self

    def call(self, operation: str) -> Awaitable[httpx2.Response]:
        admin = self.admin
        method, path, body = WRITE_REQUESTS[operation]
        if operation == "login":
            return admin.request("POST", path, data={"username": admin.email, "password": PASSWORD})
        if isinstance(body, dict):
            body = body | self.members.get(operation, {})
        return admin.request(method, path.format(**self.ids), json=body)


@pytest.fixture
async def world(client: Client) -> World:
    # Two admins, so that the one under test may leave.
    await client.admin("Second")
    return await World(await client.admin()).fill()


async def test_every_writing_operation_is_in_the_table(client: Client) -> None:
    operations = client.contract.operations.items()
    assert set(WRITE_REQUESTS) == {name for name, (method, _, _) in operations if method != "get"}


async def test_a_failed_commit_is_never_a_success_and_leaves_nothing(world: World) -> None:
    """A1: of every writing operation: no 2xx, no row, no mail."""
    database = world.admin.database
    gone = faults.GONE[database.dialect]
    for operation in WRITE_REQUESTS:
        before = await faults.dump(database)
        with faults.failing_commits(database, gone) as sabotage:
            response = await world.call(operation)
        assert sabotage.hits == 1, f"{operation} wrote, and its commit failed"
        assert response.status_code == 503, operation
        assert response.headers["retry-after"]
        assert await faults.dump(database) == before, operation


async def test_every_writing_operation_succeeds_when_nothing_fails(world: World) -> None:
    """A1, the counterpart: the calls of the table are right; only the commit was at fault."""
    database = world.admin.database
    for operation in sorted(WRITE_REQUESTS, key=ENDS_THE_CALLERS_SESSION.__contains__):
        if operation in ENDS_THE_CALLERS_SESSION:
            world.admin = await world.admin.admin()
        before = await faults.dump(database)
        response = await world.call(operation)
        assert response.is_success, (operation, response.text)
        assert await faults.dump(database) != before, operation


# --- Run again -----------------------------------------------------------------------------------

FAILING = pytest.mark.parametrize("failing", [faults.failing_writes, faults.failing_commits])


@FAILING
async def test_a_transient_error_is_tried_again_and_takes_effect_once(
    client: Client, failing: Failing
) -> None:
    """A11: 1213, 1205, 40001 or "database is locked" at the first two tries."""
    ana, database = await client.user(), client.database
    post = await ana.write(tags=["old"])
    for number, fault in enumerate(faults.TRANSIENT[database.dialect]):
        account = new_account()
        with failing(database, fault, times=2) as sabotage:
            registered = await client.post("/auth/register", account)
        assert (registered.status_code, sabotage.hits) == (201, 2)
        accounts = select(func.count()).where(User.email == account["email"])
        mails = select(func.count()).where(Mail.recipient == account["email"])

        edit = {"title": f"Changed {number}", "tags": [f"new {number}"]}
        with failing(database, fault, times=2) as sabotage:
            edited = await ana.patch(f"/posts/{post['id']}", edit)
        assert (edited.status_code, sabotage.hits) == (200, 2)
        assert edited.json()["version"] == 2 + number

        async with database.begin(readonly=True) as session:
            assert await session.scalar(accounts) == 1
            assert await session.scalar(mails) == 1


@FAILING
async def test_a_transient_error_that_stays_is_a_503(client: Client, failing: Failing) -> None:
    """A11: at every try; nothing is left behind."""
    ana, database = await client.user(), client.database
    before = await faults.dump(database)
    for fault in faults.TRANSIENT[database.dialect]:
        with failing(database, fault) as sabotage:
            response = await ana.post("/posts", {"title": "New", "content": "", "tags": ["new"]})
        assert sabotage.hits == ATTEMPTS
        assert response.status_code == 503
        assert response.headers["retry-after"]
    assert await faults.dump(database) == before


# --- How it is written ---------------------------------------------------------------------------


def test_every_session_dependency_ends_before_the_response() -> None:
    """A1: with FastAPI's default scope a failed commit would follow a 200."""
    scopes = [
        (route.name, dependant.call, dependant.scope)
        for route in all_routes()
        for dependant in flattened(route.dependant)
        if isinstance(dependant.call, RateLimited)
        or inspect.isasyncgenfunction(dependant.call)
        or inspect.isgeneratorfunction(dependant.call)
    ]
    # A rate-limited attempt is settled before the response too.
    assert {call for _, call, _ in scopes if not isinstance(call, RateLimited)} == {get_session}
    # A login opens two transactions itself, around the verification; a refresh may have to
    # commit and refuse, a forgotten password to be answered later; a new post has a writer.
    created = {f"create_{entry.noun}" for entry in COLLECTIONS} - {"create_user", "create_role"}
    alone = {"login", "refresh", "forgot_password"} | created
    with_session = {name for name, call, _ in scopes if call is get_session}
    assert with_session >= WRITE_REQUESTS.keys() - alone
    # A login opens two transactions itself, around the verification; a new post has a writer.
    others = {"login", "forgot_password"} | created
    assert {name for name, _, _ in scopes} >= WRITE_REQUESTS.keys() - others
    assert [name for name, _, scope in scopes if scope != "function"] == []


def test_only_the_database_module_commits() -> None:
    """A1: there is one commit, the end of `Database.begin`, and nobody else makes a session."""
    used: dict[str, set[str]] = {}
    for source in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", None))
            if isinstance(node, ast.Attribute | ast.Name):
                used.setdefault(str(name), set()).add(source.name)
    # What the drivers offer; SQLAlchemy calls it at the end of `Database.begin`.
    assert used["commit"] == {"sqlite.py", "mariadb.py", "postgresql.py"}
    for maker in ("async_sessionmaker", "create_async_engine"):
        assert used[maker] == {"engine.py"}


def flattened(dependant: Dependant) -> Iterator[Dependant]:
    for inner in dependant.dependencies:
        yield inner
        yield from flattened(inner)
