"""What others reach on the same works, measured in the same way: shares of the bare app's speed,
on one core. And what is asked of us."""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = ("post", "page", "me", "create", "page450")


@dataclass(frozen=True)
class Peer:
    """A stack, the database it stood on, and its ratios in the order of COLUMNS."""

    name: str
    database: str
    ratios: tuple[float, ...]

    def ratio(self, work: str) -> float | None:
        """Its ratio at a work, where it was measured."""
        return self.ratios[COLUMNS.index(work)] if work in COLUMNS else None


_TYPICAL = "FastAPI + SQLAlchemy async ORM"
PEERS = (
    Peer(_TYPICAL, "sqlite", (0.047, 0.029, 0.050, 0.052, 0.028)),
    Peer(_TYPICAL, "mariadb", (0.041, 0.022, 0.045, 0.045, 0.007)),
    Peer("Django + DRF", "sqlite", (0.064, 0.038, 0.065, 0.061, 0.014)),
    Peer("PocketBase", "sqlite", (0.225, 0.043, 0.260, 0.163, 0.034)),
    Peer("Express + knex", "sqlite", (0.263, 0.225, 0.330, 0.255, 0.036)),
    Peer("Fastify + knex", "sqlite", (0.551, 0.370, 0.600, 0.404, 0.040)),
    Peer("FastAPI + sqlite3", "sqlite", (0.446, 0.340, 0.482, 0.352, 0.026)),
)
GOALS = dict(zip(COLUMNS, (0.56, 0.38, 0.61, 0.41, 0.38), strict=True))


def best(work: str, database: str) -> tuple[float, str] | None:
    """The best peer's ratio and name at a work; None where none was measured."""
    return max(
        (
            (ratio, peer.name)
            for peer in PEERS
            if peer.database == database and (ratio := peer.ratio(work)) is not None
        ),
        default=None,
    )
