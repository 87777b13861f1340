"""The parts of an entry."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.permissions import Permission
from tests.support.client import Client, Person
from tests.support.matrix import Scenario, World
from tests.support.openapi import parameters_of
from tests.support.people import new_user
from tests.support.response_shapes import Shape

numbers = itertools.count(1)
Body = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """How an operation, about one kind of target, answers each actor of `ACTORS`.

    `scenario` makes the target, says whose it is, and has a valid body. `shape` is that of the
    body of a success. `permission` allows the operation on another user's row.
    """

    statuses: tuple[int, ...]
    scenario: Callable[[World], Awaitable[Scenario]]
    shape: Shape | None
    permission: Permission | None = None
    if_match: bool = False


@dataclass
class Filled:
    """An admin, and one row of each kind in the state that each writing operation needs."""

    admin: Person
    ids: dict[str, int] = field(default_factory=dict)
    # By operation: members of its body that had to be created first.
    members: dict[str, dict[str, Any]] = field(default_factory=dict)


async def nothing_to_fill(_: Filled) -> None: ...


async def no_references(_: Person) -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Entry:
    """A resource, by the tag of its operations.

    `cases` are by operation, or by `operation:form` for a target in another form (`:draft`);
    `hidden` are those about a row that others must not learn of. `bodies` build a new valid body
    for each path that creates; `references` make the rows that the path and the body of a new one
    point to, by the parameter of the path or the member of the body. `writes` are a valid call of
    each writing operation, on the rows that `fill` makes. `row_ids` make a row for a path
    parameter; `noun_id` of a nested collection is created by `create_rows`, on the parent that is
    there. `listing_rows` make so many rows in each listing of the resource, given the ids of the
    listings' paths; without it, `create_rows` makes them in the listing of the collection.
    `tagged` are the shapes that are shown with an ETag. `collection` is the path of rows that
    `create_noun` creates and `update_noun` changes, with a body like `change` and not with one like
    `invalid`; `is_unique` says that the same body cannot be created twice.
    """

    tag: str
    cases: Mapping[str, Case]
    hidden: tuple[str, ...] = ()
    bodies: Mapping[str, Callable[[int], Body]] = field(default_factory=dict)
    references: Callable[[Person], Awaitable[dict[str, int]]] = no_references
    writes: Mapping[str, tuple[str, str, object]] = field(default_factory=dict)
    fill: Callable[[Filled], Awaitable[None]] = nothing_to_fill
    row_ids: Mapping[str, Callable[[Client, Person], Awaitable[int]]] = field(default_factory=dict)
    listing_rows: Callable[[Person, int, Mapping[str, int]], Awaitable[None]] | None = None
    tagged: tuple[Shape, ...] = ()
    collection: str = ""
    noun: str = ""
    is_unique: bool = True
    change: Body = field(default_factory=dict)
    invalid: Body = field(default_factory=dict)

    @staticmethod
    def at(path: str, ids: Mapping[str, int]) -> tuple[str, Body]:
        """Return a path with the ids of `references`, and what of these goes into the body."""
        in_body = {name: value for name, value in ids.items() if f"{{{name}}}" not in path}
        return path.format(**ids), in_body

    async def create_rows(
        self, admin: Person, number: int, known: Mapping[str, int]
    ) -> dict[str, int]:
        """Create rows of the collection, on the known parents if all are known; return the ids in
        the path of the last one."""
        parents = parameters_of(self.collection)
        ids = await self.references(admin)
        if all(name in known for name in parents):
            ids |= {name: known[name] for name in parents}
        path, members = self.at(self.collection, ids)
        created_ids = {name: ids[name] for name in parents}
        for _ in range(number):
            created = await admin.post(path, self.bodies[self.collection](next(numbers)) | members)
            assert created.status_code == 201, created.text
            created_ids[f"{self.noun}_id"] = created.json()["id"]
        return created_ids


async def nothing(world: World) -> Scenario:
    """A call that is about nobody's row."""
    return Scenario(await new_user(world.root))
