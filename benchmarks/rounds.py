"""Rounds of works with the anchor in between, so that the machine's moods hit both alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import typer

from benchmarks.load import CONNECTIONS, Load, Request, Sample
from benchmarks.machine import Machine, Trouble, peak_memory_mib
from benchmarks.servers import Server
from benchmarks.targets import Target, expect
from benchmarks.works import WORKS, Work

_BETWEEN_ANCHORS = 2
_LONGER = 5
_WARM_UP_SECONDS = 1
_WARM_UP_REQUESTS = 100


@dataclass(frozen=True)
class Options:
    """How long, how often and what is measured."""

    seconds: int = 1
    rounds: int = 3
    works: tuple[str, ...] = tuple(WORKS)


@dataclass(frozen=True)
class Measurement:
    """One work on one database. `ratio` is its share of the anchor's speed, the median of
    `ratios`; the other figures are medians too, but for the peak of the memory."""

    database: str
    workers: int
    work: str
    ratio: float
    ratios: list[float]
    rps: float
    p50_ms: float
    p99_ms: float
    anchor_rps: float
    memory_mib: float | None
    users: int
    posts: int


@dataclass(frozen=True)
class _Round:
    sample: Sample
    anchor_rps: float
    memory_mib: float | None

    @property
    def ratio(self) -> float:
        return self.sample.rps / self.anchor_rps


class Bench:
    """What a whole run shares: the machine, the options and the anchor."""

    def __init__(self, machine: Machine, options: Options, anchor: Server, directory: Path) -> None:
        self.machine = machine
        self.options = options
        self.directory = directory
        file = directory / "anchor.requests"
        self._anchor = Load.of(file, [Request("/")], url=anchor.url, core=machine.load_core)

    def measure(self, target: Target) -> list[Measurement]:
        """All works of the options on one server."""
        works = [WORKS[name] for name in self.options.works]
        loads = {
            work.name: target.load(self.machine, work.requests(target), name=work.name)
            for work in works
        }
        self._warm_up(target, works)
        found: dict[str, list[_Round]] = {work.name: [] for work in works}
        before = self._anchor.run(self.options.seconds).rps
        for some in _portions(_in_order(works, self.options.rounds)):
            samples = [
                _timed(target, work, loads[work.name], self.options.seconds) for work in some
            ]
            after = self._anchor.run(self.options.seconds).rps
            anchor, before = mean([before, after]), after
            memory = peak_memory_mib(target.server.pid)
            for work, sample in zip(some, samples, strict=True):
                found[work.name].append(_Round(sample, anchor, memory))
                _tell(target, work, found[work.name][-1])
        return [_measurement(target, name, rounds) for name, rounds in found.items()]

    def _warm_up(self, target: Target, works: Sequence[Work]) -> None:
        """Every worker compiles its statements and fills its caches before anything counts."""
        requests = [
            request
            for work in works
            if work.grows is None
            for request in work.requests(target)[:_WARM_UP_REQUESTS]
        ]
        if requests:
            target.load(self.machine, requests, name="warm-up").run(_WARM_UP_SECONDS)


def _in_order(works: Sequence[Work], rounds: int) -> list[Work]:
    """Round after round of what reads; then what writes, which would change what is read."""
    reading = [work for work in works if work.grows is None]
    writing = [work for work in works if work.grows is not None]
    return reading * rounds + [work for work in writing for _ in range(rounds)]


def _portions(works: list[Work]) -> Iterator[list[Work]]:
    for start in range(0, len(works), _BETWEEN_ANCHORS):
        yield works[start : start + _BETWEEN_ANCHORS]


def _timed(target: Target, work: Work, load: Load, seconds: int) -> Sample:
    """One run of a work, between two looks at whether it does what it should."""
    try:
        work.check(target)
        before = target.count(work.grows) if work.grows else 0
        sample = load.run(seconds)
        if sample.requests < CONNECTIONS and not work.grows:
            # Slower than a round of its connections: what was measured is where it was cut.
            sample = load.run(seconds * _LONGER)
        if work.grows:
            _expect_growth(target.count(work.grows) - before, sample.requests)
        work.check(target)
    except Trouble as trouble:
        place = f"{work.name} on {target.filled.name}"
        raise Trouble(f"{place}: {trouble}", status=trouble.status) from None
    return sample


def _expect_growth(grown: int, answered: int) -> None:
    """A row for every answer; the requests under way at the end may have left one too."""
    unanswered = grown - answered
    expect(0 <= unanswered <= CONNECTIONS, True, f"{grown} new rows for {answered} answers:")


def _measurement(target: Target, work: str, rounds: Sequence[_Round]) -> Measurement:
    samples = [one.sample for one in rounds]
    peaks = [one.memory_mib for one in rounds if one.memory_mib is not None]
    return Measurement(
        database=target.filled.name,
        workers=target.server.workers,
        work=work,
        ratio=median(one.ratio for one in rounds),
        ratios=[one.ratio for one in rounds],
        rps=median(sample.rps for sample in samples),
        p50_ms=median(sample.p50_ms for sample in samples),
        p99_ms=median(sample.p99_ms for sample in samples),
        anchor_rps=median(one.anchor_rps for one in rounds),
        memory_mib=max(peaks, default=None),
        users=target.data.users,
        posts=target.data.posts,
    )


def _tell(target: Target, work: Work, one: _Round) -> None:
    place = f"{target.filled.name} x{target.server.workers}"
    figures = f"{one.sample.rps:8.0f} req/s, {one.ratio:.3f} of {one.anchor_rps:.0f}"
    typer.echo(f"{place:14} {work.name:10} {figures}", err=True)
