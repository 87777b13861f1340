"""Replies to posts."""

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
from tests.replies import crud, schemas
from tests.replies.permissions import REPLIES_WRITE

router = APIRouter(
    prefix=f"{API}/posts/{{post_id}}/replies", tags=["replies"], route_class=StrictRoute
)
ReplyQuery = Annotated[schemas.ReplyQuery, query_params(schemas.ReplyQuery)]
IdempotentReplyRequest = Annotated[
    IdempotentRequest[Caller],
    require_any_permission(REPLIES_WRITE, dependency=AcceptsIdempotencyKey()),
]
RepliesWriter = Annotated[Caller, require_any_permission_to_write(REPLIES_WRITE)]


@router.get("", response_model=Page[schemas.Reply])
async def list_replies(
    post_id: Id, _: CurrentCaller, query: ReplyQuery, request: Request
) -> FastJSONResponse:
    """List the replies to a post."""
    page = await crud.list_replies(paginator_of(request), post_id=post_id, query=query)
    return page_response(request, page)


@router.post("", status_code=201, response_model=schemas.Reply)
async def create_reply(
    post_id: Id, data: schemas.ReplyCreate, idempotent: IdempotentReplyRequest, request: Request
) -> Response:
    """Reply to a published post."""

    def write(transaction: Transaction) -> FastJSONResponse:
        reply = crud.create(transaction, caller=idempotent.caller, post_id=post_id, data=data)
        return created_response(reply, at=location(request, reply["id"]))

    return await idempotent.run_in_transaction(write)


@router.get("/{reply_id}", response_model=schemas.Reply)
async def get_reply(
    post_id: Id, reply_id: Id, _: CurrentCaller, request: Request
) -> FastJSONResponse:
    """Read a reply."""
    runner = query_runner_of(request)
    return FastJSONResponse.with_etag(await crud.read(runner, post_id=post_id, reply_id=reply_id))


@router.delete("/{reply_id}", status_code=204)
async def delete_reply(
    post_id: Id, reply_id: Id, caller: RepliesWriter, session: SessionDep
) -> None:
    """Put a reply of your own in the trash."""
    reply = await crud.get_for_update(session, caller=caller, post_id=post_id, reply_id=reply_id)
    await crud.soft_delete(session, reply=reply)
