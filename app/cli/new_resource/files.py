"""Writing files so that all of them are written, or none."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from app.cli.new_resource.fields import MistakeError


@contextmanager
def all_or_nothing(root: Path, names: Iterable[str]) -> Iterator[None]:
    """Restore some files if the block raises anything, or if a signal ends it.

    Raise MistakeError for what the operating system refuses and for files that it does not let
    restore.
    """
    paths = [root / name for name in names]
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    new_folders = {path.parent for path in paths if not path.parent.exists()}
    with _raising_on_sigterm():
        try:
            yield
        except BaseException as error:
            with _without_signals():
                lost = [path for path, data in before.items() if not _restored(path, data)]
                lost += [folder for folder in new_folders if not _removed(folder)]
            if lost:
                named = ", ".join(str(path.relative_to(root)) for path in lost)
                raise MistakeError(f"{_why(error)}; restore these yourself: {named}") from None
            if isinstance(error, OSError | MistakeError):
                raise MistakeError(f"nothing was written: {_why(error)}") from None
            raise


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _restored(path: Path, data: bytes | None) -> bool:
    """Write a file in place, so that its mode stays, or remove a new one; return whether it is as
    it was."""
    try:
        if data is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
    except OSError:
        return False
    return True


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_signals() -> Iterator[None]:
    """Ignore a second Ctrl+C while files are restored."""
    before: dict[signal.Signals, Any] = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
