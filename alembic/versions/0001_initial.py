"""Users, roles, posts, tags, sessions and the outbox; the system roles.

Revision: 0001, after None

Can be run again after it was cut off in the middle: MariaDB commits each DDL statement by
itself, so a killed run leaves some of the tables behind.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
TABLES = (
    "roles",
    "tags",
    "users",
    "outbox",
    "posts",
    "role_permissions",
    "sessions",
    "user_roles",
    "post_tags",
)
SYSTEM_ROLES = {
    "admin": ("Everything, always.", []),
    "user": ("Given at registration.", ["posts:write"]),
}


def exact(length: int) -> Any:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def moments() -> list[sa.Column[Any]]:
    return [
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    ]


def row_id() -> sa.Column[Any]:
    return sa.Column("id", BIG, autoincrement=True, nullable=False)


def live(column: str, source: str, length: int) -> list[Any]:
    """A column that holds `source` while the row is live, unique: the trash does not count."""
    computed = sa.Computed(f"CASE WHEN deleted_at IS NULL THEN {source} END", persisted=True)
    return [
        sa.Column(column, exact(length), computed, nullable=True),
        sa.UniqueConstraint(column),
    ]


def to(column: str, target: str, ondelete: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], ondelete=ondelete)


def create(table: str, *parts: Any, key: tuple[str, ...] = ("id",)) -> None:
    op.create_table(
        table,
        *parts,
        sa.PrimaryKeyConstraint(*key),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_unicode_ci",
        sqlite_autoincrement=key == ("id",),
        if_not_exists=True,
    )


def index(table: str, *columns: str) -> None:
    name = f"ix_{table}_{'_'.join(columns)}"
    existing = {entry["name"] for entry in sa.inspect(op.get_bind()).get_indexes(table)}
    if name not in existing:
        # SQLite would take the index for the live rows too, and then sort them all.
        only_trash = sa.text("deleted_at IS NOT NULL") if columns == ("deleted_at",) else None
        op.create_index(name, table, list(columns), sqlite_where=only_trash)


def upgrade() -> None:
    create(
        "roles",
        row_id(),
        sa.Column("name", exact(50), nullable=False),
        *live("live_name", "name", 50),
        sa.Column("description", sa.String(500), nullable=False),
        *moments(),
        sa.Column("deleted_at", MOMENT, nullable=True),
    )
    create(
        "tags", row_id(), sa.Column("name", exact(50), nullable=False), sa.UniqueConstraint("name")
    )
    create(
        "users",
        row_id(),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_key", exact(254), nullable=False),
        *live("live_email", "email_key", 254),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("phone", sa.String(20), nullable=True),
        sa.Column("birth_date", sa.Date(), nullable=True),
        sa.Column("locale", sa.String(8), nullable=False),
        sa.Column("password_hash", exact(255), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("email_verified_at", MOMENT, nullable=True),
        *moments(),
        sa.Column("deleted_at", MOMENT, nullable=True),
    )
    create(
        "outbox",
        row_id(),
        sa.Column("key", exact(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("user_id", BIG, nullable=True),
        sa.Column("recipient", sa.String(254), nullable=False),
        sa.Column("locale", sa.String(8), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.Column("last_error", sa.String(300), nullable=True),
        *moments(),
        sa.UniqueConstraint("key"),
        to("user_id", "users.id", "SET NULL"),
    )
    create(
        "posts",
        row_id(),
        sa.Column("author_id", BIG, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("published_at", MOMENT, nullable=True),
        sa.Column(
            "published_order",
            MOMENT,
            sa.Computed("COALESCE(published_at, '1970-01-01 00:00:00.000000')", persisted=True),
            nullable=True,
        ),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted_with_author", sa.Boolean(), nullable=False),
        *moments(),
        sa.Column("deleted_at", MOMENT, nullable=True),
        to("author_id", "users.id", "RESTRICT"),
    )
    create(
        "role_permissions",
        sa.Column("role_id", BIG, nullable=False),
        sa.Column("permission", exact(50), nullable=False),
        to("role_id", "roles.id", "CASCADE"),
        key=("role_id", "permission"),
    )
    create(
        "sessions",
        row_id(),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("last_used_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.Column("user_agent", sa.String(255), nullable=False),
        *moments(),
        to("user_id", "users.id", "CASCADE"),
    )
    create(
        "user_roles",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("role_id", BIG, nullable=False),
        to("user_id", "users.id", "CASCADE"),
        to("role_id", "roles.id", "CASCADE"),
        key=("user_id", "role_id"),
    )
    create(
        "post_tags",
        sa.Column("post_id", BIG, nullable=False),
        sa.Column("tag_id", BIG, nullable=False),
        to("post_id", "posts.id", "CASCADE"),
        to("tag_id", "tags.id", "CASCADE"),
        key=("post_id", "tag_id"),
    )
    create_indexes()
    create_system_roles()


def create_indexes() -> None:
    for table, *columns in (
        ("roles", "created_at", "id", "deleted_at"),
        ("roles", "name", "id", "deleted_at"),
        ("users", "created_at", "id", "deleted_at"),
        ("users", "name", "id", "deleted_at"),
        ("users", "email", "id", "deleted_at"),
        ("users", "deleted_at"),
        ("outbox", "created_at", "id"),
        ("outbox", "state", "next_attempt_at"),
        ("outbox", "user_id"),
        ("posts", "created_at", "id", "deleted_at", "status", "author_id"),
        ("posts", "updated_at", "id", "deleted_at", "status", "author_id"),
        ("posts", "published_order", "id", "deleted_at", "status", "author_id"),
        ("posts", "title", "id", "deleted_at", "status", "author_id"),
        ("posts", "author_id", "created_at", "id", "deleted_at", "status"),
        ("posts", "deleted_at"),
        ("sessions", "user_id", "ended_at"),
        ("sessions", "expires_at"),
        ("user_roles", "role_id", "user_id"),
        ("post_tags", "tag_id", "post_id"),
    ):
        index(table, *columns)


def create_system_roles() -> None:
    now = datetime.now(UTC)
    roles = sa.table(
        "roles",
        sa.column("id", BIG),
        sa.column("name", sa.String),
        sa.column("description", sa.String),
        sa.column("created_at", MOMENT),
        sa.column("updated_at", MOMENT),
    )
    grants = sa.table(
        "role_permissions", sa.column("role_id", BIG), sa.column("permission", sa.String)
    )
    connection = op.get_bind()
    existing = set(connection.scalars(sa.select(roles.c.name)))
    for name, (description, permissions) in SYSTEM_ROLES.items():
        if name in existing:
            continue
        made = {"name": name, "description": description, "created_at": now, "updated_at": now}
        connection.execute(sa.insert(roles).values(made))
        role_id = connection.scalar(sa.select(roles.c.id).where(roles.c.name == name))
        for permission in permissions:
            connection.execute(sa.insert(grants).values(role_id=role_id, permission=permission))


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table, if_exists=True)
