"""The words of posts, users and tags, for the full-text index of each kind of database.

A table beside each: what a listing reads stays small. On SQLite the index is a table of its own
(FTS5, `fts_` and the table's name) that triggers update; it is in no metadata. The listeners
below index what the ORM writes, in the same flush; code that inserts in bulk, or past the ORM,
indexes it itself, or `db/search_index.py` does so later.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import Connection, Index, Text, event, insert, inspect, update
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from app.core.words import index_words
from app.models.base import TABLE_OPTIONS, Base, foreign_key
from app.models.posts import Post
from app.models.tags import Tag
from app.models.users import User

# Words in ASCII, compared as they are: on MariaDB the index goes by the column's collation.
_WORDS = (
    Text()
    .with_variant(mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(TSVECTOR(), "postgresql")
)


# SQLite's index of one of these tables, and its triggers, as the migrations create them. A backup
# has neither: a restore rebuilds the index from the table.
FTS = (
    "CREATE VIRTUAL TABLE fts_{searched} USING fts5(words, content='{table}',"
    " content_rowid='id', tokenize='ascii', detail='none', columnsize=0, prefix='4')",
    "CREATE TRIGGER fts_{searched}_made AFTER INSERT ON {table} BEGIN"
    " INSERT INTO fts_{searched} (rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER fts_{searched}_gone AFTER DELETE ON {table} BEGIN"
    " INSERT INTO fts_{searched} (fts_{searched}, rowid, words)"
    " VALUES ('delete', old.id, old.words); END",
    "CREATE TRIGGER fts_{searched}_changed AFTER UPDATE ON {table} BEGIN"
    " INSERT INTO fts_{searched} (fts_{searched}, rowid, words)"
    " VALUES ('delete', old.id, old.words);"
    " INSERT INTO fts_{searched} (rowid, words) VALUES (new.id, new.words); END",
)
_REBUILD = "INSERT INTO fts_{searched} (fts_{searched}) VALUES ('rebuild')"


class SearchRow(Base):
    """The words of the row with the same id."""

    __abstract__ = True

    id: Mapped[int]
    words: Mapped[str] = mapped_column(_WORDS, sort_order=1)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Any, ...]:
        index = Index(None, "words", mysql_prefix="FULLTEXT", postgresql_using="gin")
        # An ordinary one would be of no use, and hold all the words once more.
        return (index.ddl_if(callable_=cast("Any", _is_on_server)), TABLE_OPTIONS)


def _is_on_server(*_: Any, dialect: Any, **__: Any) -> bool:
    return str(dialect.name) != "sqlite"


class PostSearch(SearchRow):
    """The words of a post's title and content."""

    __tablename__ = "post_search"

    id: Mapped[int] = foreign_key("posts.id", ondelete="CASCADE", primary_key=True)


class UserSearch(SearchRow):
    """The words of a user's name and e-mail address."""

    __tablename__ = "user_search"

    id: Mapped[int] = foreign_key("users.id", ondelete="CASCADE", primary_key=True)


class TagSearch(SearchRow):
    """The words of a tag's name."""

    __tablename__ = "tag_search"

    id: Mapped[int] = foreign_key("tags.id", ondelete="CASCADE", primary_key=True)


# What is searched, and by which of its columns.
SEARCHED: dict[type[SearchRow], tuple[type[Any], tuple[str, ...]]] = {
    PostSearch: (Post, ("title", "content")),
    UserSearch: (User, ("name", "email")),
    TagSearch: (Tag, ("name",)),
}


def fts_statements(tables: Collection[str]) -> list[str]:
    """Return the statements that create and fill SQLite's indexes of those of the tables that have
    one."""
    names = [
        {"table": model.__tablename__, "searched": searched.__tablename__}
        for model, (searched, _) in SEARCHED.items()
        if model.__tablename__ in tables
    ]
    return [each.format(**named) for named in names for each in (*FTS, _REBUILD)]


def _index_writes(table: Any, model: type[Any], columns: tuple[str, ...]) -> None:
    """Listen for writes of the ORM, and write the words of each row."""

    def words_of(row: Any) -> str:
        return index_words(*[getattr(row, name) for name in columns])

    @event.listens_for(model, "after_insert")
    def insert_words(_: Any, connection: Connection, row: Any) -> None:
        connection.execute(insert(table).values(id=row.id, words=words_of(row)))

    @event.listens_for(model, "after_update")
    def update_words(_: Any, connection: Connection, row: Any) -> None:
        state: Any = inspect(row)
        if any(state.attrs[name].history.has_changes() for name in columns):
            written = update(table).where(table.c.id == row.id).values(words=words_of(row))
            # A row of an older version may have none yet.
            if connection.execute(written).rowcount == 0:
                connection.execute(insert(table).values(id=row.id, words=words_of(row)))


for _model, (_searched, _columns) in SEARCHED.items():
    _index_writes(_model.__table__, _searched, _columns)
