"""The files, scripts and settings that the documents name exist."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from app.config import Settings
from app.core import i18n
from app.core.exceptions import all_errors
from app.db.tls import Mode
from tests.support.process import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("README*.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)
PAGES = sorted((ROOT / "docs").glob("*.md"))
# A screen and a half.
README_LINES = 80
RECORDS = sorted((ROOT / "docs" / "adr").glob("*.md"))
CONFIGURATION = "docs/configuration.md"
SCRIPTS = sorted((ROOT / "scripts").iterdir())
FILE_SUFFIXES = {".md", ".py", ".toml", ".txt", ".yaml", ".ini", ".html", ".example"}
# Named in documents, but no settings: they tell tests and benchmarks where to look for databases,
# and which Python is to serve.
TEST_VARIABLES = {
    *("TEST_MARIADB_URL", "TEST_POSTGRESQL_URL", "TEST_FAULTS_SEED"),
    *("BENCH_MARIADB_URL", "BENCH_POSTGRESQL_URL", "BENCH_PYTHON"),
}
# Written by the app where it runs.
MADE_AT_RUN_TIME = "data"


def _text(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _ours() -> list[Path]:
    """Every file of the repository, those not committed yet included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in output.splitlines() if (path := ROOT / name).is_file()]


def _fields() -> set[str]:
    return {name.upper() for name in Settings.model_fields}


# --- Documents -------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documents_name_only_files_that_exist(document: Path) -> None:
    text = _text(document)
    links = {link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link}
    missing = {link for link in links if not _leads_somewhere(document, link)}
    missing |= {path for path in _backticked_paths(text) if not (ROOT / path).exists()}
    assert not missing


def _leads_somewhere(document: Path, link: str) -> bool:
    """Return whether a link's file exists, and has the heading that the link names."""
    name, _, anchor = link.partition("#")
    target = ROOT / document.parent / name if name else ROOT / document
    return target.exists() and (not anchor or anchor in _anchors(target))


@cache
def _anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_search_for_links_finds_those_that_lead_nowhere() -> None:
    page = Path("docs/operations.md")
    good = ["databases.md", "databases.md#tls-to-mariadb-and-mysql", "#the-purge", "../README.md"]
    bad = ["nothing.md", "databases.md#nothing", "#nothing"]
    assert [link for link in good + bad if _leads_somewhere(page, link)] == good


def _backticked_paths(text: str) -> Iterator[str]:
    """Paths from the root; a bare file name counts as one of the directory its line begins with."""
    for line in text.splitlines():
        directory = ""
        for quoted in re.findall(r"`([^`]+)`", line):
            path = quoted.split()[0].removeprefix("./")
            first = path.partition("/")[0]
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", path) or first == MADE_AT_RUN_TIME:
                continue
            if "/" in path and (ROOT / first).exists():
                directory = path if path.endswith("/") else directory
                yield path
            elif Path(path).suffix in FILE_SUFFIXES:
                yield directory + path


def test_the_search_for_paths_finds_them() -> None:
    text = "`./scripts/nothing --now`, `data/x.md`, `a.md`, `x/y`, `text/html`\n`app/core/`: `b.py`"
    assert [*_backticked_paths(text)] == ["scripts/nothing", "a.md", "app/core/", "app/core/b.py"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documents_name_only_settings_that_exist(document: Path) -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", _text(document)))
    modes = {mode.name for mode in Mode}
    assert named - _fields() - TEST_VARIABLES - modes == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_page_begins_with_what_it_is_for(page: Path) -> None:
    title, purpose = page.read_text(encoding="utf-8").split("\n\n")[:2]
    assert title.startswith("# ")
    assert purpose.startswith(("This page ", "Esta página "))


def test_the_readmes_are_short_and_say_the_same() -> None:
    english, spanish = _text("README.md"), _text("README.es.md")
    for text in (english, spanish):
        assert len(text.splitlines()) <= README_LINES
    listings = re.compile(r"^```\n.*?^```$", re.MULTILINE | re.DOTALL)
    assert listings.findall(english) == listings.findall(spanish)
    links = [set(re.findall(r"\]\(([^)#]+)", text)) for text in (english, spanish)]
    assert links[0] ^ links[1] == {
        *("README.es.md", "docs/walkthrough.md"),
        *("README.md", "docs/guide.es.md"),
    }
    assert {f"docs/{page.name}" for page in PAGES} <= links[0] | links[1]


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_every_decision_has_context_decision_and_consequences(record: Path) -> None:
    number = record.name[:4]
    headings = re.findall(r"^#+ .*$", record.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0].startswith(f"# {number} ")
    assert headings[1:] == ["## Context", "## Decision", "## Consequences"]


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == [*range(1, len(RECORDS) + 1)]


def test_the_repository_names_no_machine_and_no_registry() -> None:
    # Put together here, so that this file does not name them either.
    directories = "|".join(["home", "root", "work", "Users"])
    machine = re.compile(rf"(?<![\w.}}])/(?:{directories})/[\w.-]+")
    hosts = ["py" + "pi.org", "python" + "hosted", "npm" + "js", "docker" + ".io", "ghcr" + ".io"]
    found = []
    for path in _ours():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [(path.name, match) for match in machine.findall(text)]
        found += [(path.name, host) for host in hosts if host in text]
    assert not found
    locks = _text("requirements.txt") + _text("requirements-dev.txt")
    assert "://" not in locks
    assert "index-url" not in locks


# --- Scripts and settings --------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_short_and_executable(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 20


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/guide.es.md"])
def test_the_pages_of_the_scripts_list_exactly_them(page: str) -> None:
    names = re.findall(r"^\| `scripts/([\w-]+)`", _text(page), re.MULTILINE)
    assert sorted(names) == [path.name for path in SCRIPTS if not path.name.startswith("_")]


def test_the_example_of_settings_has_every_setting_with_a_reason() -> None:
    lines = _text(".env.example").splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert len(names) == len(set(names))
    assert set(names) == _fields()
    for before, line in pairwise(lines):
        if line and not line.startswith("#"):
            assert re.match(r"# \S.*\.$", before), f"no reason above {line}"


def test_the_page_of_the_settings_has_every_setting_with_its_default() -> None:
    row = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (\S.*) \|$", re.MULTILINE)
    rows = row.findall(_text(CONFIGURATION))
    defaults = {name: default for name, default, _ in rows}
    assert len(rows) == len(defaults)
    lines = [line for line in _text(".env.example").splitlines() if line and line[0] != "#"]
    written = dict(line.split("=", 1) for line in lines)
    assert defaults == {name: f"`{value}`" if value else "empty" for name, value in written.items()}


def test_the_page_of_the_errors_has_every_code_with_its_text() -> None:
    row = re.compile(r"^\| (\d+) \| `(\w+)` \| (.*) \| (.*) \|$", re.MULTILINE)
    statuses = {error.code: error.status for error in all_errors()}
    expected = []
    for code, status in statuses.items():
        texts = i18n.find("en", "errors", code)
        expected.append((str(status), code, texts["cause"], texts["fix"]))
    assert sorted(row.findall(_text("docs/errors.md"))) == sorted(expected)


def test_the_example_of_settings_holds_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in _fields():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    defaults = Settings(_env_file=None)
    example = Settings(_env_file=ROOT / ".env.example")
    assert example == defaults
