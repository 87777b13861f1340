"""The types every schema is built of: safe text, bounded ids, moments in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.core.single_line import has_visible, is_single_line

MAX_ID = 2**63 - 1
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)


def _refuse_unstorable(value: str) -> str:
    """NUL and lone surrogates cannot be stored, or not on every database."""
    if _UNSTORABLE.search(value):
        raise PydanticCustomError("text_unstorable", "text holds a character that cannot be kept")
    return value


def refuse_hostile_line(value: str) -> str:
    """Return a text of one line; refuse line breaks, other control characters, controls of the
    direction of writing, and text of which nothing can be seen. Also refuse what is unstorable."""
    _refuse_unstorable(value)
    if not is_single_line(value):
        raise PydanticCustomError("text_not_single_line", "text is not a single line")
    # An empty text is for the minimum length to judge.
    if value and not has_visible(value):
        raise PydanticCustomError("text_invisible", "nothing in the text can be seen")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        utc = _EARLIEST
    if utc <= _EARLIEST:
        raise PydanticCustomError("datetime_out_of_range", "moment out of range")
    return utc


def _isoformat(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# Stands last in every text type: constraints after a validator would be lost to OpenAPI.
Storable = AfterValidator(_refuse_unstorable)
# Instead of `Storable`, in the same place, for text of one line.
SingleLine = AfterValidator(refuse_hostile_line)
RowId = Annotated[int, Field(ge=1, le=MAX_ID)]
Moment = Annotated[
    AwareDatetime,
    AfterValidator(_to_utc),
    PlainSerializer(_isoformat, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2026-11-21T09:30:00.000000Z"]}
    ),
]


class Input(BaseModel):
    """A request body: unknown fields are an error, input never appears in error texts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Output(BaseModel):
    """A response body, read from rows. Fields have no defaults: leaving one out is a defect."""

    model_config = ConfigDict(from_attributes=True)
