"""The tables of a migrated database: whether all is there, and may be read and written."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import (
    Connection,
    Executable,
    Inspector,
    Table,
    UniqueConstraint,
    delete,
    false,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from app.cli.doctor.findings import (
    Finding,
    Findings,
    comma_separated,
    failure,
    good,
    reason,
    warning,
)
from app.config import Settings
from app.db.engine import Database
from app.models import Base
from app.models.search import SearchRow

_MAX_SHOWN = 10


async def check_schema(database: Database, _: Settings) -> Findings:
    """Check that every table, column and index of the models is there."""
    async with database.probing.connect() as connection:
        missing, slow = await connection.run_sync(_missing)
    found: list[Finding] = []
    if missing:
        remedy = "The tables were changed: restore a backup, or create what is missing by hand."
        found.append(failure("schema", f"missing: {_named(missing)}", remedy))
    if slow:
        remedy = "Listings read whole tables without them: make them as the migrations do."
        found.append(warning("schema", f"missing indexes: {_named(slow)}", remedy))
    return found or [good("schema", "all tables, columns and indexes are there")]


def _missing(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the tables and columns that are missing, and the indexes."""
    looked, missing, slow = inspect(connection), [], []
    there = {*looked.get_table_names()}
    for table in Base.metadata.tables.values():
        if table.name not in there:
            missing.append(table.name)
            continue
        columns = {column["name"] for column in looked.get_columns(table.name)}
        missing += [
            f"{table.name}.{each.name}" for each in table.columns if each.name not in columns
        ]
        slow += sorted(_indexes_of(table, connection) - _indexes_there(looked, table))
    return missing, slow


def _indexes_of(table: Table, connection: Connection) -> set[str]:
    """Return the names of a model's indexes and unique constraints on this kind of database."""
    # SQLite's words are indexed by tables of their own (`app/models/search.py`).
    searched = {model.__tablename__ for model in SearchRow.__subclasses__()}
    if connection.dialect.name == "sqlite" and table.name in searched:
        return set()
    unique = (each for each in table.constraints if isinstance(each, UniqueConstraint))
    return {*(str(each.name) for each in table.indexes), *(str(each.name) for each in unique)}


def _indexes_there(looked: Inspector, table: Table) -> set[str]:
    found = [*looked.get_indexes(table.name), *looked.get_unique_constraints(table.name)]
    return {str(each["name"]) for each in found}


async def check_privileges(database: Database, _: Settings) -> Findings:
    """Check that the user of the URL may read and write every table. Write nothing: each statement
    is for no row, and undone."""
    refused: dict[str, str] = {}
    async with database.probing.connect() as connection:
        for table in Base.metadata.tables.values():
            for verb, statement in _statements(table):
                try:
                    await connection.execute(statement)
                except DBAPIError as error:
                    refused.setdefault(f"{verb} {table.name}", reason(error))
                    await connection.rollback()
        await connection.rollback()
    if not refused:
        return [good("privileges", "all tables may be read and written")]
    remedy = "GRANT SELECT, INSERT, UPDATE, DELETE on all tables to the user of DATABASE_URL."
    why = next(iter(refused.values()))
    return [failure("privileges", f"refused: {_named([*refused])} ({why})", remedy)]


def _statements(table: Table) -> Iterator[tuple[str, Executable]]:
    """Yield a statement of each kind, for no row."""
    written = [column for column in table.columns if column.computed is None]
    nothing = select(*written).where(false())
    yield "SELECT", nothing
    # What a model fills in by itself would be asked for, too.
    yield "INSERT", insert(table).from_select(written, nothing, include_defaults=False)
    yield "UPDATE", update(table).values({written[0]: written[0]}).where(false())
    yield "DELETE", delete(table).where(false())


def _named(names: list[str]) -> str:
    more = len(names) - _MAX_SHOWN
    return comma_separated(names[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
