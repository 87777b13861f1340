"""Counts of tags that change on two nodes of a cluster at once."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

import pytest
from sqlalchemy import func, select, update

from app.core.permissions import ADMIN_ROLE
from app.crud import tags
from app.models.posts import Post, PostStatus
from app.models.tags import PostTag, Tag
from tests.faults.nodes import Nodes
from tests.faults.report import Report
from tests.faults.rounds import Race, Round, run

pytestmark = pytest.mark.faults

_numbers = itertools.count(1)


def post(*names: str) -> dict[str, object]:
    return {"title": "One", "content": "", "status": "published", "tags": [*names]}


async def is_wrong(nodes: Nodes, tag: str) -> bool:
    """Whether a tag's count is another than that of its posts."""
    kept = await nodes.count(select(Tag.post_count).where(Tag.name == tag))
    counted = select(func.count()).select_from(Post)
    counted = counted.join(PostTag, PostTag.post_id == Post.id)
    counted = counted.join(Tag, Tag.id == PostTag.tag_id).where(Tag.name == tag)
    counted = counted.where(Post.status == PostStatus.published, Post.deleted_at.is_(None))
    return kept != await nodes.count(counted)


async def posts_with_one_tag(nodes: Nodes) -> Round:
    """Two on each node; none is turned away."""
    people = [await nodes.person("user") for _ in range(2)]

    async def once() -> bool:
        tag = f"count{next(_numbers) % 5}"
        responses = await nodes.race(
            *(nodes.send(n % 2, people[n % 2], "POST", "/posts", post(tag)) for n in range(4))
        )
        all_made = all(response.status_code == 201 for response in responses)
        return not all_made or await is_wrong(nodes, tag)

    return once


async def post_made_while_another_author_is_deleted(nodes: Nodes) -> Round:
    boss, ana = await nodes.person(ADMIN_ROLE), await nodes.person("user")

    async def once() -> bool:
        tag, ben = f"leaver{next(_numbers) % 5}", await nodes.person("user")
        await nodes.send(0, ben, "POST", "/posts", post(tag))
        await nodes.race(
            nodes.send(0, ana, "POST", "/posts", post(tag)),
            nodes.send(1, boss, "DELETE", f"/users/{ben.id}"),
        )
        return await is_wrong(nodes, tag)

    return once


async def post_made_while_its_tag_is_repaired(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        tag = f"repaired{next(_numbers)}"
        await nodes.send(0, ana, "POST", "/posts", post(tag))
        await nodes.change(update(Tag).where(Tag.name == tag).values(post_count=7))
        tag_id = await nodes.count(select(Tag.id).where(Tag.name == tag))
        recount = partial(tags.recount, tag_id=tag_id)
        recounting = asyncio.create_task(nodes.databases[1].run(recount))
        await nodes.race(
            nodes.send(0, ana, "POST", "/posts", post(tag)),
            nodes.send(0, ana, "POST", "/posts", post(tag)),
        )
        await recounting
        return await is_wrong(nodes, tag)

    return once


RACES: list[Race] = [
    posts_with_one_tag,
    post_made_while_another_author_is_deleted,
    post_made_while_its_tag_is_repaired,
]


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
async def test_no_count_is_lost(nodes: Nodes, race: Race, whole: bool, report: Report) -> None:
    await run(nodes, race, report, rounds=50 if whole else 10)
