"""Tags."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from app.models.tags import MAX_TAG
from app.schemas.base import Output, RowId, Text
from app.schemas.pages import MAX_SEARCH, PageQuery


def normalised(value: str) -> str:
    """`  Ciencia   Ficción ` and `ciencia ficción` are one tag."""
    tag = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if not 1 <= len(tag) <= MAX_TAG:
        raise PydanticCustomError("tag_invalid", "not a tag", {"max": MAX_TAG})
    return tag


TagName = Annotated[Text, Field(max_length=200), AfterValidator(normalised)]


class TagCount(Output):
    """A tag and how many published posts have it."""

    id: RowId
    name: str
    post_count: int


class TagQuery(PageQuery):
    sort: Literal["name", "-name", "post_count", "-post_count"] = "name"
    q: Text | None = Field(None, max_length=MAX_SEARCH, description="Part of the tag.")
