"""What every table shares: the metadata's names, UTC time, soft delete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Executable,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    event,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedColumn,
    ORMExecuteState,
    Session,
    mapped_column,
    with_loader_criteria,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

# SQLite only counts up an INTEGER PRIMARY KEY by itself; MariaDB and PostgreSQL get 64 bits.
BigId = BigInteger().with_variant(Integer(), "sqlite")
TABLE_OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_ci",
    # An id is never given out twice, not even after its row was purged.
    "sqlite_autoincrement": True,
}
INCLUDE_DELETED = "include_deleted"
# `deleted_at` of a row whose purge has begun: it cannot come back without what belonged to it.
PURGE_STARTED = datetime(1970, 1, 1, tzinfo=UTC)
# What `foreign_key` says of a column, in its `info`.
DELETED_WITH, PURGED_AS = "deleted_with", "purged_as"
S = TypeVar("S", bound=Executable)


def utc_now() -> datetime:
    """Return the time now: aware, in UTC, with microseconds."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A date and time, kept in UTC with microseconds on every dialect; refuses naive values.

    MariaDB and SQLite would otherwise drop the offset, and MariaDB the microseconds, silently.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        is_mysql = dialect.name in {"mysql", "mariadb"}
        plain = DateTime(timezone=dialect.name == "postgresql")
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if is_mysql else plain)

    def bind_processor(self, dialect: Dialect) -> Any:
        # Two conversions and a format in one: every row that is written has a few times.
        return _sqlite_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = _in_utc(value)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 the base class's signature
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class DatabaseNow(FunctionElement[datetime]):
    """The time by the database's clock, for what several processes compare: theirs may differ."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(DatabaseNow, "postgresql")
def _now_on_postgresql(*_: object, **__: object) -> str:
    # Not `clock_timestamp()`: that is another for each row, so that no index finds what is due.
    return "statement_timestamp()"


@compiles(DatabaseNow, "mysql")
@compiles(DatabaseNow, "mariadb")
def _now_on_mariadb(*_: object, **__: object) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(DatabaseNow, "sqlite")
def _now_on_sqlite(*_: object, **__: object) -> str:
    # It has milliseconds: rounded up, or what is due by now would be so in the next.
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now', '+0.001 seconds') || '000')"


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def _sqlite_text(value: datetime | None) -> str | None:
    """Return a date and time as SQLAlchemy stores it on SQLite, whose text has no offset."""
    return None if value is None else _in_utc(value).isoformat(" ", "microseconds")[:26]


class Base(DeclarativeBase):
    """The base of all models; constraint names are fixed, as they identify errors."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime()}


def exact_text(length: int) -> String:
    """Text compared byte by byte; MariaDB's default takes `a`, `A` and `á` for the same."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def trash_index() -> Index:
    """Return an index that finds what is in the trash: for the listings of the trash, and to purge.

    Partial where that exists: live rows cost nothing, and SQLite would take it for them too. What
    keeps MariaDB from that is `IsLive`.
    """
    only_trash = text("deleted_at IS NOT NULL")
    return Index(None, "deleted_at", sqlite_where=only_trash, postgresql_where=only_trash)


def foreign_key(
    column: str, *, ondelete: str, deleted_with: str = "", purged_as: str = "", **options: Any
) -> MappedColumn[Any]:
    """Return a foreign key column to `table.id`.

    `deleted_with` says that rows go to the trash with the row they point to, and come back with it:
    it names the column of this table that marks those rows (`db/trash.py`). They are purged with it
    too, whatever `ondelete` says, and so are rows with `purged_as`, the name they are counted by.
    """
    info = {DELETED_WITH: deleted_with, PURGED_AS: purged_as}
    return mapped_column(BigId, ForeignKey(column, ondelete=ondelete), info=info, **options)


class TimestampedModel(Base):
    """A table with a numeric id and the times of creation and last change."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True, sort_order=-1)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, sort_order=90)
    # Set in Python: a server-side value would expire the attribute after each flush.
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now, sort_order=91)


class IsLive(FunctionElement[bool]):
    """Whether `deleted_at` is null, written so that no index is looked up by it.

    Nearly all rows are live. MariaDB takes `deleted_at IS NULL` for a narrow condition whenever an
    index begins with the column: it reads every live row through it, and sorts them all.
    """

    inherit_cache = True


@compiles(IsLive)
def _is_live(element: IsLive, compiler: SQLCompiler, **options: Any) -> str:
    return f"{compiler.process(element.clauses, **options)} IS NULL"


@compiles(IsLive, "mysql")
@compiles(IsLive, "mariadb")
def _is_live_on_mariadb(element: IsLive, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} IS NULL) IS TRUE"


class SoftDelete:
    """Rows that go to the trash first. Every ORM statement passes over them unless it says
    `execution_options(include_deleted=True)`."""

    deleted_at: Mapped[datetime | None] = mapped_column(default=None, sort_order=92)

    @classmethod
    def can_be_restored(cls) -> ColumnElement[bool]:
        """Return the condition for rows in the trash whose purge has not begun."""
        return cls.deleted_at > PURGE_STARTED


class Versioned:
    """Rows that count their changes: `version` is what their ETag begins with."""

    version: Mapped[int] = mapped_column(default=1, sort_order=89)
    updated_at: Mapped[datetime]

    def change(self, **values: object) -> None:
        """Set what differs and count it as one change; nothing happens when nothing differs."""
        differing = {name: value for name, value in values.items() if getattr(self, name) != value}
        if not differing:
            return
        for name, value in differing.items():
            setattr(self, name, value)
        self.version += 1
        self.updated_at = utc_now()


class Guarded:
    """Rows that transactions lock to protect an invariant. `guard` counts the writes that serve
    only to conflict with other nodes of a cluster (`db/guards.py`); no response has it."""

    guard: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0", sort_order=93)


@event.listens_for(Session, "do_orm_execute")
def _hide_deleted(state: ORMExecuteState) -> None:
    if state.is_column_load or state.is_relationship_load:
        return
    if not state.execution_options.get(INCLUDE_DELETED, False):
        state.statement = hiding_deleted(state.statement)


def hiding_deleted(statement: S) -> S:
    """Return the statement with `deleted_at IS NULL` for every soft-deletable entity in it."""
    return statement.options(
        with_loader_criteria(
            SoftDelete, lambda model: IsLive(model.deleted_at), include_aliases=True
        )
    )
