"""Comments on posts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.permissions import Caller
from app.db.transactions import Transaction
from app.schemas.pages import Page
from app.web.dependencies import (
    API,
    CurrentCaller,
    Id,
    SessionDep,
    location,
    paginator_of,
    query_runner_of,
    require_any_permission,
    require_any_permission_to_write,
)
from app.web.idempotency import AcceptsIdempotencyKey, IdempotentRequest
from app.web.pagination import page_response, query_params
from app.web.responses import FastJSONResponse, created_response
from app.web.strict_route import StrictRoute
from tests.comments import crud, schemas
from tests.comments.permissions import COMMENTS_WRITE

router = APIRouter(
    prefix=f"{API}/posts/{{post_id}}/comments", tags=["comments"], route_class=StrictRoute
)
CommentQuery = Annotated[schemas.CommentQuery, query_params(schemas.CommentQuery)]
IdempotentCommentRequest = Annotated[
    IdempotentRequest[Caller],
    require_any_permission(COMMENTS_WRITE, dependency=AcceptsIdempotencyKey()),
]
CommentsWriter = Annotated[Caller, require_any_permission_to_write(COMMENTS_WRITE)]


@router.get("", response_model=Page[schemas.Comment])
async def list_comments(
    post_id: Id, _: CurrentCaller, query: CommentQuery, request: Request
) -> FastJSONResponse:
    """List the comments on a post."""
    page = await crud.list_comments(paginator_of(request), post_id=post_id, query=query)
    return page_response(request, page)


@router.post("", status_code=201, response_model=schemas.Comment)
async def create_comment(
    post_id: Id, data: schemas.CommentCreate, idempotent: IdempotentCommentRequest, request: Request
) -> Response:
    """Comment on a published post."""

    def write(transaction: Transaction) -> FastJSONResponse:
        comment = crud.create(transaction, caller=idempotent.caller, post_id=post_id, data=data)
        return created_response(comment, at=location(request, comment["id"]))

    return await idempotent.run_in_transaction(write)


@router.get("/{comment_id}", response_model=schemas.Comment)
async def get_comment(
    post_id: Id, comment_id: Id, _: CurrentCaller, request: Request
) -> FastJSONResponse:
    """Read a comment."""
    runner = query_runner_of(request)
    return FastJSONResponse.with_etag(
        await crud.read(runner, post_id=post_id, comment_id=comment_id)
    )


@router.delete("/{comment_id}", status_code=204)
async def delete_comment(
    post_id: Id, comment_id: Id, caller: CommentsWriter, session: SessionDep
) -> None:
    """Put a comment of your own in the trash."""
    comment = await crud.get_for_update(
        session, caller=caller, post_id=post_id, comment_id=comment_id
    )
    await crud.soft_delete(session, comment=comment)
