"""Listings: what every one takes and the envelope every one answers with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.schemas.base import QueryInt, ResponseModel, SafeText

T = TypeVar("T")
MAX_PAGE = 2**31 - 1
MAX_PAGE_SIZE = 100
MAX_CURSOR = 2_000
MAX_SEARCH = 200
# Of the parameter `sort` of every listing.
SORT = Field(description="Order of the items; `-` stands for descending.")
TRASH = "The deleted ones instead of the live ones."
Search = Annotated[str, StringConstraints(max_length=MAX_SEARCH), SafeText]


def words_of(what: str) -> str:
    """Describe the parameter `q` of a listing that searches the words of something."""
    return (
        f"Beginnings of words of the {what}, all of which have to be there. Case and accents make"
        " no difference, words of fewer than three letters or digits none either."
    )


class PageQuery(BaseModel):
    """Query parameters of every listing; a resource adds its filters and its sorts."""

    # Frozen: one that came before is handed out again.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)
    # The fields that narrow the listing down, by the names of the statement's parameters.
    filters: ClassVar[tuple[str, ...]] = ()

    page: QueryInt = Field(1, ge=1, le=MAX_PAGE, description="Page number; ignored with a cursor.")
    page_size: QueryInt = Field(
        20, ge=1, le=MAX_PAGE_SIZE, description="How many items a page holds."
    )
    cursor: Annotated[str, StringConstraints(max_length=MAX_CURSOR), SafeText] | None = Field(
        None,
        description="`next_cursor` of the page before: continues from there, without a count.",
    )
    sort: str


class Page(ResponseModel, Generic[T]):
    """One page of a listing. With a cursor nothing is counted: `total`, `total_is_exact`, `page`
    and `total_pages` are null and `has_prev` is true."""

    items: list[T] = Field(description="The items of the page, in the order of `sort`.")
    total: int | None = Field(
        description="How many there are; it may lag by up to two minutes where counting takes long."
    )
    total_is_exact: bool | None = Field(description="False where there may be more than `total`.")
    page: int | None = Field(description="Number of the page, from 1 on; null with a cursor.")
    page_size: int = Field(description="The most items that a page holds.")
    total_pages: int | None = Field(description="How many pages there are; null with a cursor.")
    has_next: bool = Field(description="Whether there are items after this page.")
    has_prev: bool = Field(description="Whether there are items before this page.")
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next page; null on the last page."
    )
