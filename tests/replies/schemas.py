"""What is sent as a reply, and what is shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from app.schemas.base import RequestModel, ResponseModel, SafeText, UtcDatetime
from app.schemas.pages import PageQuery
from tests.replies.models import MAX_TEXT

Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT),
    SafeText,
    Field(examples=["Well said."]),
]


class ReplyCreate(RequestModel):
    text: Text


class Reply(ResponseModel):
    id: int
    post_id: int
    author_id: int
    text: str
    created_at: UtcDatetime


class ReplyQuery(PageQuery):
    sort: Literal["created_at", "-created_at"] = "created_at"
