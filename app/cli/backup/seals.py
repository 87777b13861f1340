"""The last line of a backup: a checksum of all before it.

To SQL it is a comment, SQLite and pg_restore do not read that far. It tells of damage, not of
intent: who can change the file can make a new one.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import IO

from app.cli.backup.contents import BackupError

_MARK = b"\n-- cimiento backup sha256:"
_LINE = re.compile(re.escape(_MARK) + rb"([0-9a-f]{64})\n")
_NEAR_END = 4_096
_PIECE_BYTES = 2**20


def seal(path: Path) -> None:
    """Add the line to a file."""
    with path.open("r+b") as file:
        digest = _digest(file, file.seek(0, os.SEEK_END))
        file.write(_MARK + digest.encode() + b"\n")


def refuse_damaged(path: Path) -> None:
    """Raise BackupError when a file is not as it was sealed. Those of earlier versions were not."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _NEAR_END)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(_MARK)
        if at < 0:
            return
        line = _LINE.fullmatch(tail, at)
        if line is None or line[1].decode() != _digest(file, start + at):
            raise BackupError(f"{path} is damaged: it is not what was written")


def _digest(file: IO[bytes], size: int) -> str:
    """Return the digest of the first bytes of a file, and leave the position after them."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (piece := file.read(min(size, _PIECE_BYTES))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()
