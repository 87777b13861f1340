"""Programs in JavaScript that tests start, with the packages that they need."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.process import ROOT

JS = ROOT / "tests" / "js"
_INSTALL_SECONDS = 120


def installed(name: str, config: pytest.Config) -> Path:
    """Return a program of `tests/js`, beside its packages: in pytest's cache, and nowhere in the
    repository. Skip the test where they cannot be had, but not in CI."""
    assert config.cache is not None
    folder = config.cache.mkdir("js")
    # Test processes share the folder.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(folder)
    return folder / name


def _install(folder: Path) -> None:
    lock = JS / "package-lock.json"
    stamp = folder / f"{hashlib.sha256(lock.read_bytes()).hexdigest()}.installed"
    for path in JS.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    if stamp.exists():
        return
    try:
        _npm_ci(folder)
    except (OSError, subprocess.SubprocessError) as error:
        missing(f"npm ci: {error}")
    stamp.touch()


def _npm_ci(folder: Path) -> None:
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=_INSTALL_SECONDS,
    )


def missing(reason: str) -> NoReturn:
    """Skip the test; in CI, where everything can be had, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def in_browser(name: str, config: pytest.Config, *, seconds: float, **order: Any) -> Any:
    """Return what a program prints that is given an order and drives Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is not installed")
    done = subprocess.run(
        ["node", str(installed(name, config))],
        input=json.dumps({"chromium": chromium, **order}),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
