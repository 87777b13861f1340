"""Migrations in processes that die, or stand still, at a statement of one's choosing.

`python -m tests.support.migrator` reads orders and forks a process for each, from one that has
imported everything: hundreds of kills in a minute. `Migrator` is its other end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alembic.config import Config
from sqlalchemy import Engine, event

from alembic import command

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 60
COMMIT = "COMMIT"
_READS = re.compile(r"\s*(SELECT|SHOW|PRAGMA|DESCRIBE|EXPLAIN|SET|BEGIN|ROLLBACK)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Order:
    """Which alembic command to run, and before which change (0: none) to raise which signal.

    Commits count as changes too: what is not committed is not done.
    """

    url: str
    data_dir: str
    action: str = "upgrade"
    revision: str = "head"
    at: int = 0
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    """How a process ended (the number of a signal is negative), and what it had begun."""

    status: int
    reached: list[str]
    complaint: str

    @property
    def was_killed(self) -> bool:
        return self.status == -signal.SIGKILL


@dataclass
class Migrator:
    """The other end of the process that forks."""

    process: subprocess.Popen[str]
    data_dir: Path

    def run(self, url: str, action: str, revision: str, *, at: int = 0) -> Outcome:
        """Run an alembic command in a process of its own, killed at the n-th change."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = Order(url, str(self.data_dir), action, revision, at)
        self.process.stdin.write(json.dumps(asdict(order)) + "\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))

    def finish(self, url: str, action: str, revision: str) -> Outcome:
        """The same, undisturbed: it must get there."""
        outcome = self.run(url, action, revision)
        assert outcome.status == 0, outcome.complaint
        return outcome


@contextmanager
def migrator(data_dir: Path) -> Iterator[Migrator]:
    """A process that forks migrations, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.migrator"],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Migrator(process, data_dir)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def start(order: Order) -> subprocess.Popen[str]:
    """One migration that runs beside the test; its stderr is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.migrator", json.dumps(asdict(order))],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)}


# --- In the processes themselves -----------------------------------------------------------------


def _obey(order: Order, report: int) -> None:
    """Run the command; each change is written to a pipe before it happens."""
    count = 0

    def change(what: str) -> None:
        nonlocal count
        count += 1
        os.write(report, json.dumps(what[:200]).encode() + b"\n")
        if count == order.at:
            os.kill(os.getpid(), order.signal)

    def execute(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not _READS.match(statement):
            change(statement)

    event.listen(Engine, "before_cursor_execute", execute)
    event.listen(Engine, "commit", lambda _: change(COMMIT))
    os.environ |= {"DATABASE_URL": order.url, "DATA_DIR": order.data_dir}
    getattr(command, order.action)(Config(ROOT / "alembic.ini"), order.revision)


def _fork(order: Order) -> Outcome:
    reading, report = os.pipe()
    complaining, complaint = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE_SECONDS)
        os.dup2(complaint, 2)
        try:
            _obey(order, report)
        except BaseException:  # noqa: BLE001 the process ends here, one way or the other
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(report)
    os.close(complaint)
    with os.fdopen(reading) as lines, os.fdopen(complaining) as words:
        reached = [json.loads(line) for line in lines]
        said = words.read()
    _, status = os.waitpid(child, 0)
    return Outcome(os.waitstatus_to_exitcode(status), reached, said)


def _serve() -> None:
    for line in sys.stdin:
        outcome = _fork(Order(**json.loads(line)))
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _obey(Order(**json.loads(sys.argv[1])), os.open(os.devnull, os.O_WRONLY))
    else:
        # Everything a migration imports, once.
        from app import models  # noqa: F401
        from app.cli import commands  # noqa: F401

        _serve()
