"""Searches for words by the full-text index of each kind of database.

    SQLite      FTS5, in tables of its own    fts_posts MATCH 'wana* wlo*'
    MariaDB     InnoDB FULLTEXT               MATCH (words) AGAINST ('+wana* +wlo*' IN BOOLEAN MODE)
    PostgreSQL  tsvector, GIN                 words @@ 'wana:* & wlo:*'

What is searched for are words of `app/core/words.py`: letters and digits of ASCII, which no query
language takes for an operator. A common word is found sooner by looking at the rows of a listing
in their order, one after the other, and testing each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Select, String, bindparam, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from app.models.search import SearchRow

_PARAMETERS = ("words_fts5", "words_boolean", "words_tsquery", "words_json", "words_pattern")


def search_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of a Search for the beginnings of words."""
    return {
        "words_fts5": " ".join(f"{word}*" for word in words),
        "words_boolean": " ".join(f"+{word}*" for word in words),
        "words_tsquery": " & ".join(f"{word}:*" for word in words),
        "words_json": json.dumps([f" {word}" for word in words]),
        "words_pattern": "^" + "".join(f"(?=.* {word})" for word in words),
    }


class _Match(FunctionElement[Any]):
    """Whether the index finds the words in a column. Clauses: the column, the parameters."""

    # No Boolean: that would be compared with 1, and no index be used.
    type = NullType()
    inherit_cache = True


class _Test(FunctionElement[bool]):
    """Whether a column has the words. Clauses: the column, the parameters."""

    type = Boolean()
    inherit_cache = True


class Unindexed(FunctionElement[Any]):
    """A column by which no index is to be chosen. Only SQLite needs the hint: it has no estimate
    of how many rows a search finds."""

    inherit_cache = True

    def __init__(self, column: Any) -> None:
        super().__init__(column)
        self.type = column.type


def _parameters() -> list[Any]:
    return [bindparam(name, type_=String()) for name in _PARAMETERS]


def _found(model: type[SearchRow]) -> Select[int]:
    """Select the ids of rows that have the words, by the index, in no order."""
    return select(model.id).where(_Match(model.words, *_parameters()))


def _test(model: type[SearchRow], row_id: Any) -> ColumnElement[bool]:
    """Whether the row with an id has the words: for as many rows as are looked at."""
    test = select(_Test(model.words, *_parameters())).where(model.id == row_id)
    return test.correlate_except(model).scalar_subquery()


@dataclass(frozen=True, eq=False)
class Search:
    """How the rows of a listing that have the words of a search are found; its parameters are
    those of `search_parameters`.

    `found` selects their ids by the index, `test` says of one row whether it is one of them.
    """

    found: Select[int]
    test: ColumnElement[bool]

    @classmethod
    def of(cls, model: type[SearchRow], row_id: Any) -> Search:
        """Return the search of a listing of the rows with these ids."""
        return cls(_found(model), _test(model, row_id))


@compiles(_Match, "sqlite")
def _sqlite_match(element: Any, compiler: Any, **options: Any) -> str:
    column, parameter, *_ = element.clauses
    fts = f"fts_{column.table.name.removesuffix('_search')}s"
    matched = f"{fts} MATCH {compiler.process(parameter, **options)}"
    return f"{column.table.name}.id IN (SELECT rowid FROM {fts} WHERE {matched})"  # noqa: S608 ours


@compiles(_Match, "mysql")
@compiles(_Match, "mariadb")
def _mariadb_match(element: Any, compiler: Any, **options: Any) -> str:
    column, _, parameter, *_ = element.clauses
    sides = [compiler.process(each, **options) for each in (column, parameter)]
    return "MATCH ({}) AGAINST ({} IN BOOLEAN MODE)".format(*sides)


@compiles(_Match, "postgresql")
@compiles(_Test, "postgresql")
def _postgresql_match(element: Any, compiler: Any, **options: Any) -> str:
    column, _, _, parameter, *_ = element.clauses
    sides = [compiler.process(each, **options) for each in (column, parameter)]
    return "({} @@ CAST({} AS TSQUERY))".format(*sides)


@compiles(_Test, "sqlite")
def _sqlite_test(element: Any, compiler: Any, **options: Any) -> str:
    column, *_, words, _ = element.clauses
    text, sought = [compiler.process(each, **options) for each in (column, words)]
    missing = f"instr(' ' || {text}, json_each.value) = 0"
    return f"NOT EXISTS (SELECT 1 FROM json_each({sought}) WHERE {missing})"  # noqa: S608 ours


@compiles(_Test, "mysql")
@compiles(_Test, "mariadb")
def _mariadb_test(element: Any, compiler: Any, **options: Any) -> str:
    column, *_, pattern = element.clauses
    text, sought = [compiler.process(each, **options) for each in (column, pattern)]
    return f"(CONCAT(' ', {text}) REGEXP {sought})"


@compiles(Unindexed)
def _unindexed(element: Any, compiler: Any, **options: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **options))


@compiles(Unindexed, "sqlite")
def _sqlite_unindexed(element: Any, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(next(iter(element.clauses)), **options)}"
