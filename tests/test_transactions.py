"""One request, one transaction: all of it, or nothing and never a 2xx."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager

import httpx2
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIRouter
from sqlalchemy import func, select, update

from app import routers
from app.models.outbox import Mail, MailState
from app.models.users import User
from app.routers.deps import get_session
from app.routers.doors import AtDoor
from tests.conftest import ROOT
from tests.support import faults, links
from tests.support.client import PASSWORD, Client, Person
from tests.support.stage import new_account

ATTEMPTS = 4
# Or leaves them with another password, which the table does not know.
ENDS_THE_CALLERS_SESSION = ("change_password", "delete_me", "logout")
Failing = Callable[..., AbstractContextManager[faults.Sabotage]]


# --- Every writing operation ---------------------------------------------------------------------


class World:
    """Somebody with everything, and one row of each kind in the state each operation needs."""

    def __init__(self, admin: Person) -> None:
        self.admin = admin
        self.ids: dict[str, int] = {}
        self.refresh_token = ""
        self.tokens: dict[str, str] = {}

    async def fill(self) -> World:
        admin, ids = self.admin, self.ids
        self.refresh_token = (await admin.log_in(admin.email))["refresh_token"]
        (ids["session"],) = [
            entry["id"]
            for entry in (await admin.get("/auth/sessions")).json()["items"]
            if not entry["current"]
        ]
        for name in ("bea", "gone", "leaver", "member"):
            ids[name] = (await admin.register(name.title()))["id"]
        assert (await admin.delete(f"/users/{ids['gone']}")).status_code == 204
        for name in ("free", "given"):
            ids[name] = (await admin.post("/roles", {"name": f"{name} role"})).json()["id"]
        await admin.put(f"/users/{ids['member']}/roles/{ids['given']}")
        for name in ("post", "doomed", "trashed"):
            ids[name] = (await admin.write(name, tags=["old"]))["id"]
        ids["draft"] = (await admin.write("draft", status="draft"))["id"]
        assert (await admin.delete(f"/posts/{ids['trashed']}")).status_code == 204
        lost = (await admin.register("Lost"))["email"]
        self.tokens["verify_email"] = await links.token_to(admin, lost)
        self.tokens["reset_password"] = await links.forgotten(admin, email=lost)
        async with admin.database.begin() as session:
            ids["mail"] = await session.scalar(select(Mail.id).limit(1)) or 0
            await session.execute(update(Mail).values(state=MailState.dead))
        return self

    def call(self, operation: str) -> Awaitable[httpx2.Response]:
        admin, known = self.admin, self.ids
        method, path, body = WRITING[operation]
        if operation == "login":
            return admin.request("POST", path, data={"username": admin.email, "password": PASSWORD})
        if operation == "refresh":
            body = {"refresh_token": self.refresh_token}
        if operation in self.tokens and isinstance(body, dict):
            body = body | {"token": self.tokens[operation]}
        return admin.request(method, path.format(**known), json=body)


WRITING: dict[str, tuple[str, str, object]] = {
    "register": ("POST", "/auth/register", new_account()),
    "login": ("POST", "/auth/login", None),
    "refresh": ("POST", "/auth/refresh", None),
    "logout": ("POST", "/auth/logout", None),
    "end_session": ("DELETE", "/auth/sessions/{session}", None),
    "end_other_sessions": ("DELETE", "/auth/sessions", None),
    "forgot_password": ("POST", "/auth/password/forgot", {"email": "lost@example.com"}),
    "reset_password": ("POST", "/auth/password/reset", {"password": "Another-Horse-8"}),
    "verify_email": ("POST", "/auth/email/verify", {}),
    "resend_verification": ("POST", "/auth/email/verify/resend", None),
    "change_password": (
        "PUT",
        "/users/me/password",
        {"current_password": PASSWORD, "new_password": "Another-Horse-8"},
    ),
    "change_email": (
        "PUT",
        "/users/me/email",
        {"current_password": PASSWORD, "new_email": "moved@example.com"},
    ),
    "update_me": ("PATCH", "/users/me", {"name": "Renamed"}),
    "delete_me": ("DELETE", "/users/me", {"current_password": PASSWORD}),
    "create_user": ("POST", "/users", {"email": "made@example.com", "name": "Made"}),
    "update_user": ("PATCH", "/users/{bea}", {"name": "Renamed", "is_active": False}),
    "delete_user": ("DELETE", "/users/{leaver}", None),
    "restore_user": ("POST", "/users/{gone}/restore", None),
    "assign_role": ("PUT", "/users/{bea}/roles/{free}", None),
    "revoke_role": ("DELETE", "/users/{member}/roles/{given}", None),
    "create_role": ("POST", "/roles", {"name": "new role", "permissions": ["posts:write"]}),
    "update_role": ("PATCH", "/roles/{free}", {"permissions": ["posts:write"]}),
    "delete_role": ("DELETE", "/roles/{given}", None),
    "create_post": ("POST", "/posts", {"title": "New", "content": "", "tags": ["new"]}),
    "update_post": ("PATCH", "/posts/{post}", {"title": "Changed", "tags": ["other"]}),
    "delete_post": ("DELETE", "/posts/{doomed}", None),
    "restore_post": ("POST", "/posts/{trashed}/restore", None),
    "publish_post": ("PUT", "/posts/{draft}/publication", None),
    "unpublish_post": ("DELETE", "/posts/{post}/publication", None),
    "retry_mail": ("POST", "/outbox/{mail}/retry", None),
}


@pytest.fixture
async def world(client: Client) -> World:
    # Two admins, so that the one under test may leave.
    await client.admin("Second")
    return await World(await client.admin()).fill()


async def test_every_writing_operation_is_in_the_table(client: Client) -> None:
    operations = client.contract.operations.items()
    assert set(WRITING) == {name for name, (method, _, _) in operations if method != "get"}


async def test_a_failed_commit_is_never_a_success_and_leaves_nothing(world: World) -> None:
    """A1: of every writing operation: no 2xx, no row, no mail."""
    database = world.admin.database
    gone = faults.GONE[database.dialect]
    for operation in WRITING:
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
    for operation in sorted(WRITING, key=ENDS_THE_CALLERS_SESSION.__contains__):
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
            made = await client.post("/auth/register", account)
        assert (made.status_code, sabotage.hits) == (201, 2)
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
        if isinstance(dependant.call, AtDoor)
        or inspect.isasyncgenfunction(dependant.call)
        or inspect.isgeneratorfunction(dependant.call)
    ]
    # A try at a door is settled before the response too.
    assert {call for _, call, _ in scopes if not isinstance(call, AtDoor)} == {get_session}
    # A login opens two transactions itself, around the verification; a refresh may have to
    # commit and refuse, a forgotten password to be answered later; a new post has a writer.
    alone = {"login", "refresh", "forgot_password", "create_post"}
    with_session = {name for name, call, _ in scopes if call is get_session}
    assert with_session >= WRITING.keys() - alone
    # A login opens two transactions itself, around the verification; a new post has a writer.
    assert {name for name, _, _ in scopes} >= WRITING.keys() - {
        "login",
        "forgot_password",
        "create_post",
    }
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
    assert used["commit"] == {"sqlite.py", "mariadb.py"}
    for maker in ("async_sessionmaker", "create_async_engine"):
        assert used[maker] == {"database.py"}


def all_routes() -> Iterator[APIRoute]:
    for module in pkgutil.iter_modules(routers.__path__):
        for value in vars(importlib.import_module(f"app.routers.{module.name}")).values():
            if isinstance(value, APIRouter):
                yield from (route for route in value.routes if isinstance(route, APIRoute))


def flattened(dependant: Dependant) -> Iterator[Dependant]:
    for inner in dependant.dependencies:
        yield inner
        yield from flattened(inner)
