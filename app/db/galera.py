"""Galera clusters: MariaDB or MySQL servers that all accept writes, and replicate them.

A node takes its row locks for itself alone. Two transactions on two nodes conflict only in the
rows that both have written: the one that commits later fails with error 1213 (deadlock).
"""

from __future__ import annotations

from typing import Any

# SHOW, unlike SELECT, is answered by a node that has lost the cluster; it lists nothing on
# servers that were built without replication.
_LOOK = "SHOW VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_provider')"


# SELECT, UPDATE and DELETE, INSERT: only the first statement of a transaction waits.
_WAIT = "SET SESSION wsrep_sync_wait = 7"


def is_node(connection: Any) -> bool:
    """Return whether a driver's connection leads to a node of a Galera cluster."""
    cursor = connection.cursor()
    try:
        cursor.execute(_LOOK)
        found = {str(name).lower(): str(value).lower() for name, value in cursor.fetchall()}
    finally:
        cursor.close()
    return found.get("wsrep_on") in {"on", "1"} and found.get("wsrep_provider", "none") != "none"


def wait_for_others(connection: Any) -> None:
    """Have each transaction of a connection begin with what other nodes committed before it.

    Otherwise a right that another node has withdrawn, and acknowledged, would still be read here.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(_WAIT)
    finally:
        cursor.close()
