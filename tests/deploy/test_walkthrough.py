"""The curl sessions of the documents print what the documents say."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import ROOT, Server, environment

pytestmark = pytest.mark.long

WALKS = ("docs/walkthrough.md", "docs/guide.es.md")
WALK_SECONDS = 180
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ARROW = re.compile(r"# → (.*)$", re.MULTILINE)
_PRINTED = re.compile(
    r"First admin: +(\S+)\nPassword: +(\S+) +\(shown only now\)\nAPI docs: +(\S+)\n"
)


@dataclass
class Run:
    """What `scripts/run` starts, and what it printed before its log."""

    server: Server
    email: str
    password: str
    docs: str


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Run]:
    """The command behind `scripts/run` in an empty directory; ended, by its own pid, at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "run"),
        cwd=directory,
        env=environment(port=0),
        stdout=PIPE,
        stderr=PIPE,
    )
    server = Server(process)
    assert process.stderr is not None
    reader = asyncio.create_task(server.read_log())
    printed = asyncio.create_task(_three_lines(process.stderr))
    try:
        line = await server.logged("Uvicorn running on")
        server.port = int(line["message"].partition("127.0.0.1:")[2].partition(" ")[0])
        found = _PRINTED.fullmatch(await printed)
        assert found, printed.result()
        yield Run(server, *found.groups())
    finally:
        if process.returncode is None:
            await server.end(signal.SIGTERM)
        await asyncio.gather(reader, printed, process.stderr.read())


async def _three_lines(stream: asyncio.StreamReader) -> str:
    return "".join([(await stream.readline()).decode() for _ in range(3)])


@pytest.mark.parametrize("name", WALKS)
async def test_the_walk_with_curl_prints_what_its_page_says(name: str, tmp_path: Path) -> None:
    blocks = "\n".join(_BLOCK.findall((ROOT / name).read_text()))
    async with running(tmp_path) as run:
        assert (run.email, run.docs) == ("admin@example.com", "http://127.0.0.1:0/docs")
        walk = _replace(blocks, r"^BASE=.*$", f"BASE={run.server.url}")
        walk = _replace(walk, r"^ADMIN_PASSWORD=.*$", f"ADMIN_PASSWORD={run.password}")
        status, out, err = await _bash(walk, tmp_path)
        # The mail is in the folder as well, as the page says.
        await run.server.logged("mail sent")
        (mail,) = (tmp_path / "data" / "mail").glob("*.eml")

    assert (status, err) == (0, "")
    arrows = _ARROW.findall(blocks)
    assert len(arrows) > 5
    assert out.splitlines() == arrows
    assert b"To: ana@example.com" in mail.read_bytes()


async def _bash(script: str, directory: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=directory,
        env=environment(),
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(WALK_SECONDS):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def _replace(text: str, pattern: str, line: str) -> str:
    replaced, count = re.subn(pattern, lambda _: line, text, flags=re.MULTILINE)
    assert count == 1, pattern
    return replaced
