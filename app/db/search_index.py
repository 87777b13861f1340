"""Index the words of rows that lack them: rows written before the index existed, by an older
version that served on during a migration, or in bulk."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.words import index_words
from app.db.engine import Database
from app.models.base import INCLUDE_DELETED
from app.models.search import SEARCHED, SearchRow

BATCH = 500


async def fill(database: Database) -> int:
    """Write the words of all rows that have none yet, in batches; return how many rows that were.

    Harmless while servers write, and when run twice or cut off.
    """
    total = 0
    for model in SEARCHED:
        last = 0
        while rows := await _missing(database, model, last):
            last = rows[-1]["id"]
            total += await _written(database, model, rows)
    return total


async def _written(database: Database, model: type[SearchRow], rows: list[dict[str, Any]]) -> int:
    """Write the words of some rows, all at once if nobody has written or deleted one meanwhile;
    return how many rows that were."""
    try:
        await database.run(partial(_write, model=model, rows=rows))
    except IntegrityError:
        if len(rows) == 1:
            return 0
        return sum([await _written(database, model, [row]) for row in rows])
    return len(rows)


async def _missing(database: Database, model: type[SearchRow], last: int) -> list[dict[str, Any]]:
    searched, columns = SEARCHED[model]
    texts = [getattr(searched, name) for name in columns]
    statement = (
        select(searched.id, *texts)
        .outerjoin(model, model.id == searched.id)
        .where(searched.id > last, model.id.is_(None))
        .order_by(searched.id)
        .limit(BATCH)
        .execution_options(**{INCLUDE_DELETED: True})
    )
    async with database.begin(readonly=True) as session:
        found = await session.execute(statement)
        return [{"id": row[0], "words": index_words(*row[1:])} for row in found]


async def _write(session: AsyncSession, model: type[SearchRow], rows: list[dict[str, Any]]) -> None:
    await session.execute(insert(model), rows)
