"""Posts: what authors send and what is shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import MISSING, AfterValidator, Field, StringConstraints

from app.models.posts import MAX_CONTENT, MAX_TITLE, PostStatus
from app.models.tags import MAX_TAGS
from app.schemas.base import Input, Moment, Output, RowId, SingleLine, Storable
from app.schemas.pages import PageQuery, Search, words_of
from app.schemas.tags import TagName


def _unique(tags: list[str]) -> list[str]:
    return sorted(set(tags))


Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TITLE),
    SingleLine,
    Field(description="One line, with something visible in it.", examples=["Hola, mundo"]),
]
Content = Annotated[
    str,
    StringConstraints(max_length=MAX_CONTENT),
    Storable,
    Field(examples=["My first post."]),
]
Tags = Annotated[
    list[TagName],
    Field(max_length=MAX_TAGS, examples=[["news", "hello"]]),
    AfterValidator(_unique),
]


class PostCreate(Input):
    title: Title
    content: Content
    status: PostStatus = PostStatus.draft
    tags: Tags = Field([])


class PostUpdate(Input):
    """Changes to a post; what is left out stays. `tags` replaces the whole set."""

    title: Title | MISSING = MISSING
    content: Content | MISSING = MISSING
    status: PostStatus | MISSING = MISSING
    tags: Tags | MISSING = MISSING


class Author(Output):
    id: int
    name: str


class Post(Output):
    id: int
    title: str
    content: str
    status: PostStatus
    published_at: Moment | None
    tags: list[str]
    author: Author
    version: int
    created_at: Moment
    updated_at: Moment
    deleted_at: Moment | None


class UserPostQuery(PageQuery):
    filters = ("status", "tag", "q", "created_from", "created_to")

    sort: Literal[
        "created_at",
        "-created_at",
        "updated_at",
        "-updated_at",
        "published_at",
        "-published_at",
        "title",
        "-title",
    ] = "-created_at"
    status: PostStatus | None = None
    tag: TagName | None = Field(None, description="A tag they have.")
    q: Search | None = Field(None, description=words_of("title or content"))
    created_from: Moment | None = Field(None, description="Created at or after this moment.")
    created_to: Moment | None = Field(None, description="Created before this moment.")
    deleted: bool = Field(False, description="The trash instead of the live ones.")


class PostQuery(UserPostQuery):
    author_id: RowId | None = None
