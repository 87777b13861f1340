"""Indexes for every filter and order of the listings.

Revision: 0005, after 0004

posts      by updated_at, published_order and title: with created_at, so that the filters
           created_from and created_to are read from the index too (replaces three)
posts, users  the trash: partial on PostgreSQL, as on SQLite (replaces two)
users      by created_at, name and email: with is_active, for that filter (replaces three)
audit log  by subject_id, with or without subject_type, and by subject_type alone (replaces one)
outbox     by state and by kind, each with the other for both at once

The new ones are created first: the version before uses what it finds. Meanwhile all tables can
be written (MariaDB: ALGORITHM=INPLACE, LOCK=NONE; PostgreSQL: CONCURRENTLY). Can be run again after
it was cut off in the middle, as 0001: an invalid index that PostgreSQL was left with is dropped and
created again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Indexes = Mapping[str, tuple[str, ...]]
POSTS = ("id", "deleted_at", "status", "author_id")
NEW: Mapping[str, Indexes] = {
    "posts": {
        "ix_posts_by_updated_at": ("updated_at", *POSTS, "created_at"),
        "ix_posts_by_published_order": ("published_order", *POSTS, "created_at"),
        "ix_posts_by_title": ("title", *POSTS, "created_at"),
    },
    "users": {
        f"ix_users_{column}_id_deleted_at_is_active": (column, "id", "deleted_at", "is_active")
        for column in ("created_at", "name", "email")
    },
    "audit_events": {
        "ix_audit_events_subject_type_created_at_id": ("subject_type", "created_at", "id"),
        "ix_audit_events_subject_id_created_at_id_subject_type": (
            *("subject_id", "created_at", "id", "subject_type"),
        ),
    },
    "outbox": {
        "ix_outbox_state_created_at_id_kind": ("state", "created_at", "id", "kind"),
        "ix_outbox_kind_created_at_id_state": ("kind", "created_at", "id", "state"),
    },
}
OLD: Mapping[str, Indexes] = {
    "posts": {
        f"ix_posts_{column}_id_deleted_at_status_author_id": (column, *POSTS)
        for column in ("updated_at", "published_order", "title")
    },
    "users": {
        f"ix_users_{column}_id_deleted_at": (column, "id", "deleted_at")
        for column in ("created_at", "name", "email")
    },
    "audit_events": {
        "ix_audit_events_subject_type_subject_id_created_at_id": (
            *("subject_type", "subject_id", "created_at", "id"),
        ),
    },
    "outbox": {},
}
WITH_TRASH = ("posts", "users")


def upgrade() -> None:
    replace(NEW, OLD)
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            make_trash_indexes(partial=True)


def downgrade() -> None:
    replace(OLD, NEW)
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            make_trash_indexes(partial=False)


def replace(wanted: Mapping[str, Indexes], unwanted: Mapping[str, Indexes]) -> None:
    """Make what is missing of some indexes, then drop what is left of others."""
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        with op.get_context().autocommit_block():
            for statement in concurrently(wanted, unwanted):
                op.execute(statement)
        return
    for table, indexes in wanted.items():
        existing = {str(each["name"]) for each in sa.inspect(op.get_bind()).get_indexes(table)}
        missing = {name: indexes[name] for name in indexes if name not in existing}
        left = [name for name in unwanted[table] if name in existing]
        if dialect == "mysql":
            alter(table, missing, left)
        else:
            for name, columns in missing.items():
                op.create_index(name, table, list(columns))
            for name in left:
                op.drop_index(name, table)


def alter(table: str, missing: Indexes, left: list[str]) -> None:
    """Do all of it in one statement, which reads the table once and is done entirely or not."""
    changes = [f"ADD INDEX {name} ({', '.join(columns)})" for name, columns in missing.items()]
    changes += [f"DROP INDEX {name}" for name in left]
    if changes:
        op.execute(f"ALTER TABLE {table} {', '.join(changes)}, ALGORITHM=INPLACE, LOCK=NONE")


def concurrently(wanted: Mapping[str, Indexes], unwanted: Mapping[str, Indexes]) -> Iterator[str]:
    """The statements for PostgreSQL, each computed when those before it were executed."""
    for table, indexes in wanted.items():
        for name, columns in indexes.items():
            yield from made(table, name, columns)
        for name in unwanted[table]:
            yield f"DROP INDEX CONCURRENTLY IF EXISTS {name}"


def made(table: str, name: str, columns: tuple[str, ...], where: str = "") -> Iterator[str]:
    """Make an index, unless it is there as it should be."""
    described = sa.text(
        "SELECT indisvalid, indpred IS NOT NULL FROM pg_index WHERE indexrelid = to_regclass(:name)"
    )
    found = op.get_bind().execute(described, {"name": name}).one_or_none()
    if found is None or tuple(found) != (True, bool(where)):
        yield f"DROP INDEX CONCURRENTLY IF EXISTS {name}"
        yield f"CREATE INDEX CONCURRENTLY {name} ON {table} ({', '.join(columns)}){where}"


def make_trash_indexes(*, partial: bool) -> None:
    """Make the indexes of what is in the trash, for the live rows too or without them."""
    where = " WHERE deleted_at IS NOT NULL" if partial else ""
    for table in WITH_TRASH:
        for statement in made(table, f"ix_{table}_deleted_at", ("deleted_at",), where):
            op.execute(statement)
