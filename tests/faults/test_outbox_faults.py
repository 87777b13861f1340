"""Registrations while the API and the database are killed, and while the mail server fails."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles

import httpx2
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tests.faults.report import Report
from tests.faults.servers import DATABASE, defects
from tests.support.client import API, PASSWORD
from tests.support.database_servers import DatabaseServer
from tests.support.process import Server, environment, run_command, serving
from tests.support.smtp import Sink, running_sink

pytestmark = pytest.mark.faults
CALLERS = 8
DELIVERED_SECONDS = 60.0
# A mail that was on its way when a process died comes up again after its lease of 60 seconds.
LEASE_SECONDS = 65.0
POISON = "poison@example.com"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A mail server that takes its time, so that crashes meet mails on their way."""
    async with running_sink() as running:
        running.pace_seconds = 0.02
        yield running


@dataclass
class Registrations:
    """Who asked for an account, and the answer to each."""

    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # refused, or cut off without an answer
    violations: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def make(self, http: httpx2.AsyncClient, email: str | None = None) -> None:
        """One more."""
        email = email or f"person{next(self._numbers)}@example.com"
        body = {"email": email, "name": "Ana ñ", "password": PASSWORD}
        started = time.monotonic()
        try:
            response = await http.post(f"{API}/auth/register", json=body)
        except httpx2.TransportError:
            self.unknown.append(email)
            return
        self.seconds.append(time.monotonic() - started)
        if response.status_code == 201:
            self.acknowledged.append(email)
        elif response.status_code == 503 and "Retry-After" in response.headers:
            self.unknown.append(email)
        else:
            self.violations.append(f"{response.status_code}: {response.text[:300]}")


