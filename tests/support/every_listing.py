"""Every listing of the API, found in its OpenAPI document, and rows to list in each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select, update

from app.core.permissions import USER_ROLE
from app.models.base import SoftDelete, TimestampedModel, utc_now
from app.models.roles import Role
from app.resources import RESOURCES
from tests.contract.resources import ENTRIES, path_ids
from tests.support import listings
from tests.support.client import API, Client, Person
from tests.support.openapi import parameters_of

# The collections that `listings.fill` fills.
_FILLED_IN_BULK = {"/users", "/roles", "/posts"}
_OTHER_ENTRIES = [
    entry
    for entry in ENTRIES
    if entry.listing_rows or (entry.collection and entry.collection not in _FILLED_IN_BULK)
]
_NESTED = {f"{API}{entry.collection}" for entry in ENTRIES if parameters_of(entry.collection)}


@dataclass(frozen=True)
class ListingOperation:
    """A listing's path, its sorts, whether it can show the trash, and whether it is a nested
    collection, whose parent may be looked at first."""

    path: str
    sorts: tuple[str, ...]
    has_trash: bool
    is_nested: bool


def _found(client: Client) -> list[ListingOperation]:
    """Return each operation that takes a cursor, with the parameters in its path."""
    found = []
    for _, path, operation in client.contract.operations.values():
        parameters = {entry["name"]: entry for entry in operation.get("parameters", [])}
        if "cursor" in parameters:
            sorts = tuple(parameters["sort"]["schema"]["enum"])
            has_trash, is_nested = "deleted" in parameters, path in _NESTED
            found.append(ListingOperation(path, sorts, has_trash, is_nested))
    assert len(found) >= 9
    return found


async def listing_ids(admin: Person) -> dict[str, int]:
    """Return the ids in the paths of listings: the admin's, the role `user`'s, and new rows'.

    Asks for no listing, whose total would be remembered from then on.
    """
    async with admin.database.begin(readonly=True) as session:
        role_id = (await session.scalars(select(Role.id).where(Role.name == USER_ROLE))).one()
    names = {name for listing in _found(admin) for name in parameters_of(listing.path)}
    ids = await path_ids(admin, admin, names, {"user_id": admin.id, "role_id": role_id})
    assert names <= ids.keys(), "Add what is missing to the row_ids of its entry."
    return ids


def every_listing(client: Client, ids: Mapping[str, int]) -> list[ListingOperation]:
    """Return each listing, with these ids in its path."""
    return [
        ListingOperation(each.path.format(**ids), each.sorts, each.has_trash, each.is_nested)
        for each in _found(client)
    ]


async def fill_listings(
    admin: Person, ids: Mapping[str, int], number: int, *, prefix: str = "Row"
) -> None:
    """Put so many rows into every listing, or a few more."""
    await listings.fill(admin, number, prefix=prefix)
    for entry in _OTHER_ENTRIES:
        if entry.listing_rows:
            await entry.listing_rows(admin, number, ids)
        else:
            # One more, as of the others there is one that a test needs anyway.
            await entry.create_rows(admin, number + 1, ids)


def _models_of(tags: Collection[str]) -> list[type[TimestampedModel]]:
    models = [model for each in RESOURCES if each.tag in tags for model in each.models]
    return [model for model in models if issubclass(model, TimestampedModel)]


async def make_ties(admin: Person) -> None:
    """Give rows of every table of a listing the same times, three by three."""
    await listings.make_ties(admin, *_models_of({entry.tag for entry in _OTHER_ENTRIES}))


async def delete_listed(admin: Person, ids: Mapping[str, int]) -> None:
    """Put what is in the listings that can show the trash into it, but for the rows of the ids."""
    with_trash = {each.path for each in _found(admin) if each.has_trash}
    async with admin.database.begin() as session:
        for entry in ENTRIES:
            if f"{API}{entry.collection}" not in with_trash:
                continue
            kept = [ids[name] for name in entry.row_ids if name in ids]
            for model in _models_of({entry.tag}):
                if issubclass(model, SoftDelete):
                    rows = update(model).where(model.id.not_in(kept))
                    await session.execute(rows.values(deleted_at=utc_now()))
