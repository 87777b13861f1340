"""Statements that write, prepared once for the dialect; `app/db/transactions.py` runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, UpdateBase, inspect
from sqlalchemy import insert as insertion

from app.db.parameters import Parameter, arguments_of, parameter
from app.db.write_counters import WriteKind
from app.models.base import Base, UtcDateTime


class PreparedWrite:
    """A statement that writes, with bind parameters, all of which must be given each time it
    runs; compiled once for the dialect."""

    def __init__(self, statement: UpdateBase, kind: WriteKind) -> None:
        self.statement = statement
        self.kind = kind
        self._compiled: dict[str, CompiledWrite] = {}

    def compiled(self, dialect: Dialect) -> CompiledWrite:
        """Return the statement as the driver takes it."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = CompiledWrite.of(self.statement, dialect)
        return found


@dataclass(frozen=True, slots=True)
class CompiledWrite:
    """A write as one driver takes it."""

    table: str
    sql: str
    positional: bool
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, statement: Any, dialect: Dialect) -> CompiledWrite:
        compiled: Any = statement.compile(dialect=dialect)
        names = compiled.positiontup if compiled.positional else list(compiled.binds)
        return cls(
            table=statement.table.name,
            sql=str(compiled),
            positional=compiled.positional,
            parameters=tuple(parameter(name, compiled.binds[name], dialect) for name in names),
        )

    def arguments(self, parameters: dict[str, Any]) -> Any:
        return arguments_of(self.parameters, parameters, positional=self.positional)


@dataclass(frozen=True, slots=True)
class Insertion:
    """The INSERT of one row of a model, as one driver takes it."""

    table: str
    sql: str
    positional: bool
    parameters: tuple[Parameter, ...]
    defaults: dict[str, Callable[[Any], Any]]
    datetime_columns: tuple[str, ...]
    key: str  # that the database generates
    returns_key: bool

    def complete(self, values: dict[str, Any]) -> dict[str, Any]:
        missing = {
            name: default(None) for name, default in self.defaults.items() if name not in values
        }
        return missing | values

    def arguments(self, row: dict[str, Any]) -> Any:
        return arguments_of(self.parameters, row, positional=self.positional)


_insertions: dict[tuple[type[Base], str], Insertion] = {}


def insertion_into(model: type[Base], dialect: Dialect) -> Insertion:
    """Return the INSERT of one row of a model."""
    found = _insertions.get((model, dialect.name))
    if found is None:
        found = _insertions[model, dialect.name] = _prepared(model, dialect)
    return found


def _prepared(model: type[Base], dialect: Dialect) -> Insertion:
    table: Any = inspect(model).local_table
    columns = [each for each in table.columns if each.computed is None]
    columns = [each for each in columns if each is not table.autoincrement_column]
    compiled: Any = insertion(table).compile(
        dialect=dialect, column_keys=[each.key for each in columns]
    )
    names = compiled.positiontup if compiled.positional else list(compiled.binds)
    return Insertion(
        table=table.name,
        sql=str(compiled),
        positional=compiled.positional,
        parameters=tuple(parameter(name, compiled.binds[name], dialect) for name in names),
        defaults={each.key: _default(each) for each in columns},
        datetime_columns=tuple(each.key for each in columns if isinstance(each.type, UtcDateTime)),
        key=getattr(table.autoincrement_column, "key", ""),
        returns_key=bool(compiled.effective_returning),
    )


def _default(column: Any) -> Callable[[Any], Any]:
    default = column.default
    if default is None:
        return lambda _: None
    if default.is_callable:
        function: Callable[[Any], Any] = default.arg
        return function
    return lambda _: default.arg
