"""Tags, which posts make."""

from __future__ import annotations

from tests.contract.entries.base import Case, Entry
from tests.contract.entries.posts import published
from tests.support.response_shapes import keys, page_of

ENTRY = Entry(
    "tags",
    # Of each of ACTORS: anonymous, user, owner, stranger, moderator, admin, disabled, deleted.
    {
        "list_tags": Case(
            (200, 200, 200, 200, 200, 200, 200, 200), published, page_of(keys("id name post_count"))
        ),
    },
)
