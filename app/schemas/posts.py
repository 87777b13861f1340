"""Posts: what authors send and what is shown."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import MISSING, AfterValidator, Field, StringConstraints

from app.models.posts import MAX_CONTENT, MAX_TITLE, PostStatus
from app.models.tags import MAX_TAGS
from app.schemas.base import (
    CreatedAt,
    DeletedAt,
    QueryBool,
    RecordId,
    RequestModel,
    ResponseModel,
    RowId,
    SafeText,
    SingleLine,
    UpdatedAt,
    UpdateModel,
    UtcDatetime,
    at_most,
)
from app.schemas.pages import SORT, TRASH, PageQuery, Search, words_of
from app.schemas.tags import TagName


def _unique(tags: list[str]) -> list[str]:
    return sorted(set(tags))


Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TITLE),
    SingleLine,
    at_most(MAX_TITLE),
    Field(
        description="The title: one line, with something visible in it.", examples=["Hola, mundo"]
    ),
]
Content = Annotated[
    str,
    StringConstraints(max_length=MAX_CONTENT),
    SafeText,
    Field(description="The text of the post.", examples=["My first post."]),
]
Tags = Annotated[
    list[TagName],
    Field(
        max_length=MAX_TAGS,
        description="The names of the tags, without repetition; new ones are created.",
        examples=[["hello", "news"]],
    ),
    AfterValidator(_unique),
]


Status = Annotated[
    PostStatus,
    Field(
        description="`published`, for everyone to see, or `draft`.", examples=[PostStatus.published]
    ),
]


class PostCreate(RequestModel):
    """A new post."""

    title: Title
    content: Content
    status: Status = PostStatus.draft
    tags: Tags = Field([])


class Author(ResponseModel):
    """The user who wrote it."""

    id: RecordId
    name: str = Field(description="The name of the user.")


class Post(ResponseModel):
    """A post, with its author and its tags."""

    id: RecordId
    title: str = Field(description="The title, of one line.")
    content: str = Field(description="The text of the post.")
    status: Status
    published_at: UtcDatetime | None = Field(
        description="When the post was published; null for a draft."
    )
    tags: list[str] = Field(description="The names of the tags, in alphabetical order.")
    author: Author
    version: int = Field(description="1, and one more with each change; the `ETag` begins with it.")
    created_at: CreatedAt
    updated_at: UpdatedAt
    deleted_at: DeletedAt


class PostUpdate(UpdateModel):
    """Changes to a post; what is left out stays. `tags` replaces the whole set."""

    record: ClassVar[type[ResponseModel]] = Post

    title: Title | MISSING = MISSING
    content: Content | MISSING = MISSING
    status: Status | MISSING = MISSING
    tags: Tags | MISSING = MISSING


class UserPostQuery(PageQuery):
    filters = ("status", "tag", "q", "created_from", "created_to")

    sort: Annotated[
        Literal[
            "created_at",
            "-created_at",
            "updated_at",
            "-updated_at",
            "published_at",
            "-published_at",
            "title",
            "-title",
        ],
        SORT,
    ] = "-created_at"
    status: PostStatus | None = Field(None, description="Posts with this status alone.")
    tag: TagName | None = Field(None, description="Posts with this tag alone.")
    q: Search | None = Field(None, description=words_of("title or content"))
    created_from: UtcDatetime | None = Field(None, description="Created at or after this moment.")
    created_to: UtcDatetime | None = Field(None, description="Created before this moment.")
    deleted: QueryBool = Field(False, description=TRASH)


class PostQuery(UserPostQuery):
    author_id: RowId | None = Field(None, description="Posts of this user alone.")
