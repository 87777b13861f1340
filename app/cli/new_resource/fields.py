"""The fields of a new resource, as `name:type` says them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Container
from dataclasses import dataclass
from enum import EnumType, StrEnum
from inspect import getmro, signature

from pydantic import BaseModel

from app.db.transactions import Transaction
from app.models.base import Base, Guarded, SoftDelete, TimestampedModel, Versioned
from app.schemas.base import RequestModel, ResponseModel, UpdateModel
from app.schemas.pages import PageQuery

MAX_LENGTH = 1_000
MAX_TEXT = 100_000
# With a longer one, MariaDB refuses the index of it and other columns.
_MAX_SORTED = 200
_MAX_NAME = 30
_FIELD = re.compile(r"(?P<name>[^:]+):(?P<kind>[a-z]+)(?:\((?P<given>[^()]*)\))?")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# The classes that those of every resource inherit from.
_BASES = (
    *(RequestModel, ResponseModel, UpdateModel, PageQuery),
    *(Base, TimestampedModel, SoftDelete, Versioned, Guarded),
)
# What is called with the fields as keywords.
_CALLED = (Transaction.insert, Versioned.change)
# They mean the same in every resource that has them.
_OF_OTHERS = {"author_id", "q", "deleted", "items"}
# SQL keywords are quoted where they have to be, but these name system columns of the databases.
_OF_DATABASES = {"rowid", "oid", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}


class MistakeError(ValueError):
    """What cannot be created, in one line."""


class Kind(StrEnum):
    """The types of fields."""

    str = "str"
    text = "text"
    int = "int"
    bool = "bool"
    datetime = "datetime"
    date = "date"
    enum = "enum"
    ref = "ref"


@dataclass(frozen=True)
class Field:
    """A field: `length` of a str, `values` of an enum, `target` of a ref."""

    name: str
    kind: Kind
    length: int = 0
    values: tuple[str, ...] = ()
    target: str = ""

    @property
    def label(self) -> str:
        """Return the name in words."""
        return self.name.removesuffix("_id").replace("_", " ")

    @property
    def is_sorted(self) -> bool:
        """Return whether the listing can be sorted by it."""
        return self.kind is Kind.datetime or (self.kind is Kind.str and self.length <= _MAX_SORTED)

    @property
    def is_filter(self) -> bool:
        """Return whether the listing can be narrowed down to one value of it."""
        return self.kind in {Kind.enum, Kind.bool, Kind.ref}

    @property
    def camel(self) -> str:
        """Return the name as a class has it."""
        return camel(self.name)


def camel(name: str) -> str:
    """Return `BlogEntry` for `blog_entry`."""
    return "".join(part.title() for part in name.split("_"))


def require_name(name: str, what: str) -> None:
    """Raise MistakeError unless a name can name modules, columns and members."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise MistakeError(
            f"{name!r} cannot name {what}: take at most {_MAX_NAME} lower-case letters, digits"
            " and single underscores, a letter first"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise MistakeError(f"{name!r} cannot name {what}: it is a word of Python")


def field_of(text: str) -> Field:
    """Read a field; raise MistakeError for what is none."""
    found = _FIELD.fullmatch(text)
    if not found or found["kind"] not in {*Kind}:
        raise MistakeError(
            f"{text!r} is not a field: write name:type, with one of the types str(n), text, int,"
            " bool, datetime, date, enum(a|b), ref(resource)"
        )
    name, kind, given = found["name"], Kind(found["kind"]), found["given"]
    if kind is Kind.ref:
        name = f"{name.removesuffix('_id')}_id"
    _require_free(name)
    if kind not in {Kind.str, Kind.enum, Kind.ref} and given is not None:
        raise MistakeError(f"{text!r} is not a field: {kind} takes nothing in parentheses")
    if kind is Kind.str:
        return Field(name, kind, length=_length(text, given or ""))
    if kind is Kind.enum:
        return Field(name, kind, values=_values(text, given or ""))
    return Field(name, kind, target=given or "")


def _require_free(name: str) -> None:
    require_name(name, "a field")
    is_inherited = any(hasattr(each, name) or name in _members(each) for each in _BASES)
    is_taken = is_inherited or name in _OF_OTHERS | _OF_DATABASES
    is_parameter = any(name in signature(each).parameters for each in _CALLED)
    if is_taken or is_parameter or name.startswith(("model_", "deleted_with_")):
        raise MistakeError(f"{name!r} cannot name a field: every record has it for itself")


def _members(model: type) -> Container[str]:
    return model.model_fields if issubclass(model, BaseModel) else ()


def _length(text: str, given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= MAX_LENGTH:
        raise MistakeError(
            f"{text!r} is not a field: say how many characters it has at most, 1 to {MAX_LENGTH},"
            " as in title:str(100); longer texts are of type text"
        )
    return int(given)


def _values(text: str, given: str) -> tuple[str, ...]:
    values = tuple(given.split("|"))
    if len({*values}) < max(2, len(values)) or not all(map(_NAME.fullmatch, values)):
        raise MistakeError(
            f"{text!r} is not a field: name two values or more, as in state:enum(open|closed), of"
            " lower-case letters, digits and single underscores"
        )
    for value in values:
        require_name(value, "a value")
        if any(value in vars(each) for each in (*getmro(StrEnum), *getmro(EnumType))):
            raise MistakeError(f"{value!r} cannot name a value: every value has it for itself")
    return values
