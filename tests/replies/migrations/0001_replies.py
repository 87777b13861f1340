"""Replies.

Revision: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TRASH = sa.text("deleted_at IS NOT NULL")
PERMISSION = "replies:write"


def upgrade() -> None:
    op.create_table(
        "replies",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("post_id", BIG, nullable=False),
        sa.Column("author_id", BIG, nullable=False),
        sa.Column("text", sa.String(500), nullable=False),
        sa.Column("deleted_with_post", sa.Boolean(), nullable=False),
        sa.Column("deleted_with_author", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_replies"),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{table}.id"], name=f"fk_replies_{column}", ondelete="RESTRICT"
            )
            for column, table in (("post_id", "posts"), ("author_id", "users"))
        ),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_unicode_ci",
        sqlite_autoincrement=True,
    )
    columns = ["post_id", "created_at", "id"]
    op.create_index("ix_replies_post_id_created_at_id", "replies", columns)
    op.create_index("ix_replies_author_id", "replies", ["author_id"])
    op.create_index(
        "ix_replies_deleted_at",
        "replies",
        ["deleted_at"],
        sqlite_where=TRASH,
        postgresql_where=TRASH,
    )
    op.execute(
        "INSERT INTO role_permissions (role_id, permission)"
        f" SELECT id, '{PERMISSION}' FROM roles WHERE name = 'user'"
    )


def downgrade() -> None:
    op.execute(f"DELETE FROM role_permissions WHERE permission = '{PERMISSION}'")
    op.drop_table("replies")
