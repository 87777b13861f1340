"""What is served beside the resources of `app/`."""

from __future__ import annotations

from pathlib import Path

from app.db.migrations import Location
from app.resources import RESOURCES, Resource
from tests.comments.models import Comment
from tests.comments.permissions import COMMENTS_WRITE
from tests.comments.router import router

HERE = Path(__file__).parent
MIGRATIONS = Location(HERE / "migrations", version_table="alembic_version_comments")
COMMENTS = Resource(
    router,
    "What users say of posts.",
    models=(Comment,),
    permissions=(COMMENTS_WRITE,),
    granted_to_users=(COMMENTS_WRITE,),
    locales=HERE / "locales",
)
EVERYTHING = (*RESOURCES, COMMENTS)
