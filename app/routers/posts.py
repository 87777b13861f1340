"""Posts. Copy this module, and its namesakes, to add a resource."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from app.core.exceptions import AuthorDeleted, PreconditionFailed, TooManyRequests
from app.crud import post_listing, posts
from app.db.transactions import Transaction
from app.models.posts import Post, PostStatus
from app.schemas import posts as schemas
from app.schemas.pages import Page
from app.web.dependencies import (
    API,
    Id,
    OptionalCaller,
    PostForRestore,
    PostForUpdate,
    SessionDep,
    location,
    paginator_of,
    query_runner_of,
)
from app.web.error_responses import PRECONDITION_FAILED, error_responses
from app.web.idempotency import IdempotentPostRequest
from app.web.pagination import page_response, query_params
from app.web.rate_limits import LIMIT_WRITES, write_rate_limit
from app.web.read_only import require_unchanged
from app.web.responses import FastJSONResponse, created_response
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/posts", tags=["posts"], route_class=StrictRoute)
PostQuery = Annotated[schemas.PostQuery, query_params(schemas.PostQuery)]


@router.get("", response_model=Page[schemas.Post], openapi_extra={"security": [{}]})
async def list_posts(
    caller: OptionalCaller, query: PostQuery, request: Request
) -> FastJSONResponse:
    """List posts.

    List the published posts and, with a login, your own drafts; `deleted=true` lists your
    trash. With `posts:moderate`, list the drafts and the trash of all users.
    """
    page = await post_listing.list_posts(
        paginator_of(request), caller=caller, query=query, author_id=query.author_id
    )
    return page_response(request, page)


@router.post(
    "", status_code=201, response_model=schemas.Post, responses=error_responses(TooManyRequests)
)
async def create_post(
    data: schemas.PostCreate, idempotent: IdempotentPostRequest, request: Request
) -> Response:
    """Create a post.

    The post is a draft unless `status` is `published`. Tags that are new are created with it.
    """

    def write(transaction: Transaction) -> FastJSONResponse:
        post = posts.create(transaction, caller=idempotent.caller, data=data)
        return created_response(post, at=location(request, post["id"]), version=post["version"])

    return await write_rate_limit.run_create(
        request, idempotent.caller.user_id, partial(idempotent.run_in_transaction, write)
    )


@router.get("/{post_id}", response_model=schemas.Post, openapi_extra={"security": [{}]})
async def get_post(post_id: Id, caller: OptionalCaller, request: Request) -> FastJSONResponse:
    """Read a post.

    Return a published post to everyone, and a draft to its author and to users with
    `posts:moderate`. A post that you may not see is 404, as if it did not exist.
    """
    post = await posts.read(query_runner_of(request), caller=caller, post_id=post_id)
    return FastJSONResponse.with_etag(post, version=post["version"])


@router.patch(
    "/{post_id}",
    response_model=schemas.Post,
    responses=PRECONDITION_FAILED,
    dependencies=[LIMIT_WRITES],
)
async def update_post(
    data: schemas.PostUpdate, post: PostForUpdate, session: SessionDep
) -> FastJSONResponse:
    """Update a post.

    Change the members that are sent; the others stay. Send `If-Match` to change the post only
    if it is still as you read it.
    """

    async def show() -> dict[str, Any]:
        return posts.PROJECTION.from_orm_object(post)

    await require_unchanged(data, show)
    return _post_response(await posts.update(session, post=post, data=data))


@router.delete("/{post_id}", status_code=204, responses=PRECONDITION_FAILED)
async def delete_post(post: PostForUpdate, session: SessionDep) -> None:
    """Delete a post.

    Put the post in the trash. `POST /api/v1/posts/{post_id}/restore` takes it out again.
    """
    await posts.soft_delete(session, post=post)


@router.post(
    "/{post_id}/restore",
    response_model=schemas.Post,
    responses=error_responses(AuthorDeleted, PreconditionFailed),
    dependencies=[LIMIT_WRITES],
)
async def restore_post(post: PostForRestore, session: SessionDep) -> FastJSONResponse:
    """Restore a post.

    Take the post out of the trash. A post whose author is in the trash is 409: restore the
    author first.
    """
    return _post_response(await posts.restore(session, post=post))


@router.put(
    "/{post_id}/publication",
    response_model=schemas.Post,
    responses=PRECONDITION_FAILED,
    dependencies=[LIMIT_WRITES],
)
async def publish_post(post: PostForUpdate, session: SessionDep) -> FastJSONResponse:
    """Publish a post.

    Show the post to everyone. A post that is published already stays as it is.
    """
    return _post_response(await posts.set_status(session, post=post, status=PostStatus.published))


@router.delete("/{post_id}/publication", response_model=schemas.Post, responses=PRECONDITION_FAILED)
async def unpublish_post(post: PostForUpdate, session: SessionDep) -> FastJSONResponse:
    """Unpublish a post.

    Turn the post back into a draft, which is hidden from everyone but its author and users
    with `posts:moderate`.
    """
    return _post_response(await posts.set_status(session, post=post, status=PostStatus.draft))


def _post_response(post: Post) -> FastJSONResponse:
    """Return the same body and ETag that GET returns for this post, so that an ETag from either
    response works in `If-Match`."""
    return FastJSONResponse.with_etag(posts.PROJECTION.from_orm_object(post), version=post.version)
