"""The ASGI middlewares: other protocols than HTTP, started answers, disconnected clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import main
from app.core.exceptions import FieldError, Invalid, PayloadTooLarge
from app.core.security import Passwords
from app.db.engine import Database
from app.main import create_app
from app.models.tags import Tag
from app.web.middleware import timeout
from app.web.middleware.retry import RetryMiddleware
from app.web.middleware.timeout import TimeoutMiddleware
from app.web.problems import problem
from tests.conftest import CHEAP, make_settings
from tests.support import faults
from tests.support.apps import client_of
from tests.support.client import Client
from tests.support.logs import kept_logging
from tests.support.mails import queue


def parts(*texts: str, pause: float = 0) -> Callable[[], AsyncIterator[str]]:
    """A body in parts, with a pause after each."""

    async def body() -> AsyncIterator[str]:
        for text in texts:
            yield text
            await asyncio.sleep(pause)

    return body


def slow(*texts: str, pause: float) -> ASGIApp:
    """An application that answers in parts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(parts(*texts, pause=pause)())(scope, receive, send)

    return app


def recovering(app: ASGIApp) -> RetryMiddleware:
    return RetryMiddleware(app, is_transient=lambda _: True, refusal_of=lambda _: None)


async def get(app: ASGIApp) -> httpx2.Response:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://testserver"
    ) as http:
        return await http.get("/")


# --- Starting and stopping -----------------------------------------------------------------------


async def lifespan(app: FastAPI, during: Callable[[], Awaitable[None]]) -> list[str]:
    """What the application answers when a server starts it, and stops it after `during`."""
    answers: list[str] = []
    started, orders = asyncio.Event(), asyncio.Queue[Message]()

    async def send(message: Message) -> None:
        answers.append(message["type"])
        started.set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(app(scope, orders.get, send))
    orders.put_nowait({"type": "lifespan.startup"})
    await started.wait()
    await during()
    orders.put_nowait({"type": "lifespan.shutdown"})
    await running
    return answers


@pytest.mark.usefixtures("app")
async def test_a_started_server_delivers_mails_until_it_is_stopped(
    database_url: str, tmp_path: Path
) -> None:
    settings = make_settings(database_url, tmp_path)
    app = create_app(settings, passwords=Passwords(CHEAP))
    maildir = tmp_path / "mail"

    async def delivered() -> None:
        await queue(app.state.database, "a@example.com")
        await faults.eventually(lambda: any(maildir.glob("*.eml")))

    with kept_logging():
        answers = await lifespan(app, delivered)
    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert "outbox-dispatcher" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.usefixtures("no_settings")
def test_the_module_is_an_application_under_one_name() -> None:
    """For `uvicorn app.main:app`."""
    assert isinstance(main.app, FastAPI)
    assert not hasattr(main, "nothing")


# --- Answers under way ---------------------------------------------------------------------------


async def test_an_answer_that_has_begun_is_not_cut_off_by_the_deadline() -> None:
    response = await get(TimeoutMiddleware(slow("slow ", "but whole", pause=0.1), seconds=0.05))
    assert (response.status_code, response.text) == (200, "slow but whole")


