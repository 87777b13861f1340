"""A bar chart of results: `python -m benchmarks.plot results.json out.svg`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import typer

from benchmarks.peers import COLUMNS, GOALS, PEERS, Peer

_BAR_COLOURS = {"sqlite": "#2f6f9f", "mariadb": "#c28a3a", "postgresql": "#5b8a5a"}
_PEER_COLOURS = ("#7a4fa3", "#7a4fa3", "#1b9e9e", "#d1477a", "#555555", "#b5442e", "#8a8a00")
_TITLES = {
    "post": "one post",
    "page": "page of 20",
    "me": "me",
    "create": "create",
    "page450": "page 450",
}
_WIDTH, _HEIGHT = 1000, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 250, 50, 50
_GAP = 24


@dataclass(frozen=True)
class _Plane:
    """Where works and ratios lie on the picture."""

    databases: Sequence[str]
    highest: float

    @property
    def group(self) -> float:
        return (_WIDTH - _LEFT - _RIGHT) / len(COLUMNS)

    @property
    def bar(self) -> float:
        return (self.group - _GAP) / max(1, len(self.databases))

    def x(self, work: str, database: str | None = None) -> float:
        place = self.databases.index(database) if database else 0
        return _LEFT + COLUMNS.index(work) * self.group + _GAP / 2 + place * self.bar

    def y(self, ratio: float) -> float:
        return _HEIGHT - _BOTTOM - ratio / self.highest * (_HEIGHT - _TOP - _BOTTOM)


def main(results: Path, picture: Path) -> None:
    """Draw the ratios of a run with one worker, beside the peers and the goals."""
    measured = json.loads(results.read_text(encoding="utf-8"))["measured"]
    picture.write_text(drawn(measured), encoding="utf-8")


def drawn(measured: Sequence[dict[str, Any]]) -> str:
    """The picture of what `--json` wrote as `measured`, as SVG."""
    shown = [one for one in measured if one["workers"] == 1 and one["work"] in COLUMNS]
    ratios = {(one["database"], one["work"]): float(one["ratio"]) for one in shown}
    databases = [name for name in _BAR_COLOURS if any(key[0] == name for key in ratios)]
    peaks = [ratio for peer in PEERS for ratio in peer.ratios]
    plane = _Plane(databases, max([*ratios.values(), *GOALS.values(), *peaks]) * 1.05)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 24, "Share of a bare app's speed, one worker on one core", size=15),
        *_axis(plane),
        *_bars(plane, ratios),
        *_marks(plane),
        *_legend(databases),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axis(plane: _Plane) -> Iterator[str]:
    for tenth in range(int(plane.highest * 10) + 1):
        y = plane.y(tenth / 10)
        yield _line(_LEFT, y, _WIDTH - _RIGHT, y, "#dddddd")
        yield _text(_LEFT - 8, y + 4, f"{tenth / 10:.1f}", anchor="end")
    for work in COLUMNS:
        middle = plane.x(work) + (plane.group - _GAP) / 2
        yield _text(middle, _HEIGHT - _BOTTOM + 32, _TITLES[work], anchor="middle")


def _bars(plane: _Plane, ratios: dict[tuple[str, str], float]) -> Iterator[str]:
    for (database, work), ratio in ratios.items():
        x, y = plane.x(work, database), plane.y(ratio)
        yield (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{plane.bar - 2:.1f}" '
            f'height="{plane.y(0) - y:.1f}" fill="{_BAR_COLOURS[database]}"/>'
        )
        middle = x + plane.bar / 2 - 1
        yield _text(middle, plane.y(0) + 12, f"{ratio:.3f}".lstrip("0"), anchor="middle", size=10)


def _marks(plane: _Plane) -> Iterator[str]:
    """The goals over each group; each peer over the bar of the database it stood on."""
    for work in COLUMNS:
        y, x = plane.y(GOALS[work]), plane.x(work)
        yield _line(x - 6, y, x + plane.group - _GAP + 6, y, "#000000", dashed=True)
        for peer, colour in zip(PEERS, _PEER_COLOURS, strict=True):
            if peer.database in plane.databases:
                y, x = plane.y(peer.ratios[COLUMNS.index(work)]), plane.x(work, peer.database)
                yield _line(x - 3, y, x + plane.bar + 1, y, colour, width=2.5)


def _legend(databases: Sequence[str]) -> Iterator[str]:
    x, y = _WIDTH - _RIGHT + 20, _TOP + 10
    for database in databases:
        colour = _BAR_COLOURS[database]
        yield f'<rect x="{x}" y="{y - 9}" width="16" height="10" fill="{colour}"/>'
        yield _text(x + 24, y, f"Cimiento, {database}")
        y += 20
    yield _line(x, y - 4, x + 16, y - 4, "#000000", dashed=True)
    yield _text(x + 24, y, "goal")
    for peer, colour in zip(PEERS, _PEER_COLOURS, strict=True):
        if peer.database in databases and _is_first(peer, databases):
            y += 20
            yield _line(x, y - 4, x + 16, y - 4, colour, width=2.5)
            yield _text(x + 24, y, peer.name, size=11)


def _is_first(peer: Peer, databases: Sequence[str]) -> bool:
    """Whether a peer is the first of its name that is drawn: one line in the legend is enough."""
    drawn_ones = [other for other in PEERS if other.database in databases]
    return next(other for other in drawn_ones if other.name == peer.name) is peer


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    colour: str,
    *,
    width: float = 1,
    dashed: bool = False,
) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dash}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"


if __name__ == "__main__":
    typer.run(main)
