"""Addresses at domains that differ in `ß` and `ss`, or in the two forms of sigma, are two.

Revision: 0009, after 0008

Writes the keys of the few accounts at such domains anew. The version before finds them by the old
key: while it still serves, who has such an address cannot log in there. Can be run again after it
was cut off in the middle.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import sqlalchemy as sa

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FOLDED = re.compile("[^ßς]+")
users = sa.table(
    "users",
    sa.column("id", sa.BigInteger),
    sa.column("email", sa.String),
    sa.column("email_key", sa.String),
    sa.column("live_email", sa.String),
)


def new_key(email: str) -> str:
    local, at, domain = unicodedata.normalize("NFKC", email).rpartition("@")
    return local.casefold() + at + FOLDED.sub(lambda part: part[0].casefold(), domain)


def old_key(email: str) -> str:
    return unicodedata.normalize("NFKC", email).casefold()


def write_keys(key_of: Callable[[str], str]) -> None:
    connection = op.get_bind()
    # Some collations find more by this; the keys of those stay as they are.
    special = sa.or_(users.c.email.like("%@%ß%"), users.c.email.like("%@%ς%"))
    columns = sa.select(users.c.id, users.c.email, users.c.email_key)
    for id_, email, key in connection.execute(columns.where(special)).all():
        wanted = key_of(email)
        taken = sa.select(users.c.id).where(users.c.live_email == wanted, users.c.id != id_)
        if wanted != key and connection.scalar(taken) is None:
            connection.execute(sa.update(users).where(users.c.id == id_).values(email_key=wanted))


def upgrade() -> None:
    write_keys(new_key)


def downgrade() -> None:
    # Of two accounts that the version before would take for one, the first keeps the common key.
    write_keys(old_key)
