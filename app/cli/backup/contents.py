"""What a backup has to hold to be one of Cimiento's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from app.db.migrations import columns_at, revisions


class BackupError(Exception):
    """A text for the operator."""


@dataclass(frozen=True)
class Contents:
    """The tables in a file with their columns, and the revision it says they are at."""

    tables: Mapping[str, Set[str]]
    revision: str | None


def refuse_foreign(source: Path, contents: Contents) -> None:
    """Raise BackupError unless a file holds our tables, with their columns, at a revision that this
    version works with.

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
    wanted = columns_at(min(revision, max(known)))
    for table, columns in sorted(wanted.items()):
        if table not in contents.tables:
            raise BackupError(f"{source} is no backup of Cimiento: it has no table {table}")
        if missing := columns - contents.tables[table]:
            column = f"{table}.{min(missing)}"
            raise BackupError(f"{source} is no backup of Cimiento: it has no column {column}")
