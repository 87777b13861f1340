"""Repairs of what is kept beside rows, where it is missing or wrong.

A version that does not keep it may have served beside this one (docs/adr/0022).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from app.crud import tags
from app.db import search_index
from app.db.engine import Database


async def repair_tag_counts(database: Database) -> int:
    """Correct `Tag.post_count` where it is wrong; return how many were.

    Found without locks, then counted again one by one with the tag locked, each in a transaction
    of its own.
    """
    repaired = last = 0
    while True:
        async with database.begin(readonly=True) as session:
            last, wrong = await tags.find_miscounted(session, after=last)
        for tag_id in wrong:
            repaired += await database.run(partial(tags.recount, tag_id=tag_id))
        if not last:
            return repaired


REPAIRS: Mapping[str, Callable[[Database], Awaitable[int]]] = {
    "counts of tags": repair_tag_counts,
    "words of rows": search_index.fill,
}
