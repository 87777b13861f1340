"""Sessions, as their user sees them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.schemas.base import Moment, Output
from app.schemas.pages import PageQuery


class Session(Output):
    """A login on one device. `current` is the one that asks."""

    id: int
    created_at: Moment
    last_used_at: Moment = Field(description="When it was begun or last refreshed.")
    expires_at: Moment = Field(description="Moves on at every refresh, up to a limit.")
    ip: str = Field(description="Where the login came from.")
    user_agent: str
    current: bool


class SessionQuery(PageQuery):
    sort: Literal["last_used_at", "-last_used_at", "created_at", "-created_at"] = "-last_used_at"
