"""Tags."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.crud import tags
from app.crud.base import PageOf
from app.routers.deps import API, CursorsDep, LinksDep, SessionDep
from app.schemas import tags as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/tags", tags=["tags"])


@router.get("", response_model=Page[schemas.TagCount])
async def list_tags(
    query: Annotated[schemas.TagQuery, Query()],
    session: SessionDep,
    cursors: CursorsDep,
    links: LinksDep,
) -> PageOf[schemas.TagCount]:
    """List the tags of published posts, with how many have each."""
    return links.to(await tags.list_tags(session, query=query, cursors=cursors))