@dataclass
class Restartable:
    """The API, that is killed and started again by who runs it."""

    folder: Path
    env: dict[str, str]
    crashes: int = 0
    server: Server | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        self.server = await self._stack.enter_async_context(serving(self.folder, self.env))

    async def kill(self) -> None:
        """`kill -9`, and a new one."""
        assert self.server is not None
        server, self.server = self.server, None
        assert await server.end(signal.SIGKILL) == -signal.SIGKILL
        self.crashes += 1
        await self._stack.aclose()
        await self.start()

    async def end(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def restartable(folder: Path, env: dict[str, str]) -> AsyncIterator[Restartable]:
    """A running API on a migrated database."""
    status, _, complaint = await run_command("migrate", cwd=folder, env=env)
    assert status == 0, complaint
    api = Restartable(folder, env)
    await api.start()
    try:
        yield api
    finally:
        await api.end()


def with_sink(env: dict[str, str], sink: Sink) -> dict[str, str]:
    return env | environment(smtp_host="127.0.0.1", smtp_port=sink.port, smtp_tls="none")


async def register_all(api: Restartable, registrations: Registrations, wanted: int) -> None:
    """Go on until so many registrations were acknowledged."""
    while len(registrations.acknowledged) < wanted:
        server = api.server
        if server is not None:
            async with httpx2.AsyncClient(base_url=server.url, timeout=30) as http:
                await registrations.make(http)
        await asyncio.sleep(0.1 if server is None else 0)


async def crash(
    api: Restartable,
    database_server: DatabaseServer,
    registrations: Registrations,
    *,
    at: Iterable[int],
) -> None:
    """Kill the API and the database in turns, each at a moment soon after so many registrations."""
    moments = random.Random(time.time_ns())
    for turn, count in enumerate(at):
        while len(registrations.acknowledged) < count:  # noqa: ASYNC110 nothing announces it
            await asyncio.sleep(0.005)
        await asyncio.sleep(moments.uniform(0, 0.1))
        if turn % 2:
            await api.kill()
        else:
            await asyncio.to_thread(database_server.kill)
            database_server.start()
            await database_server.ready()


async def test_each_registration_has_one_mail_whatever_crashes(
    database_server: DatabaseServer,
    api_env: dict[str, str],
    sink: Sink,
    tmp_path: Path,
    whole: bool,
    report: Report,
) -> None:
    """Delivered at least once, at most once more per crash; none for who does not exist."""
    wanted, crashes = (1_000, 20) if whole else (60, 4)
    registrations, engine = Registrations(), database_server.engine(DATABASE)
    moments = range(0, wanted, wanted // crashes)
    async with restartable(tmp_path, with_sink(api_env, sink)) as api:
        registering = [register_all(api, registrations, wanted) for _ in range(CALLERS)]
        crashing = crash(api, database_server, registrations, at=moments)
        await progressing(report, registrations, wanted, asyncio.gather(crashing, *registering))
        recovered = time.monotonic()
        if not whole:
            end_leases(engine)
        await until(lambda: states(engine, "sent"), seconds=LEASE_SECONDS)
        took = time.monotonic() - recovered
    copies = Counter(delivery.recipients[0] for delivery in sink.deliveries)
    users, mails = people_and_mails(engine)
    report.row(
        database=database_server.kind,
        faults=crashes,
        requests=len(registrations.acknowledged) + len(registrations.unknown),
        acknowledged=len(registrations.acknowledged),
        lost=len([email for email in registrations.acknowledged if not copies[email]]),
        doubled=sum(copies.values()) - len(copies),
        recovery=took,
    )
    assert (api.crashes, database_server.kills) == (crashes // 2, crashes // 2)
    assert registrations.unknown, "the crashes were met"
    assert registrations.violations == []
    assert set(registrations.acknowledged) <= set(users)
    assert set(users) <= {*registrations.acknowledged, *registrations.unknown}
    assert max(users.values()) == 1
    assert mails == users, "exactly one welcome mail each, and none without its user"
    assert set(copies) == set(users), "all got a mail, and nobody else"
    assert max(copies.values()) <= 1 + crashes
    assert len({each.message_id for each in sink.deliveries}) == len(users), "copies are alike"


def end_leases(engine: Engine) -> None:
    """Put the clock forward for the mails that were on their way when a process died."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE outbox SET next_attempt_at = '2020-01-01' WHERE state = 'sending'")
        )


async def progressing(
    report: Report, registrations: Registrations, wanted: int, work: Awaitable[object]
) -> None:
    done = asyncio.ensure_future(work)
    while not done.done():
        report.progress(
            f"{len(registrations.acknowledged):,}/{wanted:,} registrations acknowledged"
        )
        await asyncio.wait({done}, timeout=0.5)
    await done


async def until(condition: Callable[[], bool], *, seconds: float) -> None:
    """Return when something is true of the tables; the database is asked in a thread."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 nothing announces it
            await asyncio.sleep(0.2)


def states(engine: Engine, *expected: str, but: str = "") -> bool:
    """Whether every mail, but the ones to an address, is in one of these states."""
    try:
        with engine.connect() as connection:
            statement = text("SELECT DISTINCT state FROM outbox WHERE recipient <> :but")
            return set(connection.scalars(statement, {"but": but})) <= set(expected)
    except DBAPIError:
        return False


def people_and_mails(engine: Engine) -> tuple[Counter[str], Counter[str]]:
    """How many accounts there are by address, and how many welcome mails by their owner's."""
    with engine.connect() as connection:
        users = Counter(connection.scalars(text("SELECT email FROM users")))
        mails = Counter(
            connection.scalars(
                text(
                    "SELECT u.email FROM outbox m JOIN users u ON u.id = m.user_id"
                    " WHERE m.kind = 'welcome' AND m.recipient = u.email"
                )
            )
        )
        assert connection.scalar(text("SELECT count(*) FROM outbox")) == mails.total()
    return users, mails


class _Everybody(dict[str, str]):
    """One answer to all recipients; what `Sink.answers` holds of single ones comes first."""

    def __init__(self, answer: str, others: dict[str, str]) -> None:
        super().__init__(others)
        self.answer = answer

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: str) -> str:
        return self.answer


async def test_registering_is_as_quick_whatever_the_mail_server_does(
    tmp_path: Path, sink: Sink, whole: bool, report: Report
) -> None:
    """It is down, slow, answers 4xx and 5xx; all but the poisoned mail arrive soon afterwards."""
    each, registrations = (250 if whole else 16), Registrations()
    sink.answers[POISON] = "550 5.1.1 nobody here"
    env = environment(
        data_dir=tmp_path / "data",
        database_url=f"sqlite+aiosqlite:///{tmp_path}/test.db",
        secret_key="tests-0123456789abcdefghijklmnopqrstuv",
        port=0,
        rate_limit_enabled=False,
        access_log=False,
    )
    engine = create_engine(f"sqlite:///{tmp_path}/test.db", poolclass=NullPool)
    p99 = {}
    async with restartable(tmp_path, with_sink(env, sink)) as api:
        assert api.server is not None
        async with httpx2.AsyncClient(base_url=api.server.url, timeout=30) as http:
            await registrations.make(http, POISON)
            for phase in ("healthy", "down", "slow", "4xx", "5xx"):
                single = sink.answers
                match phase:
                    case "down":
                        # A hang-up in the middle of a mail would have it sent once more.
                        await until(lambda: states(engine, "sent", but=POISON), seconds=30)
                        await sink.stop()
                    case "slow":
                        sink.pace_seconds = 3
                    case "4xx":
                        sink.answers = _Everybody("451 4.3.0 try later", single)
                    case "5xx":
                        sink.answers = _Everybody("550 5.7.1 not today", single)
                attempts, p99[phase] = len(sink.attempts), await pace_of(http, registrations, each)
                if phase in {"slow", "4xx", "5xx"}:
                    await sink.arrived(partial(has_grown, sink.attempts, attempts))
                if phase == "down":
                    await until(lambda: any_error(engine), seconds=15)
                    await sink.start()
                report.progress(f"{phase}: p99 {p99[phase] * 1000:.0f} ms")
                sink.answers, sink.pace_seconds = single, 0.02
        recovered = time.monotonic()
        await until(lambda: states(engine, "sent", but=POISON), seconds=DELIVERED_SECONDS)
        took = time.monotonic() - recovered
        problems = [line for line in defects(api.server) if "mail" not in line]
    copies = Counter(delivery.recipients[0] for delivery in sink.deliveries)
    report.row(
        database="sqlite",
        faults=len(p99) - 1,
        requests=len(registrations.acknowledged),
        acknowledged=len(registrations.acknowledged),
        lost=len(registrations.acknowledged) - len(copies) - 1,
        doubled=sum(copies.values()) - len(copies),
        recovery=took,
    )
    assert problems == []
    assert registrations.violations == registrations.unknown == []
    assert set(copies) == set(registrations.acknowledged) - {POISON}
    assert set(copies.values()) == {1}
    assert sink.attempts.count(POISON) > 1, "the poison was there all the time"
    slack = 3 * p99["healthy"] + 0.25
    assert {phase: seconds for phase, seconds in p99.items() if seconds > slack} == {}, p99


async def pace_of(http: httpx2.AsyncClient, registrations: Registrations, count: int) -> float:
    """The 99th percentile of the time a registration takes, four at a time."""
    before = len(registrations.seconds)
    for _ in range(count // 4):
        await asyncio.gather(*(registrations.make(http) for _ in range(4)))
    return quantiles(registrations.seconds[before:], n=100)[-1]


def has_grown(attempts: list[str], before: int) -> bool:
    return len(attempts) > before


def any_error(engine: Engine) -> bool:
    """Whether a mail has met the outage."""
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM outbox WHERE last_error IS NOT NULL")
        return bool(connection.scalar(statement))
