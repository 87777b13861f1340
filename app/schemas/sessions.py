"""Sessions, as their user sees them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.base import CreatedAt, RecordId, ResponseModel, UtcDatetime
from app.schemas.pages import SORT, PageQuery


class Session(ResponseModel):
    """A login on one device."""

    id: RecordId
    created_at: CreatedAt
    last_used_at: UtcDatetime = Field(description="When it began or was last refreshed.")
    expires_at: UtcDatetime = Field(
        description="When the session ends; later with every refresh, up to a limit."
    )
    ip: str = Field(description="The address that the login came from.")
    user_agent: str = Field(description="The program that logged in, as it calls itself.")
    current: bool = Field(description="Whether it is the session that sends the request.")


class SessionQuery(PageQuery):
    sort: Annotated[Literal["last_used_at", "-last_used_at", "created_at", "-created_at"], SORT] = (
        "-last_used_at"
    )
