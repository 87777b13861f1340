"""The server as people run it: a process of its own, watched by the lines it logs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 40


def environment(**settings: object) -> dict[str, str]:
    """An environment with these settings (lower case here) and no others of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    given = {name.upper(): str(value) for name, value in settings.items()}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | given


async def run_command(*arguments: str, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Run `python -m app.cli …` to its end; exit status, stdout and stderr."""
    process = await _start(*arguments, cwd=cwd, env=env)
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@dataclass
class Server:
    """A running `serve`; `log` holds what it logged so far, one decoded JSON line each."""

    process: Process
    port: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def logged(self, beginning: str) -> dict[str, Any]:
        """Wait for a line whose message begins like this."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.log if line["message"].startswith(beginning)), None)

        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: found() is not None)
        line = found()
        assert line is not None
        return line

    async def end(self, how: signal.Signals) -> int:
        """Send this one process a signal and wait until it is gone; its exit status."""
        self.process.send_signal(how)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    def end_children(self) -> int:
        """Kill (-9) the child processes of this one; return how many they were."""
        mine = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in mine.split():
            os.kill(int(child), signal.SIGKILL)
        return len(mine.split())

    async def read_log(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            entry = json.loads(line)
            async with self._news:
                self.log.append(entry)
                self._news.notify_all()


@asynccontextmanager
async def serving(cwd: Path, env: Mapping[str, str]) -> AsyncIterator[Server]:
    """A server that has started; killed at the end of the block if it still runs."""
    async with running("serve", cwd=cwd, env=env) as server:
        line = await server.logged("Uvicorn running on")
        server.port = int(line["message"].partition("127.0.0.1:")[2].partition(" ")[0])
        yield server


@asynccontextmanager
async def running(*arguments: str, cwd: Path, env: Mapping[str, str]) -> AsyncIterator[Server]:
    """A command that goes on; killed at the end of the block, with its child processes."""
    process = await _start(*arguments, cwd=cwd, env=env)
    server = Server(process)
    reader = asyncio.create_task(server.read_log())
    complaints = asyncio.create_task(_drain(process))
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await asyncio.gather(reader, complaints)


async def _start(*arguments: str, cwd: Path, env: Mapping[str, str]) -> Process:
    command = (sys.executable, "-m", "app.cli", *arguments)
    return await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdout=PIPE, stderr=PIPE, start_new_session=True
    )


async def _drain(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()
