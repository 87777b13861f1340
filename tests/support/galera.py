"""A Galera cluster of one's own: three MariaDB servers that replicate to each other on loopback.

Debian's packages: `mariadb-server`, `galera-4`, and `rsync` for the first copy of the data. Only
processes started here are signalled, by their ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
from sqlalchemy.exc import DBAPIError

from tests.support.database_servers import (
    AS_ROOT,
    PATIENCE_SECONDS,
    DatabaseServer,
    free_ports,
    making,
    mariadb_command,
    programs,
)

NODES = 3
_PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")


def provider() -> str:
    """Return where the replication library is; nothing when a cluster cannot run here."""
    found = [path for path in _PROVIDERS if Path(path).exists()]
    complete = found and programs("mariadb") and shutil.which("rsync")
    return found[0] if complete else ""


@dataclass
class Node(DatabaseServer):
    """One server of a cluster; `replication` is the port its peers connect to."""

    replication: int = 0
    transfer: tuple[int, int] = (0, 0)  # of missed writes, and of the first copy
    peers: Sequence[int] = ()
    is_first: bool = False

    def command(self) -> list[str]:
        """Return how the server is started."""
        ist, sst = self.transfer
        options = {
            "base_port": self.replication,
            "gmcast.listen_addr": f"tcp://127.0.0.1:{self.replication}",
            "ist.recv_addr": f"127.0.0.1:{ist}",
            "gcache.size": "32M",
            # As docs/operations.md recommends: the others go on within the deadline of requests.
            "evs.suspect_timeout": "PT2S",
            "evs.inactive_timeout": "PT4S",
            "evs.keepalive_period": "PT0.5S",
        }
        given = ";".join(f"{name}={value}" for name, value in options.items())
        peers = ",".join(f"127.0.0.1:{port}" for port in self.peers)
        return [
            # Started by root, rsync would give up its rights and be refused the data.
            *mariadb_command(self, user="mysql"),
            *("--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--wsrep-on=ON"),
            *(f"--wsrep-provider={provider()}", f"--wsrep-provider-options={given}"),
            *("--wsrep-cluster-name=cimiento", f"--wsrep-cluster-address=gcomm://{peers}"),
            *("--wsrep-node-address=127.0.0.1", f"--wsrep-node-name=node{self.replication}"),
            *("--wsrep-sst-method=rsync", f"--wsrep-sst-receive-address=127.0.0.1:{sst}"),
            *(["--wsrep-new-cluster"] if self.is_first else []),
        ]

    def status(self, name: str) -> str:
        """Return a value of SHOW STATUS."""
        with self.engine("mysql").connect() as connection:
            found = connection.exec_driver_sql(f"SHOW GLOBAL STATUS LIKE '{name}'").one()
        return str(found[1])

    def isolate(self, cut_off: bool) -> None:
        """Let nothing through between this node and the others, or everything again."""
        option = f"gmcast.isolate={int(cut_off)}"
        # A node that is cut off refuses even a ROLLBACK, with which SQLAlchemy would end.
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True
        ) as connection:
            connection.cursor().execute(f"SET GLOBAL wsrep_provider_options = '{option}'")

    def is_synced(self) -> bool:
        """Return whether it is in step with the others."""
        try:
            return self.status("wsrep_local_state_comment") == "Synced"
        except DBAPIError:
            return False


@dataclass
class Cluster:
    """Nodes that are in step."""

    nodes: list[Node] = field(default_factory=list)

    def conflicts(self) -> int:
        """Return how many transactions failed, on any node, as another node was first."""
        names = ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
        return sum(int(node.status(name)) for node in self.nodes for name in names)


@contextlib.asynccontextmanager
async def galera_cluster() -> AsyncIterator[Cluster]:
    """A cluster in step; its processes are killed, and its data is gone, after the block."""
    folder = Path(tempfile.mkdtemp(prefix="cimiento-galera-"))
    cluster = Cluster()
    try:
        cluster.nodes = await asyncio.to_thread(_create_nodes, folder)
        for node in cluster.nodes:
            node.start()
            await wait_until_synced(node)
            node.is_first = False
        yield cluster
    finally:
        for node in cluster.nodes:
            node.end()
        shutil.rmtree(folder, ignore_errors=True)


def _create_nodes(folder: Path) -> list[Node]:
    """The nodes: the first with the data of an empty server, which the others will copy."""
    folder.chmod(0o755)
    nodes, ports = [], free_ports(4 * NODES)
    for number in range(NODES):
        at, replication, ist, sst = ports[4 * number : 4 * number + 4]
        own = folder / f"node{number}"
        (own / "data").mkdir(parents=True)
        if number == 0:
            subprocess.run(making("mariadb", own), check=True, capture_output=True)
        if AS_ROOT:
            subprocess.run(["chown", "-R", "mysql", own], check=True)
        node = Node("mariadb", own, at, replication=replication, transfer=(ist, sst))
        node.peers, node.is_first = ports[1::4], number == 0
        nodes.append(node)
    return nodes


async def wait_until_synced(node: Node) -> None:
    """Return when a node that was started is in step."""
    await node.ready()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await asyncio.to_thread(node.is_synced):  # noqa: ASYNC110 no event for it
            await asyncio.sleep(0.05)
