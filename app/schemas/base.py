"""The types every schema is built of: safe text, bounded ids, dates and times in UTC.

What a type enforces is what it publishes (docs, OpenAPI), and it reads one notation: a date,
with or without a time, is text as RFC 3339 has it and never a number, a boolean of JSON is no
number and no text, and an integer of a query is plain digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from app.core.single_line import has_visible, is_single_line
from app.schemas import patterns

MAX_ID = 2**63 - 1
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_INTEGER = re.compile(r"[0-9]|[1-9][0-9]*|-[1-9][0-9]*")
_HOUR_AND_MINUTE = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_AND_MINUTE}:[0-5][0-9](?:\.[0-9]+)?"
_OFFSET = rf"(?:[Zz]|[+-]{_HOUR_AND_MINUTE})"
# From the year 1000 on: what every database can hold.
_DATE_TIME = rf"[1-9][0-9]{{3}}-{patterns.MONTH_AND_DAY}[Tt]{_TIME}"
_FULL_DATE = rf"[0-9]{{4}}-{patterns.MONTH_AND_DAY}"
_MOMENT_SCHEMA = {"type": "string", "format": "date-time"}
_MOMENT_EXAMPLES = {"examples": ["2026-11-21T09:30:00.000000Z"]}


def refuse_unstorable(value: str) -> str:
    """NUL and lone surrogates cannot be stored, or not on every database."""
    if _UNSTORABLE.search(value):
        raise PydanticCustomError("text_unstorable", "text holds a character that cannot be kept")
    return value


def refuse_hostile_line(value: str) -> str:
    """Return a text of one line; refuse line breaks, other control characters, controls of the
    direction of writing, and text of which nothing can be seen. Also refuse what is unstorable."""
    refuse_unstorable(value)
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
        utc = _BEFORE_ALL
    if utc < _EARLIEST:
        raise PydanticCustomError("datetime_out_of_range", "moment out of range")
    return utc


def _isoformat(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _date_time(value: object) -> object:
    """Let text through that is a date-time of RFC 3339; a missing offset has an error of its own.
    Numbers would be seconds since 1970 to pydantic."""
    is_text = isinstance(value, str) and _READABLE_MOMENT.fullmatch(value)
    if not is_text and not isinstance(value, datetime):
        raise PydanticCustomError("datetime_parsing", "not a moment")
    return value


def _full_date(value: object) -> object:
    """The same for dates, which have no time of day."""
    if not isinstance(value, str):
        raise PydanticCustomError("date_type", "not a date")
    if _READABLE_MOMENT.fullmatch(value):
        raise PydanticCustomError("date_from_datetime_inexact", "not a date alone")
    if not _READABLE_DATE.fullmatch(value):
        raise PydanticCustomError("date_parsing", "not a date")
    return value


def _stored_date(value: date) -> date:
    if value < _EARLIEST.date():
        raise PydanticCustomError("date_out_of_range", "date out of range")
    return value


def _integer(value: object) -> object:
    """One number, one text: ` 1`, `+1`, `01` and `1.0` are none. Of a body, take StrictInt."""
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise PydanticCustomError("int_parsing", "not an integer")
    return value


def _boolean(value: object) -> object:
    if isinstance(value, str) and value not in {"true", "false"}:
        raise PydanticCustomError("bool_parsing", "neither true nor false")
    return value


_READABLE_MOMENT = re.compile(rf"[0-9]{{4}}-{patterns.MONTH_AND_DAY}[Tt]{_TIME}{_OFFSET}?")
_READABLE_DATE = re.compile(_FULL_DATE)


@dataclass(frozen=True)
class Checked(AfterValidator):
    """A validator that publishes what it asks for, unless the type publishes more already."""

    pattern: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON schema of the type, with the pattern."""
        return {"pattern": self.pattern} | handler(schema)


# Stands last in every text type: constraints after a validator would be lost to OpenAPI.
SafeText = Checked(refuse_unstorable, patterns.TEXT)
# Instead of `SafeText`, in the same place, for text of one line.
SingleLine = Checked(refuse_hostile_line, patterns.LINE)


def at_most(length: int) -> BeforeValidator:
    """Bound a text as it is sent, before its ends are trimmed: that is what is published."""

    def bound(value: object) -> object:
        if isinstance(value, str) and len(value) > length:
            raise PydanticCustomError("string_too_long", "too long", {"max_length": length})
        return value

    return BeforeValidator(bound)


# Of a query string or a path, where everything is text.
QueryInt = Annotated[int, BeforeValidator(_integer)]
QueryBool = Annotated[bool, BeforeValidator(_boolean)]
RowId = Annotated[QueryInt, Field(ge=1, le=MAX_ID)]
# Of a body.
Flag = StrictBool
UtcDatetime = Annotated[
    AwareDatetime,
    BeforeValidator(_date_time),
    AfterValidator(_to_utc),
    PlainSerializer(_isoformat, return_type=str, when_used="json"),
    WithJsonSchema(_MOMENT_SCHEMA | _MOMENT_EXAMPLES, mode="serialization"),
    WithJsonSchema(
        _MOMENT_SCHEMA | {"pattern": f"^{_DATE_TIME}{_OFFSET}$"} | _MOMENT_EXAMPLES,
        mode="validation",
    ),
]
# Members that mean the same in every record.
RecordId = Annotated[int, Field(description="Identifies the record; it never changes.")]
CreatedAt = Annotated[UtcDatetime, Field(description="When the record was created.")]
UpdatedAt = Annotated[UtcDatetime, Field(description="When the record last changed.")]
DeletedAt = Annotated[
    UtcDatetime | None,
    Field(description="When the record was put in the trash; null if it is not there."),
]
FullDate = Annotated[
    date, BeforeValidator(_full_date), Field(json_schema_extra={"pattern": f"^{_FULL_DATE}$"})
]


# What every database can hold.
StoredDate = Annotated[
    FullDate,
    AfterValidator(_stored_date),
    Field(json_schema_extra={"pattern": f"^[1-9][0-9]{{3}}-{patterns.MONTH_AND_DAY}$"}),
]


class RequestModel(BaseModel):
    """A request body: unknown fields are an error, input never appears in error texts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ResponseModel(BaseModel):
    """A response body. Fields have no defaults: leaving one out is a defect."""


class UpdateModel(RequestModel):
    """A PATCH body: the changes to a record; what is left out stays.

    A record as it was read may be sent back: what it has beside the fields that can be changed is
    set aside, for `web/read_only.py` to compare with what the record has by now, and published
    by `app/web/openapi.py`.
    """

    # What reading the record answers.
    record: ClassVar[type[ResponseModel]]

    _set_aside: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def read_only(cls) -> frozenset[str]:
        """Return the names of the members that cannot be changed."""
        return frozenset(cls.record.model_fields.keys() - cls.model_fields.keys())

    @property
    def set_aside(self) -> dict[str, Any]:
        """The read-only members that came, unread."""
        return self._set_aside

    @model_validator(mode="wrap")
    @classmethod
    def _set_read_only_aside(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        names = cls.read_only() & data.keys()
        changes = handler({name: value for name, value in data.items() if name not in names})
        changes._set_aside = {name: data[name] for name in names}
        return changes
