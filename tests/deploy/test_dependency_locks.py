"""The lock files pin all that is installed, whatever is released later.

Packages are stood for by wheels with their metadata and nothing else, beside newer releases of
all of them, so pip resolves what it would from a real index, and nothing is downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

LOCKS = ("requirements.txt", "requirements-dev.txt")
# The first and the last of what is supported, and those at which some requirement changes.
PYTHONS = ("3.11.0", "3.11.2", "3.11.7", "3.12.0", "3.13.0")
NEWER = "9999"
_PIN = re.compile(
    r"^(?P<requirement>\S+==[^\\]+?) \\\n(?P<hashes>(?:    --hash=\S+(?: \\)?\n)+)", re.M
)


def pins(lock: str) -> list[Requirement]:
    """What a lock pins: every line of it, or the pattern is wrong."""
    text = (ROOT / lock).read_text()
    found = [Requirement(match["requirement"]) for match in _PIN.finditer(text)]
    assert _PIN.sub("", text) == ""
    return found


def applies(requirement: Requirement, extra: str = "", **environment: str) -> bool:
    """Whether a requirement counts here, or on a Python that these variables describe."""
    return requirement.marker is None or requirement.marker.evaluate(environment | {"extra": extra})


def version_of(pin: Requirement) -> str:
    [specifier] = pin.specifier
    return specifier.version


# --- Every requirement is pinned -----------------------------------------------------------------


def needed(pin: Requirement, environment: dict[str, str]) -> Iterator[Requirement]:
    """What a package asks for, with the extras that are pinned."""
    try:
        texts = requires(pin.name) or []
    except PackageNotFoundError:  # not for this Python
        return
    for requirement in map(Requirement, texts):
        if any(applies(requirement, extra, **environment) for extra in ("", *pin.extras)):
            yield requirement


def identity(requirement: Requirement) -> tuple[str, frozenset[str]]:
    """What pip takes for one thing: before 23.3, a package with extras is not the one without."""
    return canonicalize_name(requirement.name), frozenset(requirement.extras)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_all_that_any_package_asks_for_is_pinned_with_its_extras(lock: str, python: str) -> None:
    environment = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
    }
    pinned = {identity(pin): pin for pin in pins(lock) if applies(pin, **environment)}
    for pin in pinned.values():
        for requirement in needed(pin, environment):
            found = pinned.get(identity(requirement))
            assert found is not None, f"{pin} asks for {requirement}"
            assert requirement.specifier.contains(version_of(found), prereleases=True), pin
        assert (canonicalize_name(pin.name), frozenset()) in pinned, f"{pin} needs itself"


# --- Newer releases change nothing ---------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """Folders of wheels, and a lock whose hashes are theirs."""

    root: Path
    lock: Path


def hollow_wheel(folder: Path, name: str, version: str, metadata: str) -> str:
    """A wheel with nothing but metadata; its hash."""
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    files = {
        "METADATA": metadata,
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        record = ""
        for file, text in files.items():
            # With a fixed time (1980): a wheel that is built twice has one hash.
            wheel.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{file}"), text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
            record += f"{stem}.dist-info/{file},sha256={digest.rstrip('=')},{len(text)}\n"
        named = f"{stem}.dist-info/RECORD"
        wheel.writestr(zipfile.ZipInfo(named), f"{record}{named},,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def indexed(lock: str, directory: Path) -> Index:
    """The pins that apply here, each with a newer release beside it."""
    root = directory / "index"
    lines = []
    for pin in filter(applies, pins(lock)):
        folder = root / canonicalize_name(pin.name)
        folder.mkdir(parents=True, exist_ok=True)
        metadata = distribution(pin.name).read_text("METADATA") or ""
        digest = hollow_wheel(folder, pin.name, version_of(pin), metadata)
        newer = f"Metadata-Version: 2.1\nName: {pin.name}\nVersion: {NEWER}\n"
        newer += "".join(f"Provides-Extra: {extra}\n" for extra in sorted(pin.extras))
        hollow_wheel(folder, pin.name, NEWER, newer)
        links = [f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in folder.glob("*.whl")]
        (folder / "index.html").write_text("<!DOCTYPE html>\n" + "\n".join(links))
        lines.append(f"{pin} --hash=sha256:{digest}\n")
    written = directory / lock
    written.write_text("".join(lines))
    return Index(root, written)


def installed_from(index: Index, report: Path) -> dict[str, str]:
    """The versions that the pip of this virtualenv would install, without anybody's settings."""
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install"]
    command += ["--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
    command += ["--index-url", index.root.as_uri(), "--no-cache-dir"]
    command += ["--require-hashes", "-r", str(index.lock)]
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    return {canonicalize_name(each["name"]): each["version"] for each in found}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.long
def test_pip_installs_what_is_pinned_though_all_of_it_has_newer_releases(
    lock: str, tmp_path: Path
) -> None:
    pinned = {canonicalize_name(pin.name): version_of(pin) for pin in filter(applies, pins(lock))}
    assert installed_from(indexed(lock, tmp_path), tmp_path / "report.json") == pinned
