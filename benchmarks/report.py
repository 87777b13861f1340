"""Results as people read them: aligned tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks.peers import GOALS, best
from benchmarks.rounds import Measurement
from benchmarks.storm import LOGGING_IN, Storm
from benchmarks.works import WORKS

Cells = Sequence[str]
_COLUMNS = ("work", "ratio", "least", "most", "req/s", "p50 ms", "p99 ms", "MiB")


def tables(measured: Sequence[Measurement]) -> Iterator[str]:
    """A table for each database and number of workers."""
    for (database, workers), group in groupby(measured, lambda one: (one.database, one.workers)):
        found = list(group)
        anchor = sum(one.anchor_rps for one in found) / len(found)
        has_peers = any(best(one.work, database) for one in found) and workers == 1
        head = (*_COLUMNS, "goal", "best peer", "") if has_peers else _COLUMNS
        rows = [_row(one) + (_beside(one) if has_peers else []) for one in found]
        yield f"{database}, {_workers(workers)}; the bare app alone: {anchor:.0f} req/s"
        yield aligned([head, *rows])


def storm_table(storms: Sequence[Storm]) -> str:
    """What a storm of logins does to those who read."""
    head = ("database", "workers", "work", "p99 ms", "without", "req/s", "logins/s")
    rows = [
        (
            one.database,
            str(one.workers),
            one.work,
            f"{one.p99_ms:.1f}",
            f"{one.quiet_p99_ms:.1f}",
            f"{one.rps:.0f}",
            f"{one.logins_rps:.0f}",
        )
        for one in storms
    ]
    return f"Reading while {LOGGING_IN} connections log in\n\n{aligned([head, *rows])}"


def growth_tables(measured: Sequence[Measurement]) -> Iterator[str]:
    """A table for each database: ratios and requests a second by the size of the data set."""
    for database, group in groupby(measured, lambda one: one.database):
        yield f"By size, on {database}\n\n{_by_size(list(group))}"


def _by_size(measured: Sequence[Measurement]) -> str:
    works = list(dict.fromkeys(one.work for one in measured))
    head = ["users", "posts", *(name for work in works for name in (work, "req/s"))]
    rows = [
        [f"{users:,}", f"{posts:,}", *(cell for one in group for cell in _size(one))]
        for (users, posts), group in groupby(measured, lambda one: (one.users, one.posts))
    ]
    return aligned([head, *rows])


def works_table() -> str:
    """What the names of the works mean."""
    return "\n".join(f"  {work.name:10} {work.title}" for work in WORKS.values())


def aligned(rows: Sequence[Cells]) -> str:
    """Columns of equal width: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place and _is_number_column(rows, place) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _is_number_column(rows: Sequence[Cells], place: int) -> bool:
    return any(row[place][:1].isdigit() for row in rows)


def _row(one: Measurement) -> list[str]:
    return [
        one.work,
        f"{one.ratio:.3f}",
        f"{min(one.ratios):.3f}",
        f"{max(one.ratios):.3f}",
        f"{one.rps:.0f}",
        f"{one.p50_ms:.1f}",
        f"{one.p99_ms:.1f}",
        "-" if one.memory_mib is None else f"{one.memory_mib:.0f}",
    ]


def _beside(one: Measurement) -> list[str]:
    goal, peer = GOALS.get(one.work), best(one.work, one.database)
    shown = f"{goal:.2f}" if goal is not None else ""
    return [shown, *((f"{peer[0]:.3f}", peer[1]) if peer else ("", ""))]


def _size(one: Measurement) -> list[str]:
    return [f"{one.ratio:.3f}", f"{one.rps:.0f}"]


def _workers(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
