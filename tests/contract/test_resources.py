"""The registry of what is served is whole, and what is true elsewhere follows from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from app.core.permissions import USER_ROLE, Permission
from app.models import Base
from app.resources import RESOURCES
from tests.contract import resources
from tests.contract.entries import posts
from tests.contract.entries.base import Entry
from tests.support.client import Client
from tests.support.people import GRANTED_TO_USERS


def test_every_table_belongs_to_one_resource() -> None:
    models = Counter(model for each in RESOURCES for model in each.models)
    assert models == Counter({mapper.class_ for mapper in Base.registry.mappers})


def test_every_permission_belongs_to_one_resource() -> None:
    permissions = Counter(name for each in RESOURCES for name in each.permissions)
    assert permissions == Counter([*Permission])


def test_every_tag_is_described_once() -> None:
    described = Counter(each.tag for each in RESOURCES if each.description)
    assert described == Counter({each.tag for each in RESOURCES})


def test_what_an_entry_lacks_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {row: case for row, case in posts.ENTRY.cases.items() if row != "create_post"}
    lacking = replace(posts.ENTRY, cases=cases, bodies={}, writes={})
    without_tags = [
        lacking,
        *(each for each in resources.ENTRIES if each.tag not in {"posts", "tags"}),
    ]
    monkeypatch.setattr(resources, "ENTRIES", without_tags)
    sentences = resources.missing()
    where = "of the entry 'posts' (tests/contract/entries/posts.py)."
    assert f"Add 'create_post' to the cases {where}" in sentences
    assert f"Add 'update_post' to the writes {where}" in sentences
    assert f"Add a body for '/api/v1/posts' to the bodies {where}" in sentences
    assert [each for each in sentences if "'tags'" in each] == [
        "Add an ENTRY for the tag 'tags' to tests/contract/entries/, and to ENTRIES in"
        " tests/contract/resources.py."
    ]


@pytest.mark.parametrize("entry", resources.COLLECTIONS, ids=lambda entry: entry.noun)
async def test_bodies_of_an_entry_are_what_it_says(client: Client, entry: Entry) -> None:
    admin = await client.admin()
    collection, members = entry.at(entry.collection, await entry.references(admin))
    body = entry.bodies[entry.collection](1) | members
    created = await admin.post(collection, body)
    assert created.status_code == 201
    assert (await admin.post(collection, body)).is_success is not entry.is_unique
    path = created.headers["location"]
    assert (await admin.patch(path, entry.invalid)).status_code == 422
    changed = await admin.patch(path, entry.change)
    assert changed.status_code == 200
    assert entry.change.items() <= changed.json().items()


async def test_the_migrations_give_the_role_user_what_the_resources_say(client: Client) -> None:
    ana = await client.user()
    assert [role["name"] for role in await _roles(ana)] == [USER_ROLE]
    assert (await ana.get("/users/me")).json()["permissions"] == GRANTED_TO_USERS


async def _roles(person: Client) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (await person.get("/users/me")).json()["roles"]
    return found
