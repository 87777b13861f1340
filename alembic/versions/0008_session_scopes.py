"""The permissions that a session was asked to be limited to.

Revision: 0008, after 0007

A column without a default: no table is rewritten, and the version before goes on without it. That
version gives limited sessions everything: going back ends them. Can be run again after it was cut
off.
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def has_column() -> bool:
    return "scope" in {each["name"] for each in sa.inspect(op.get_bind()).get_columns("sessions")}


def upgrade() -> None:
    if not has_column():
        op.add_column("sessions", sa.Column("scope", sa.String(1000), nullable=True))


def downgrade() -> None:
    if has_column():
        op.execute(
            "UPDATE sessions SET ended_at = CURRENT_TIMESTAMP"
            " WHERE scope IS NOT NULL AND ended_at IS NULL"
        )
        op.drop_column("sessions", "scope")
