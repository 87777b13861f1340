"""Many commands, each in a process of its own, from one interpreter that has imported them all."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.process import environment

_SECONDS = 40
# The child goes on behind the loop: what it leaves uncaught ends it as it would any interpreter.
_RUNNER = """
import gc, json, os, signal, sys
import alembic.command, celery.bin.celery, psycopg, aiomysql
import app.cli.commands, app.main, app.cli.doctor, app.db.migrations, app.tasks.worker

gc.freeze()
answers = os.dup(1)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(answers, f"{status}\\n".encode())
else:
    os._exit(0)
signal.alarm(order["seconds"])
os.chdir(order["folder"])
os.environ.clear()
os.environ.update(order["environment"])
for number, name, flags in ((0, "/dev/null", os.O_RDONLY), (1, "stdout", 577), (2, "stderr", 577)):
    os.dup2(os.open(name, flags, 0o600), number)
sys.stdin = open(0)  # the other one has read ahead
sys.argv = ["cimiento", *order["arguments"]]
app.cli.commands.cli()
"""


@dataclass(frozen=True)
class Order:
    """A command to run in a folder, with settings (lower case here) and no others of ours."""

    arguments: Sequence[str]
    folder: Path
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command has ended."""

    status: int
    stdout: str
    stderr: str


async def run_all(orders: Sequence[Order], *, side_by_side: int = 2) -> list[Ended]:
    """Run commands, some side by side; how they ended, in their order."""
    shares = [orders[start::side_by_side] for start in range(side_by_side)]
    done = await asyncio.gather(*map(_run, shares))
    ended = [iter(each) for each in done]
    return [next(ended[number % side_by_side]) for number in range(len(orders))]


async def _run(orders: Sequence[Order]) -> list[Ended]:
    command = (sys.executable, "-c", _RUNNER)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(), stdin=PIPE, stdout=PIPE
    )
    lines = [
        {
            "seconds": _SECONDS,
            "folder": str(each.folder),
            "arguments": [*each.arguments],
            "environment": environment(**each.settings),
        }
        for each in orders
    ]
    sent = "".join(json.dumps(line) + "\n" for line in lines)
    answer, _ = await process.communicate(sent.encode())
    statuses = map(int, answer.split())
    return [_ended(order.folder, status) for order, status in zip(orders, statuses, strict=True)]


def _ended(folder: Path, status: int) -> Ended:
    out, err = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    return Ended(status, out, err)
