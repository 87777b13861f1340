"""What happens once something new was committed and answered."""

from __future__ import annotations

import logging

from fastapi import BackgroundTasks, Response

from app.crud.idempotency_keys import REPLAYED

log = logging.getLogger("app.created")


def log_once_answered(background: BackgroundTasks, response: Response) -> None:
    """Have a new row logged behind the response that says where it is; not for a replay."""
    if REPLAYED not in response.headers:
        background.add_task(_log, response.headers["location"])


async def _log(location: str) -> None:
    log.info("created", extra={"location": location})
