"""What is served beside the resources of `app/`."""

from __future__ import annotations

from pathlib import Path

from app.db.migrations import Location
from app.resources import RESOURCES, Resource
from tests.replies.models import Reply
from tests.replies.permissions import REPLIES_WRITE
from tests.replies.router import router

HERE = Path(__file__).parent
MIGRATIONS = Location(HERE / "migrations", version_table="alembic_version_replies")
REPLIES = Resource(
    router,
    "What users reply to posts.",
    models=(Reply,),
    permissions=(REPLIES_WRITE,),
    granted_to_users=(REPLIES_WRITE,),
    locales=HERE / "locales",
)
EVERYTHING = (*RESOURCES, REPLIES)
