"""Counters on the rows on which invariants rest.

Revision: 0004, after 0003

On a Galera cluster transactions on two nodes conflict only in rows that both write; these columns
are what they write. Can be run again after it was cut off in the middle.
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = ("users", "roles", "sessions")


def has_guard(table: str) -> bool:
    return "guard" in {each["name"] for each in sa.inspect(op.get_bind()).get_columns(table)}


def upgrade() -> None:
    for table in TABLES:
        if not has_guard(table):
            column = sa.Column("guard", sa.BigInteger(), server_default="0", nullable=False)
            op.add_column(table, column)


def downgrade() -> None:
    for table in reversed(TABLES):
        if has_guard(table):
            op.drop_column(table, "guard")
