"""Tags."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.models.tags import MAX_TAG
from app.schemas.base import Output, Storable
from app.schemas.pages import PageQuery, Search


def normalised(value: str) -> str:
    """`  Ciencia   Ficción ` and `ciencia ficción` are one tag."""
    tag = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if not 1 <= len(tag) <= MAX_TAG:
        raise PydanticCustomError("tag_invalid", "not a tag", {"max": MAX_TAG})
    return tag


TagName = Annotated[str, StringConstraints(max_length=200), Storable, AfterValidator(normalised)]


class TagCount(Output):
    """A tag and how many published posts have it."""

    id: int
    name: str
    post_count: int


class TagQuery(PageQuery):
    filters = ("q",)

    sort: Literal["name", "-name", "post_count", "-post_count"] = "name"
    q: Search | None = Field(None, description="Part of the tag.")