async def test_an_answer_after_the_deadlines_own_goes_nowhere() -> None:
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await PlainTextResponse("late")(scope, receive, send)

    response = await get(TimeoutMiddleware(deaf, seconds=0.05))
    assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    """A11: what fails in its middle can only be cut off."""
    begun = 0

    async def breaking(_: Scope, __: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ConnectionError("in the middle")

    with pytest.raises(ConnectionError):
        await get(recovering(breaking))
    assert begun == 1


async def test_a_caller_who_leaves_is_not_taken_for_a_deadline() -> None:
    """A8: the server cancels the request, and nothing below holds it back."""
    waiting = asyncio.Event()

    async def hanging(*_: object) -> None:
        waiting.set()
        await asyncio.sleep(60)

    request = asyncio.create_task(get(TimeoutMiddleware(recovering(hanging), seconds=30)))
    await waiting.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_a_cancelled_transaction_leaves_nothing_even_if_something_swallowed_that(
    database: Database,
) -> None:
    """A8: a client that got 503 because time was up must not find it done."""
    waiting = asyncio.Event()

    async def work() -> None:
        async with database.begin() as session:
            session.add(Tag(name="late"))
            await session.flush()
            waiting.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.begin(readonly=True) as session:
        assert await session.scalar(select(func.count()).select_from(Tag)) == 0


# --- Clients that hang up ------------------------------------------------------------------------


@dataclass
class Caller:
    """A client that sends a request with a body in parts, and may hang up."""

    method: str = "GET"
    messages: asyncio.Queue[Message | Exception] = field(default_factory=asyncio.Queue)
    statuses: list[int] = field(default_factory=list)
    begun: int = 0
    ended: list[str] = field(default_factory=list)

    def sends(self, *messages: Message | Exception) -> None:
        for each in messages:
            self.messages.put_nowait(each)

    async def ask(self, app: ASGIApp) -> None:
        await app({"type": "http", "method": self.method, "path": "/"}, self.receive, self.send)

    async def receive(self) -> Message:
        found = await self.messages.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def send(self, message: Message) -> None:
        self.statuses += [message["status"]] if "status" in message else []

    async def work(self, _: Scope, __: Receive, send: Send) -> None:
        """An application that takes 0.3 seconds, unless something ends it."""
        self.begun += 1
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        await PlainTextResponse("done")({"type": "http"}, self.receive, send)


PART: Message = {"type": "http.request", "body": b"part", "more_body": True}
GONE: Message = {"type": "http.disconnect"}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is had at the clients of all reads."""
    monkeypatch.setattr(timeout, "LOOK_SECONDS", 0.02)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("before", [(), (PART, PART)])
async def test_a_read_whose_client_hangs_up_is_cancelled(
    method: str, before: tuple[Message, ...]
) -> None:
    """A8: also by a client that has sent a body nobody asked for."""
    caller = Caller(method)
    caller.sends(*before, GONE)
    await caller.ask(TimeoutMiddleware(recovering(caller.work), seconds=30))
    assert (caller.ended, caller.statuses) == (["cancelled"], [timeout.HUNG_UP])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_whose_client_hangs_up_is_done(method: str) -> None:
    """Nobody knows how much of it there is already."""
    caller = Caller(method)
    caller.sends(GONE)
    await caller.ask(TimeoutMiddleware(recovering(caller.work), seconds=30))
    assert (caller.ended, caller.statuses) == (["done"], [200])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("sent", [(), (PART,), (PayloadTooLarge(),)])
async def test_a_read_whose_client_stays_is_done(sent: tuple[Message | Exception, ...]) -> None:
    caller = Caller()
    caller.sends(*sent)
    await caller.ask(TimeoutMiddleware(recovering(caller.work), seconds=30))
    assert (caller.ended, caller.statuses) == (["done"], [200])


@pytest.mark.usefixtures("at_once")
async def test_the_time_of_a_read_that_is_watched_ends_all_the_same() -> None:
    caller = Caller()
    await caller.ask(TimeoutMiddleware(recovering(caller.work), seconds=0.1))
    assert (caller.ended, caller.statuses) == (["cancelled"], [503])


@pytest.mark.usefixtures("at_once")
async def test_an_answer_that_has_begun_is_not_cut_off_by_who_hangs_up() -> None:
    caller = Caller()
    asking = asyncio.create_task(
        caller.ask(TimeoutMiddleware(slow("slow ", "but whole", pause=0.1), seconds=30))
    )
    await asyncio.sleep(0.05)
    caller.sends(GONE)
    await asking
    assert caller.statuses == [200]


async def test_quick_reads_are_not_watched() -> None:
    caller = Caller()
    caller.sends(GONE)
    await caller.ask(TimeoutMiddleware(recovering(caller.work), seconds=30))
    assert caller.messages.qsize() == 1
    assert caller.statuses == [200]


# --- Settings and texts that change an answer -------------------------------------------------


async def test_an_access_log_that_is_off_writes_no_line(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="app.request")
    async with client_of(client, tmp_path, access_log=False) as quiet:
        assert (await quiet.get("/health")).status_code == 200
    assert not caplog.records
    assert (await client.get("/health")).status_code == 200
    assert [record.getMessage() for record in caplog.records] == ["request"]


async def test_a_defect_that_came_without_its_values_is_told_all_the_same() -> None:
    incomplete = Invalid([FieldError("body.name", "string_too_long")])

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await problem(incomplete, scope)(scope, receive, send)

    response = await get(refusing)
    assert response.status_code == 422
    assert "…" in response.json()["errors"][0]["message"]
