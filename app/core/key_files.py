"""The keys stored under DATA_DIR: generated once, read by every process, replaced by `rotate-key`.

    secret.key    secrets, newest first, one a line; behind a tab, when the next one replaced it
    keys/7.pem    private keys for ES256; the highest number is the newest

Files appear whole or not at all, for their owner alone. Of what was replaced, `rotate` keeps
what may still be needed, and no more than MAX_KEPT keys in all.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.core.key_pairs import KeyPair, new_pem, pair_of

MAX_KEPT = 16


def new_secret() -> str:
    """Return 384 random bits, as text."""
    return secrets.token_urlsafe(48)


_only_looks: ContextVar[bool] = ContextVar("only_looks", default=False)


@contextmanager
def only_looking() -> Iterator[None]:
    """Create no file within: where there is no secret, a temporary one stands in for it."""
    token = _only_looks.set(True)
    try:
        yield
    finally:
        _only_looks.reset(token)


# --- The secret ------------------------------------------------------------------------------


def secrets_in(data_dir: Path) -> list[str]:
    """Return the stored secrets, newest first; generate the first one if there is none.

    Raise ValueError, with the path and without the content, if they cannot be read as text.
    """
    if not _secret_file(data_dir).exists():
        if _only_looks.get():
            return [new_secret()]
        with _draft(data_dir, new_secret()) as draft:
            _publish(draft, _secret_file(data_dir))
    return [line.partition("\t")[0] for line in _lines(data_dir)]


def rotate_secret(data_dir: Path, *, keep: timedelta) -> int:
    """Put a new secret before the stored ones; return how many of those stay."""
    now = datetime.now(UTC)
    with _alone(data_dir):
        lines = _lines(data_dir)
        replaced = [line if "\t" in line else f"{line}\t{_stamp(now)}" for line in lines]
        # Stamps sort as the times do.
        kept = [line for line in replaced if line.partition("\t")[2] > _stamp(now - keep)]
        kept = kept[: MAX_KEPT - 1]
        with _draft(data_dir, "\n".join([new_secret(), *kept])) as draft:
            draft.replace(_secret_file(data_dir))
    return len(kept)


def _secret_file(data_dir: Path) -> Path:
    return data_dir / "secret.key"


def _lines(data_dir: Path) -> list[str]:
    try:
        text = _secret_file(data_dir).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{_secret_file(data_dir)} is not UTF-8: put the right file back"
        ) from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- Key pairs -------------------------------------------------------------------------------


def pairs_in(data_dir: Path, *, make: bool) -> list[KeyPair]:
    """Return the stored key pairs, newest first; with `make`, generate one if there is none.

    Raise ValueError, with the path and without the content, if one is not usable.
    """
    paths = _pair_files(data_dir)
    if not paths and make and not _only_looks.get():
        _add_pair(data_dir, number=1)
        paths = _pair_files(data_dir)
    return [_pair(path) for path in paths]


def rotate_pair(data_dir: Path, *, keep: timedelta) -> int:
    """Generate a new key pair; return how many of those before it stay."""
    with _alone(data_dir):
        return _replace_pair(data_dir, keep=keep)


def _replace_pair(data_dir: Path, *, keep: timedelta) -> int:
    older = _pair_files(data_dir)
    _add_pair(data_dir, number=int(older[0].stem) + 1 if older else 1)
    # A pair was replaced when the next one was written.
    since = time.time() - keep.total_seconds()
    next_ones = _pair_files(data_dir)[: len(older)]
    kept = [path for path, next_ in zip(older, next_ones, strict=True) if _written(next_) > since]
    for path in set(older) - set(kept[: MAX_KEPT - 1]):
        path.unlink()
    return len(kept[: MAX_KEPT - 1])


def _pair_files(data_dir: Path) -> list[Path]:
    found = [path for path in (data_dir / "keys").glob("*.pem") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def _pair(path: Path) -> KeyPair:
    try:
        return pair_of(path.read_text(encoding="ascii", errors="replace"))
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from None


def _add_pair(data_dir: Path, *, number: int) -> None:
    with _draft(data_dir / "keys", new_pem()) as draft:
        _publish(draft, data_dir / "keys" / f"{number}.pem")


def _written(path: Path) -> float:
    return path.stat().st_mtime


# --- Files -----------------------------------------------------------------------------------


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Run one rotation at a time: of two at once, one would lose what the other wrote."""
    data_dir.mkdir(parents=True, exist_ok=True)
    folder = os.open(data_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def _draft(folder: Path, text: str) -> Iterator[Path]:
    """Yield a new file with this text, on the disk; remove it afterwards unless it was moved."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"draft.{secrets.token_hex(8)}"
    with open(path, "x", encoding="utf-8", opener=_for_its_owner) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _publish(draft: Path, path: Path) -> None:
    # Linked when whole: of processes that start together all read the same, none half of it.
    with suppress(FileExistsError):
        path.hardlink_to(draft)
