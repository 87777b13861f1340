"""What a backup has to hold to be one of Cimiento's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from app.migrations import revisions
from app.models import Base

# There since the first revision.
_FIRST_TABLES = frozenset({"users", "roles", "user_roles", "posts", "tags", "post_tags"})


class BackupError(Exception):
    """A text for the operator."""


@dataclass(frozen=True)
class Contents:
    """The tables in a file, and the revision it says they are at."""

    tables: frozenset[str]
    revision: str | None


def refuse_foreign(source: Path, contents: Contents) -> None:
    """Raise BackupError unless a file holds our tables at a revision that this version works with.

    One of a newer version is ours as well, if nothing that this one needs is missing.
    """
    known = revisions()
    revision = contents.revision
    if revision is None or re.fullmatch(r"[0-9]{4}", revision) is None:
        raise BackupError(f"{source} is no backup of Cimiento: it names no revision of its tables")
    is_current = revision >= max(known)
    if not is_current and revision not in known:
        raise BackupError(
            f"{source} is no backup of Cimiento: there never was a revision {revision}"
        )
    wanted = frozenset(Base.metadata.tables) if is_current else _FIRST_TABLES
    if missing := wanted - contents.tables:
        raise BackupError(f"{source} is no backup of Cimiento: it has no table {min(missing)}")
