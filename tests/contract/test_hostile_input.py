"""Hostile input in every parameter and field: refused or stored, never a 500.

A value goes into all fields of a request at once; those that refuse it get a valid one (or
none) in the next request, until what is left has been let through to the database.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import httpx2
import pytest

from app.core import i18n
from tests.contract.resources import path_ids
from tests.support import corpus
from tests.support.client import API, Client, Person
from tests.support.corpus import CANARY, FORM, JSON, Attempt, Target

pytestmark = pytest.mark.long

# For what ends before the database does: one of them will do.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
FALLBACK = i18n.text("en", "validation", "invalid")


@pytest.fixture
async def admin(client: Client) -> Person:
    """Return a user with every permission, so that no input is refused with 403."""
    return await client.admin()


@pytest.fixture
async def targets(client: Client, admin: Person) -> list[Target]:
    """Every operation, with rows for its path parameters."""
    ids = await path_ids(client, admin, client.contract.path_parameters(), {})
    return corpus.targets(client.contract, ids)


class Attack:
    """Sends hostile requests as one user and collects what went wrong."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.sent = self.accepted = 0
        self.slowest = 0.0
        self.wrong: list[str] = []

    async def send(self, attempt: Attempt, **headers: bytes) -> httpx2.Response | None:
        """The response, or None when it was not as promised."""
        self.sent += 1
        started = time.perf_counter()
        try:
            response = await send(self.person, attempt, headers)
            self.slowest = max(self.slowest, time.perf_counter() - started)
            check(self.person, response)
        except Exception as error:  # noqa: BLE001 every error is reported at the end
            self.wrong.append(f"{attempt.method} {attempt.url[:70]} {attempt.what}: {error!r:.300}")
            return None
        self.accepted += response.is_success
        return response

    async def narrow(self, fields: Iterable[str], build: Callable[[set[str]], Attempt]) -> None:
        """The value in all the fields, then in those that did not refuse it, and so on."""
        left = set(fields)
        while left:
            response = await self.send(build(left))
            if response is None or response.status_code != 422:
                return
            refused = {error["field"].partition(".")[0] for error in response.json()["errors"]}
            if not left & refused:
                return
            left -= refused

    def finish(self, *, at_least: int) -> None:
        head = f"{len(self.wrong)} of {self.sent} requests went wrong:"
        assert not self.wrong, "\n".join([head, *self.wrong[:30]])
        assert self.sent >= at_least


async def send(
    person: Person, attempt: Attempt, headers: dict[str, bytes] | None = None
) -> httpx2.Response:
    raw = {name.encode(): value.encode() for name, value in person.headers.items()}
    if attempt.content_type:
        raw[b"Content-Type"] = attempt.content_type.encode()
    raw |= {name.encode(): value for name, value in (headers or {}).items()}
    return await person.http.request(
        attempt.method, attempt.url, headers=[*raw.items()], content=attempt.content
    )


def values(person: Person, known: Mapping[str, object]) -> list[str]:
    """What to send: everything to the app on SQLite; to the app on the others, which is the
    same up to the database, what may get as far as there."""
    everything = person.database.dialect == "sqlite"
    return [what for what in known if everything or what in corpus.REACHING]


def check(client: Client, response: httpx2.Response) -> None:
    """What the contract says of the response; no 5xx; a refusal repeats nothing but names."""
    client.contract.check(response)
    assert response.status_code < 500, response.status_code
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == "application/problem+json"
    body = json.loads(response.content.decode("utf-8"))
    assert body["status"] == response.status_code
    # The path and the names of fields are shown; they are the only thing of the caller's.
    body.pop("instance")
    for defect in body.get("errors", ()):
        defect.pop("field")
        assert defect["message"] != FALLBACK, f"{defect['type']} has no text of its own"
    assert CANARY not in json.dumps(body), "an error repeats the input"
    assert not any(CANARY in value for value in response.headers.values())


async def test_no_path_parameter_breaks_the_server(admin: Person, targets: list[Target]) -> None:
    """A35, A36: every hostile value in every path parameter of every operation."""
    # Nothing but a number gets past the path.
    on_sqlite = admin.database.dialect == "sqlite"
    known = corpus.URL_VALUES if on_sqlite else corpus.NUMBERS
    attack = Attack(admin)
    for target in targets:
        for what in values(admin, known):
            for attempt in corpus.in_path(target, what):
                await attack.send(attempt)
    attack.finish(at_least=80)


