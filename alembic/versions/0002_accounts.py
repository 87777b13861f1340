"""Refresh tokens, one-time tokens, the audit trail.

Revision: 0002, after 0001

Can be run again after it was cut off in the middle, as 0001.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLES = ("refresh_tokens", "one_time_tokens", "audit_events")
INDEXES = (
    ("refresh_tokens", "session_id"),
    ("one_time_tokens", "user_id", "purpose"),
    ("one_time_tokens", "expires_at"),
    ("audit_events", "created_at", "id"),
    ("audit_events", "act", "created_at", "id"),
    ("audit_events", "actor_id", "created_at", "id"),
    ("audit_events", "subject_type", "subject_id", "created_at", "id"),
)


def exact(length: int) -> Any:
    """Text compared byte by byte."""
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


def create(table: str, *parts: Any) -> None:
    op.create_table(
        table,
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_unicode_ci",
        sqlite_autoincrement=True,
        if_not_exists=True,
    )


def moments() -> list[sa.Column[Any]]:
    return [
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    ]


def upgrade() -> None:
    create(
        "refresh_tokens",
        sa.Column("session_id", BIG, nullable=False),
        sa.Column("token_hash", exact(64), nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        *moments(),
        sa.UniqueConstraint("token_hash"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
    )
    create(
        "one_time_tokens",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("token_hash", exact(64), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        *moments(),
        sa.UniqueConstraint("token_hash"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
    )
    create(
        "audit_events",
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("act", sa.String(32), nullable=False),
        sa.Column("actor_id", BIG, nullable=True),
        sa.Column("subject_type", sa.String(32), nullable=True),
        sa.Column("subject_id", BIG, nullable=True),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.Column("user_agent", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
    )
    for table, *columns in INDEXES:
        name = f"ix_{table}_{'_'.join(columns)}"
        if name not in {each["name"] for each in sa.inspect(op.get_bind()).get_indexes(table)}:
            op.create_index(name, table, list(columns))


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table, if_exists=True)
