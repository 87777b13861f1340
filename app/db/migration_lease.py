"""A lock for migrations that holds on all nodes of a cluster: a row that says who has it.

`GET_LOCK` is a node's own. The row cannot belong to a connection, so who has it must go on
counting in it; a process that has stopped counting is dead, and another takes its place.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.schema import CreateTable

from app.db.errors import is_transient

# Not in the metadata of the models: it is there on clusters alone, before the first migration.
LEASES = Table(
    "migration_lease",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(32)),
    Column("beats", BigInteger, nullable=False),
    mysql_engine="InnoDB",
)
BEAT_SECONDS = 1.0
# Looks, not seconds: while a change of a table holds up the cluster nobody's beat arrives, and
# no look is answered either.
DEAD_AFTER_LOOKS = 75
_ID = 1
# The holder of the lease, if there is one, and the count.
Standing = tuple[str | None, int]


@dataclass
class Lease:
    """One process's part in who migrates; each method is a transaction of its own, on a
    connection that has none."""

    name: str = field(default_factory=lambda: secrets.token_hex(16))
    _seen: Standing | None = None
    _looks: int = 0

    def prepare(self, connection: Connection) -> None:
        """Create the table unless it exists."""
        with connection.begin():
            connection.execute(CreateTable(LEASES, if_not_exists=True))

    def take(self, connection: Connection) -> bool:
        """Return whether the lease is this process's from now on."""
        try:
            with connection.begin():
                row = connection.execute(select(LEASES.c.holder, LEASES.c.beats)).one_or_none()
                found = None if row is None else (row.holder, row.beats)
                return self._may_take(found) and self._write(connection, found)
        except DBAPIError as error:
            if isinstance(error, IntegrityError) or is_transient(error):
                return False  # another node was first
            raise

    def beat(self, connection: Connection) -> bool:
        """Count on; return whether the lease is still this process's."""
        mine = update(LEASES).where(LEASES.c.holder == self.name)
        with connection.begin():
            return connection.execute(mine.values(beats=LEASES.c.beats + 1)).rowcount == 1

    def give(self, connection: Connection) -> None:
        """Let another process have it."""
        mine = update(LEASES).where(LEASES.c.holder == self.name)
        with connection.begin():
            connection.execute(mine.values(holder=None, beats=LEASES.c.beats + 1))

    def _may_take(self, found: Standing | None) -> bool:
        if found is None or found[0] is None:
            return True
        self._looks = self._looks + 1 if self._seen == found else 0
        self._seen = found
        return self._looks >= DEAD_AFTER_LOOKS

    def _write(self, connection: Connection, found: Standing | None) -> bool:
        if found is None:
            connection.execute(insert(LEASES).values(id=_ID, holder=self.name, beats=0))
            return True
        # Only if it still stands there: on one node by this condition, on two by certification.
        holder, beats = found
        as_found = LEASES.c.holder.is_not_distinct_from(holder) & (LEASES.c.beats == beats)
        taking = update(LEASES).where(as_found).values(holder=self.name, beats=beats + 1)
        return connection.execute(taking).rowcount == 1
