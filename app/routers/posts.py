"""Posts. Copy this module, and its namesakes, to add a resource."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.exceptions import AuthorDeleted, PreconditionFailed, TooManyRequests
from app.crud import posts
from app.models.posts import Post, PostStatus
from app.routers.bodies import StrictRoute
from app.routers.creating import PostCreation, made
from app.routers.deps import (
    API,
    Id,
    MaybeCaller,
    PostForRestore,
    PostForUpdate,
    SessionDep,
    location,
    pages_of,
    reader_of,
)
from app.routers.doors import WRITES, writing
from app.routers.lists import Json, listed, parsed
from app.routers.responses import problems
from app.schemas import posts as schemas
from app.schemas.pages import Page
from app.writing import Unit

router = APIRouter(prefix=f"{API}/posts", tags=["posts"], route_class=StrictRoute)
_STALE = problems(PreconditionFailed)
PostQuery = Annotated[schemas.PostQuery, parsed(schemas.PostQuery)]


@router.get("", response_model=Page[schemas.Post], openapi_extra={"security": [{}]})
async def list_posts(caller: MaybeCaller, query: PostQuery, request: Request) -> Json:
    """List posts: the published ones, and your own drafts; `deleted=true` shows your trash."""
    page = await posts.list_posts(
        pages_of(request), caller=caller, query=query, author_id=query.author_id
    )
    return listed(request, page)


@router.post("", status_code=201, response_model=schemas.Post, responses=problems(TooManyRequests))
async def create_post(
    data: schemas.PostCreate, creation: PostCreation, request: Request
) -> Response:
    """Write a post."""

    def write(unit: Unit) -> Json:
        post = posts.create(unit, caller=creation.caller, data=data)
        return made(post, at=location(request, post["id"]), version=post["version"])

    return await writing.new(request, creation.caller.user_id, partial(creation.run, write))


@router.get("/{post_id}", response_model=schemas.Post, openapi_extra={"security": [{}]})
async def get_post(post_id: Id, caller: MaybeCaller, request: Request) -> Json:
    """Read a post."""
    post = await posts.read(reader_of(request), caller=caller, post_id=post_id)
    return Json.tagged(post, version=post["version"])


@router.patch("/{post_id}", response_model=schemas.Post, responses=_STALE, dependencies=[WRITES])
async def update_post(data: schemas.PostUpdate, post: PostForUpdate, session: SessionDep) -> Json:
    """Change a post; with `If-Match` only if nobody else did meanwhile."""
    return _shown(await posts.update(session, post=post, data=data))


@router.delete("/{post_id}", status_code=204, responses=_STALE)
async def delete_post(post: PostForUpdate, session: SessionDep) -> None:
    """Put a post in the trash."""
    await posts.soft_delete(session, post=post)


@router.post(
    "/{post_id}/restore",
    response_model=schemas.Post,
    responses=problems(AuthorDeleted, PreconditionFailed),
    dependencies=[WRITES],
)
async def restore_post(post: PostForRestore, session: SessionDep) -> Json:
    """Take a post out of the trash."""
    return _shown(await posts.restore(session, post=post))


@router.put(
    "/{post_id}/publication",
    response_model=schemas.Post,
    responses=_STALE,
    dependencies=[WRITES],
)
async def publish_post(post: PostForUpdate, session: SessionDep) -> Json:
    """Publish a post."""
    return _shown(await posts.set_status(session, post=post, status=PostStatus.published))


@router.delete("/{post_id}/publication", response_model=schemas.Post, responses=_STALE)
async def unpublish_post(post: PostForUpdate, session: SessionDep) -> Json:
    """Take a post back to a draft."""
    return _shown(await posts.set_status(session, post=post, status=PostStatus.draft))


def _shown(post: Post) -> Json:
    """Return what reading the post would answer, to the byte: a tag of either is one of both."""
    return Json.tagged(schemas.Post.model_validate(post), version=post.version)
