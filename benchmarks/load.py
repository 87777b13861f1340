"""Load: prepared requests, sent by wrk over and over from another core."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Trouble, pinned

CONNECTIONS = 16
_SCRIPT = Path(__file__).with_name("replay.lua")
_PATIENCE_SECONDS = 30
# A login among others takes its time; wrk counts what takes longer as an error.
_TIMEOUT = "20s"


@dataclass(frozen=True)
class Request:
    """One HTTP request of a load."""

    path: str
    token: str = ""
    body: str = ""
    content_type: str = "application/json"

    def raw(self) -> bytes:
        """The request as it goes over the wire."""
        lines = [f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        body = self.body.encode()
        if body:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Sample:
    """What one run of the load found."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True)
class Load:
    """Requests in a file, ready to be sent to a server."""

    file: Path
    url: str
    core: int | None

    @classmethod
    def of(cls, file: Path, requests: Iterable[Request], *, url: str, core: int | None) -> Load:
        """Write the requests to a file for wrk."""
        raws = [request.raw() for request in requests]
        file.write_bytes(b"".join(b"%d\n%s" % (len(raw), raw) for raw in raws))
        return cls(file, url, core)

    def run(self, seconds: int, *, connections: int = CONNECTIONS, pause_ms: int = 0) -> Sample:
        """Send them for a while; raise Trouble if anything but a good answer comes back."""
        return self.start(seconds, connections=connections, pause_ms=pause_ms).result()

    def start(self, seconds: int, *, connections: int, pause_ms: int = 0) -> Running:
        """Begin to send them. `pause_ms` is what each connection waits between two."""
        options = [f"-d{seconds}s", f"-c{connections}", "-t1", f"--timeout={_TIMEOUT}"]
        command = ["wrk", *options, "-s", str(_SCRIPT), self.url, "--", str(self.file)]
        return Running(pinned([*command, str(pause_ms)], self.core), seconds)


class Running:
    """A load under way."""

    def __init__(self, command: Sequence[str], seconds: int) -> None:
        self._seconds = seconds
        self._process = subprocess.Popen(  # noqa: S603  put together by `Load.start`
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def result(self) -> Sample:
        """Wait for its end; raise Trouble if anything but a good answer came back."""
        try:
            said, _ = self._process.communicate(timeout=self._seconds + _PATIENCE_SECONDS)
        finally:
            self.stop()
        found = [line for line in said.splitlines() if line.startswith("{")]
        if not found:
            raise Trouble(f"wrk failed: {said.strip()}")
        return _sample(json.loads(found[-1]))

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _sample(summary: dict[str, int]) -> Sample:
    if summary["refused"] or summary["broken"]:
        raise Trouble(
            f"of {summary['requests']} requests, {summary['refused']} were answered with an error "
            f"and {summary['broken']} were not answered"
        )
    seconds = summary["microseconds"] / 1e6
    return Sample(summary["requests"], seconds, summary["p50"] / 1e3, summary["p99"] / 1e3)
