"""The words of posts, users and tags, and the full-text indexes over them.

Revision: 0007, after 0006

Tables and indexes alone: `scripts/migrate` fills them afterwards, in batches, while servers run.
Can be run again after it was cut off in the middle.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import TSVECTOR

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SEARCHED = {"post_search": "posts", "user_search": "users", "tag_search": "tags"}
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WORDS = (
    sa.Text()
    .with_variant(mysql.MEDIUMTEXT(charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(TSVECTOR(), "postgresql")
)
# The index of SQLite, and what keeps it.
FTS = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS fts_{searched} USING fts5(words, content='{table}',"
    " content_rowid='id', tokenize='ascii', detail='none', columnsize=0, prefix='4')",
    "CREATE TRIGGER IF NOT EXISTS fts_{searched}_made AFTER INSERT ON {table} BEGIN"
    " INSERT INTO fts_{searched} (rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER IF NOT EXISTS fts_{searched}_gone AFTER DELETE ON {table} BEGIN"
    " INSERT INTO fts_{searched} (fts_{searched}, rowid, words)"
    " VALUES ('delete', old.id, old.words); END",
    "CREATE TRIGGER IF NOT EXISTS fts_{searched}_changed AFTER UPDATE ON {table} BEGIN"
    " INSERT INTO fts_{searched} (fts_{searched}, rowid, words)"
    " VALUES ('delete', old.id, old.words);"
    " INSERT INTO fts_{searched} (rowid, words) VALUES (new.id, new.words); END",
)


def upgrade() -> None:
    for table, searched in SEARCHED.items():
        op.create_table(
            table,
            sa.Column("id", BIG, nullable=False),
            sa.Column("words", WORDS, nullable=False),
            sa.PrimaryKeyConstraint("id"),
            sa.ForeignKeyConstraint(["id"], [f"{searched}.id"], ondelete="CASCADE"),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_unicode_ci",
            if_not_exists=True,
        )
        if op.get_bind().dialect.name == "sqlite":
            for statement in FTS:
                op.execute(statement.format(table=table, searched=searched))
        else:
            add_index(table)


def add_index(table: str) -> None:
    name = f"ix_{table}_words"
    existing = {each["name"] for each in sa.inspect(op.get_bind()).get_indexes(table)}
    if name not in existing:
        op.create_index(name, table, ["words"], mysql_prefix="FULLTEXT", postgresql_using="gin")


def downgrade() -> None:
    for table, searched in SEARCHED.items():
        if op.get_bind().dialect.name == "sqlite":
            op.execute(f"DROP TABLE IF EXISTS fts_{searched}")
        op.drop_table(table, if_exists=True)
