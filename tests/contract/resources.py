"""What the cross-cutting tests go by: one entry for each tag of `app/resources.py`.

To add a resource, add a module to `tests/contract/entries/` and its `ENTRY` here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from app.resources import RESOURCES
from tests.contract.entries import auth, operations, posts, roles, tags, users
from tests.contract.entries.base import Entry
from tests.support.client import Client, Person
from tests.support.document import documented
from tests.support.matrix import operation_of
from tests.support.openapi import parameters_of

ENTRIES: tuple[Entry, ...] = (
    auth.ENTRY,
    users.ENTRY,
    roles.ENTRY,
    posts.ENTRY,
    tags.ENTRY,
    operations.ENTRY,
)
CASES = {row: case for entry in ENTRIES for row, case in entry.cases.items()}
SCENARIOS = {row: case.scenario for row, case in CASES.items()}
RESPONSE_SHAPES = {operation_of(row): case.shape for row, case in CASES.items()}
# The permission that allows an operation on another user's row.
REQUIRED_PERMISSION = {row: case.permission for row, case in CASES.items() if case.permission}
TAKES_IF_MATCH = {operation_of(row) for row, case in CASES.items() if case.if_match}
TAGGED_SHAPES = [shape for entry in ENTRIES for shape in entry.tagged]
# Rows that others must not learn of, and the resource that each is of.
HIDDEN = {row: entry for entry in ENTRIES for row in entry.hidden}
WRITE_REQUESTS = {name: call for entry in ENTRIES for name, call in entry.writes.items()}
COLLECTIONS = [entry for entry in ENTRIES if entry.collection]


async def path_ids(
    client: Client, admin: Person, names: Collection[str], known: Mapping[str, int]
) -> dict[str, int]:
    """Return what is known, and ids for the path parameters of these names.

    They are of new rows. A row of a nested collection is created on the parent that the ids name.
    """
    ids = dict(known)
    for entry in sorted(ENTRIES, key=lambda each: len(parameters_of(each.collection))):
        for name, make in entry.row_ids.items():
            if name not in names or name in ids:
                continue
            if parameters_of(entry.collection) and name == f"{entry.noun}_id":
                ids |= await entry.create_rows(admin, 1, ids)
            else:
                ids[name] = await make(client, admin)
    return ids


def missing() -> list[str]:
    """Return what has to be added, in one sentence for each thing."""
    entries = {entry.tag: entry for entry in ENTRIES}
    sentences = [
        f"Add an ENTRY for the tag {tag!r} to tests/contract/entries/, and to ENTRIES in"
        " tests/contract/resources.py."
        for tag in dict.fromkeys(each.tag for each in RESOURCES)
        if tag not in entries
    ]
    for name, (method, path, operation) in documented().operations.items():
        (tag,) = operation["tags"]
        if tag in entries:
            sentences += _missing_of(entries[tag], name, method, path, operation["responses"])
    return sentences


def _missing_of(
    entry: Entry, name: str, method: str, path: str, responses: dict[str, object]
) -> list[str]:
    where = f"of the entry {entry.tag!r} (tests/contract/entries/{entry.tag}.py)."
    sentences = []
    if name not in map(operation_of, entry.cases):
        sentences.append(f"Add {name!r} to the cases {where}")
    if method != "get" and name not in entry.writes:
        sentences.append(f"Add {name!r} to the writes {where}")
    if "201" in responses and path.removeprefix("/api/v1") not in entry.bodies:
        sentences.append(f"Add a body for {path!r} to the bodies {where}")
    return sentences