async def test_no_query_parameter_breaks_the_server(admin: Person, targets: list[Target]) -> None:
    """A35, A36: every hostile value in every query parameter of every operation."""
    attack = Attack(admin)
    for target in targets:
        names = set(target.parameters("query"))
        for what in values(admin, corpus.URL_VALUES):
            build = partial(corpus.in_query, target, what)
            # A bad cursor is refused on its own account, and would hide the others.
            await attack.narrow(names - {"cursor"}, build)
            await attack.narrow(names & {"cursor"}, build)
        for key in corpus.URL_KEYS if names else ():
            url = f"{target.url()}?{key}={CANARY}"
            await attack.send(Attempt("key", target.method, url))
    attack.finish(at_least=400)
    assert attack.accepted > 100, "most texts can be searched for"


async def test_no_body_field_breaks_the_server(
    admin: Person, targets: list[Target], caplog: pytest.LogCaptureFixture
) -> None:
    """A35, A36, A44: every hostile value in every field of every body; none in the logs."""
    caplog.set_level(logging.INFO, logger="app")
    attack = Attack(admin)
    for body in corpus.bodies(targets, admin.contract, JSON):
        lists = {name for name, field in body.fields.items() if field.get("type") == "array"}
        for what in values(admin, corpus.JSON_VALUES):
            await attack.narrow(body.fields, partial(corpus.in_json, body, what))
            await attack.narrow(lists, partial(corpus.in_json, body, what, in_list=True))
    for form in corpus.bodies(targets, admin.contract, FORM):
        for what in values(admin, corpus.URL_VALUES):
            await attack.narrow(form.fields, partial(corpus.in_form, form, what))
    attack.finish(at_least=400)
    assert attack.accepted > 150, "most texts can be kept"
    ours = [record for record in caplog.records if record.name.startswith("app")]
    assert len(ours) >= attack.sent
    assert CANARY not in repr([record.__dict__ for record in ours])


@on_sqlite
async def test_no_body_as_a_whole_breaks_the_server(admin: Person, targets: list[Target]) -> None:
    """A36, A37, A40: bodies that are broken, deep, wide or of another type, everywhere."""
    attack = Attack(admin)
    for body in corpus.bodies(targets, admin.contract, JSON):
        for what, content in corpus.whole_bodies():
            response = await attack.send(body.attempt(what, content))
            refused = response is None or response.status_code >= 400
            assert refused, f"{what} is no body of {body.target.name}"
        for content_type in corpus.CONTENT_TYPES:
            await attack.send(body.attempt(content_type, b'{"name": "x"}', content_type))
    for form in corpus.bodies(targets, admin.contract, FORM):
        for what, content in corpus.whole_forms():
            response = await attack.send(form.attempt(what, content))
            assert response is None or what != "1001 fields" or response.status_code == 400
        for content_type in (*corpus.CONTENT_TYPES, JSON):
            await attack.send(form.attempt(content_type, b"username=a&password=b", content_type))
    attack.finish(at_least=300)
    assert attack.slowest < 5, "the size of the work follows from the size of the body"


@on_sqlite
async def test_no_header_breaks_the_server(admin: Person, targets: list[Target]) -> None:
    """A36: every hostile value in the headers of the document and in all the usual ones."""
    attack = Attack(admin)
    for target in targets:
        for name in target.parameters("header"):
            for what, value in corpus.HEADERS.items():
                attempt = Attempt(what, target.method, target.url())
                await attack.send(attempt, **{name: value})
    for name in corpus.HEADER_NAMES:
        for what, value in corpus.HEADERS.items():
            attempt = Attempt(f"{name}: {what}", "POST", f"{API}/roles", b"{}", JSON)
            response = await attack.send(attempt, **{name: value})
            assert response is None or "x-injected" not in response.headers
    attack.finish(at_least=200)


@on_sqlite
async def test_secrets_of_refused_logins_and_registrations_are_neither_shown_nor_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A44: a password in a body that is refused for whatever reason."""
    caplog.set_level(logging.DEBUG)
    good: dict[str, Any] = {"email": "ana@example.com", "name": "Ana", "password": CANARY}
    broken: list[dict[str, Any]] = [
        good,
        {**good, "name": ""},
        {**good, "password": [CANARY]},
        {**good, "password": {"value": CANARY}},
        {**good, "password": CANARY * 50},
        {**good, "passwort": CANARY},
        {"password": CANARY},
    ]
    for body in broken:
        response = await client.post("/auth/register", body)
        assert response.status_code == 422
        assert CANARY not in response.text
    forms = [{"password": CANARY}, {"username": "a@example.com", "password": CANARY}]
    for form in [*forms, {"username": "x", "password": CANARY * 200}]:
        response = await client.request("POST", "/auth/login", data=form)
        assert response.status_code in {401, 422}
        assert CANARY not in response.text
    assert CANARY not in caplog.text
    assert CANARY not in repr([record.__dict__ for record in caplog.records])
