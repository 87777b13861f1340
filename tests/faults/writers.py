"""Clients that record the answers to their writes, each apart from the others'."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2

from app.core.permissions import USER_ROLE
from app.models.roles import Role
from tests.faults.ledger import Fact, Ledger, marked
from tests.faults.worlds import http_to
from tests.support.client import API, PASSWORD, Client, Person
from tests.support.people import new_users

PATIENCE_SECONDS = 20
EXTRA_ROLE = "extra"
_TAGS = ("uno", "dos", "trés", "cuatro", "日本", "six words are one tag too")
_LETTERS = "aáñ ßЖ日😀\n\"\\'%_<>&"
# Refused without having been sent.
_NOBODY_THERE = (httpx2.ConnectError, httpx2.ConnectTimeout)
_BUSY = {429, 503}


@dataclass(frozen=True)
class Request:
    """What is sent, and the fact it makes when it is done."""

    method: str
    path: str
    body: dict[str, Any] | None
    key: Fact
    value: Any
    caller: Person | None


@dataclass
class WritingClient:
    """One person's requests, one after the other, until the server ends.

    `cut` counts the requests that were sent and got no answer, by what happened instead;
    `strange` holds answers that are neither success nor 503.
    """

    number: int
    person: Person
    admin: Person
    random: Random
    ledger: Ledger
    role_id: int
    ids: dict[Fact, int] = field(default_factory=dict)
    cut: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    in_flight: bool = False
    _created: int = 0

    def __post_init__(self) -> None:
        account = self.person.account
        self._me: Fact = ("user", account["email"])
        self.ledger.facts[self._me] = (account["name"], (USER_ROLE,), 0, 0)

    async def write(
        self, url: str, *, pause: float = 0, alone: bool = False, until: Callable[[], bool]
    ) -> None:
        """Send requests, `pause` seconds from one to the next at least, until a condition holds
        or nobody answers. `alone`: over a connection of its own each."""
        headers = {"Connection": "close"} if alone else {}
        async with http_to(url, timeout=PATIENCE_SECONDS, headers=headers) as http:
            while not until():
                started = time.monotonic()
                if not await self._send(http, self._next()):
                    return
                await asyncio.sleep(max(0, started + pause - time.monotonic()))

    async def _send(self, http: httpx2.AsyncClient, request: Request) -> bool:
        """Whether there was an answer."""
        headers = request.caller.headers if request.caller else {}
        self.ledger.ask(request.key, request.value)
        self.in_flight = True
        try:
            response = await http.request(
                request.method, f"{API}{request.path}", json=request.body, headers=headers
            )
        except _NOBODY_THERE:
            self.ledger.refuse(request.key)
            return False
        except httpx2.TransportError as error:
            self.cut[type(error).__name__] += 1
            return False
        finally:
            self.in_flight = False
        self._note(request, response)
        return True

    def _note(self, request: Request, response: httpx2.Response) -> None:
        if response.is_success:
            self.ledger.acknowledge(request.key)
            if response.status_code == 201 and request.key[0] == "post":
                self.ids[request.key] = response.json()["id"]
        # Whatever is answered by 503 may be done or not; anything else is a defect.
        elif response.status_code not in _BUSY:
            self.strange.append(f"{request.method} {request.path}: {response.status_code}")

    # --- What is asked for --------------------------------------------------------------------

    def _next(self) -> Request:
        """A request for a fact that is not in doubt."""
        posts = [key for key in self.ids if key not in self.ledger.doubts]
        chance = self.random.random()
        if chance < 0.04:
            return self._registration()
        if chance < 0.12 and self._me not in self.ledger.doubts:
            return self.random.choice([self._renaming, self._role_change])()
        if chance < 0.6 or not posts:
            return self._new_post()
        return self._change_of(self.random.choice(posts))

    def _text(self, most: int) -> str:
        return "".join(self.random.choices(_LETTERS, k=self.random.randint(0, most)))

    def _registration(self) -> Request:
        self._created += 1
        email, name = f"writer{self.number}.{self._created}@example.com", f"Ana {self._created}"
        body = {"email": email, "name": name, "password": PASSWORD}
        state = (name, (USER_ROLE,), 1, 1)
        return Request("POST", "/auth/register", body, ("user", email), state, None)

    def _renaming(self) -> Request:
        name = f"Ñandú {self.random.random()}"
        state = (name, *self.ledger.facts[self._me][1:])
        return Request("PATCH", "/users/me", {"name": name}, self._me, state, self.person)

    def _role_change(self) -> Request:
        name, roles, *mails = self.ledger.facts[self._me]
        method = "PUT" if EXTRA_ROLE not in roles else "DELETE"
        held = tuple(sorted({EXTRA_ROLE, *roles})) if method == "PUT" else (USER_ROLE,)
        path = f"/users/{self.person.id}/roles/{self.role_id}"
        return Request(method, path, None, self._me, (name, held, *mails), self.admin)

    def _new_post(self) -> Request:
        self._created += 1
        mark = f"{self.number}-{self._created}"
        tags = self.random.sample(_TAGS, k=self.random.randint(0, 3))
        content = f"{mark}\n{self._text(self.random.choice([10, 3_000]))}"
        body = {"title": f"Título {mark}", "content": content, "status": "draft", "tags": tags}
        state = (body["title"], content, "draft", tuple(sorted(tags)), 1, False)
        return Request("POST", "/posts", body, marked(content), state, self.person)

    def _change_of(self, key: Fact) -> Request:
        title, content, status, tags, version, deleted = self.ledger.facts[key]
        path, draft = f"/posts/{self.ids[key]}", status == "draft"

        def request(method: str, where: str, body: dict[str, Any] | None, *state: Any) -> Request:
            return Request(method, path + where, body, key, state, self.person)

        if deleted:
            return request(
                "POST", "/restore", None, title, content, status, tags, version + 1, False
            )
        match self.random.choice(["text", "text", "status", "trash"]):
            case "text":
                content, tags = f"{key[1]}\n{self._text(3_000)}", (self.random.choice(_TAGS),)
                body = {"content": content, "tags": [*tags]}
                return request("PATCH", "", body, title, content, status, tags, version + 1, False)
            case "status":
                verb, status = ("PUT", "published") if draft else ("DELETE", "draft")
                state = (title, content, status, tags, version + 1, False)
                return request(verb, "/publication", None, *state)
            case _:
                return request("DELETE", "", None, title, content, status, tags, version + 1, True)


async def writers(
    client: Client, ledger: Ledger, *, seed: int, count: int = 8
) -> list[WritingClient]:
    """So many writers on an empty database, with a role that their admin gives and takes."""
    extra = Role(name=EXTRA_ROLE, granted=[])
    everybody: list[list[str | Role]] = [["user"] for _ in range(count)]
    admin, *people = await new_users(client, ["admin", "user"], *everybody)
    async with client.database.begin() as session:
        session.add(extra)
    ledger.facts[("user", admin.email)] = (admin.account["name"], ("admin", "user"), 0, 0)
    return [
        WritingClient(number, person, admin, Random(f"{seed} {number}"), ledger, extra.id)
        for number, person in enumerate(people)
    ]
