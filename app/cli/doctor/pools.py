"""Whether a server has room for the connections of the app."""

from __future__ import annotations

from app.cli.doctor.findings import Finding, advised, failure
from app.config import Settings


def enough_connections(settings: Settings, allowed: int, *, where: str) -> Finding:
    """Check the connections that a server allows us; `where` names the setting that says so."""
    # In each worker: two pools, the connection that looks whether the database answers, and the
    # one that ends statements whose callers are gone (MariaDB).
    wanted = settings.workers * (2 * settings.database_pool_size + 2)
    message = f"up to {wanted} connections from here, {allowed} allowed by {where}"
    if wanted > allowed:
        return failure(
            "connections", message, f"Raise {where}, or lower DATABASE_POOL_SIZE or WORKERS."
        )
    return advised(
        "connections",
        2 * wanted <= allowed,
        message,
        f"A second server, or a new version beside the old one, needs as many: raise {where}.",
    )
