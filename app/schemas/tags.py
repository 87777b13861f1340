"""Tags."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from app.models.tags import MAX_TAG
from app.schemas import patterns
from app.schemas.base import Checked, RecordId, ResponseModel, refuse_hostile_line
from app.schemas.pages import SORT, PageQuery, Search, words_of


def normalised(value: str) -> str:
    """`  Ciencia   Ficción ` and `ciencia ficción` are one tag."""
    _refuse_unless_fits(value)
    # Tabs separate words as spaces do; every other control character is refused.
    line = refuse_hostile_line(value.replace("\t", " ").strip())
    tag = " ".join(unicodedata.normalize("NFKC", line).casefold().split())
    _refuse_unless_fits(tag)
    # `¨` becomes a space and a mark that stands on nothing.
    return refuse_hostile_line(tag)


def _refuse_unless_fits(tag: str) -> None:
    if not 1 <= len(tag) <= MAX_TAG:
        raise PydanticCustomError("tag_invalid", "not a tag", {"max": MAX_TAG})


TagName = Annotated[
    str,
    Checked(normalised, patterns.WORDS),
    Field(json_schema_extra={"minLength": 1, "maxLength": MAX_TAG}),
]


class TagCount(ResponseModel):
    """A tag and how many published posts have it."""

    id: RecordId
    name: str = Field(description="The name, in lower case.")
    post_count: int = Field(description="How many published posts have the tag.")


class TagQuery(PageQuery):
    filters = ("q",)

    sort: Annotated[Literal["name", "-name", "post_count", "-post_count"], SORT] = "name"
    q: Search | None = Field(None, description=words_of("tag"))
