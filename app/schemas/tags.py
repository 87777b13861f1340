"""Tags."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.models.tags import MAX_TAG
from app.schemas.base import Output, Storable, refuse_hostile_line
from app.schemas.pages import PageQuery, Search, words_of


def normalised(value: str) -> str:
    """`  Ciencia   Ficción ` and `ciencia ficción` are one tag."""
    # Tabs separate words as spaces do; every other control character is refused.
    line = refuse_hostile_line(value.replace("\t", " ").strip())
    tag = " ".join(unicodedata.normalize("NFKC", line).casefold().split())
    if not 1 <= len(tag) <= MAX_TAG:
        raise PydanticCustomError("tag_invalid", "not a tag", {"max": MAX_TAG})
    # `¨` becomes a space and a mark that stands on nothing.
    return refuse_hostile_line(tag)


TagName = Annotated[str, StringConstraints(max_length=200), Storable, AfterValidator(normalised)]


class TagCount(Output):
    """A tag and how many published posts have it."""

    id: int
    name: str
    post_count: int


class TagQuery(PageQuery):
    filters = ("q",)

    sort: Literal["name", "-name", "post_count", "-post_count"] = "name"
    q: Search | None = Field(None, description=words_of("tag"))
