"""The code that the documents name exists: files by their path, symbols by their definition."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app.config import Settings
from app.db.tls import Mode
from app.models import Base
from tests.support.process import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("ARCHITECTURE.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)
CODE = ("app", "tests", "benchmarks", "scripts", "alembic")
# Names of other programs and libraries that are no names of this code.
FOREIGN = frozenset(
    {
        *("NaN", "jose.jwe", "op.batch_alter_table"),
        # MariaDB and PostgreSQL
        *("binlog_format", "innodb_online_alter_log_max_size", "client_connection_check_interval"),
        *("pg_advisory_lock", "pg_try_advisory_lock"),
        # options of their URLs
        *("application_name", "sslMode", "target_session_attrs"),
        # PgBouncer, nginx, Apache
        *("ignore_startup_parameters", "pool_mode", "server_reset_query"),
        *("mod_deflate", "set_real_ip_from"),
    }
)
# Made by people and programs where they run.
MADE_THERE = {"benchmarks/results"}
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"`([^`]+)`")
_SYMBOL = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_TOP = "|".join((*CODE, "docs", "deploy"))
_PATH = re.compile(rf"(?<![\w./-])(?:{_TOP})/[\w./*-]*\w/?")
_LIST = r"`[^`]+`(?:(?:, | and |, and )`[^`]+`)*"
_SOURCE = r"`((?:app|tests|benchmarks|alembic)/[\w./-]+\.py)`"
# `a` and `b` in `app/c.py`; `a` (`app/c.py`); `app/c.py` (`a`, `b`).
_BESIDE = (
    re.compile(rf"({_LIST}) (?:in|of|from) {_SOURCE}"),
    re.compile(rf"({_LIST}) \({_SOURCE}"),
)
_BEHIND = re.compile(rf"{_SOURCE} \(({_LIST})\)")


# --- What the documents name -----------------------------------------------------------------


def _prose(document: Path) -> str:
    """Return a document without what it shows as a listing, and without its line breaks."""
    text = _FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))
    return re.sub(r"[ \n]+", " ", text)


def _symbols_in(quotations: str) -> Iterator[str]:
    for quoted in _QUOTED.findall(quotations):
        symbol = re.sub(r"\(.*\)$", "", quoted)
        if _SYMBOL.fullmatch(symbol) and Path(symbol).suffix not in {".py", ".pem"}:
            yield symbol


def _beside_files(text: str) -> Iterator[tuple[str, str]]:
    """Yield each symbol that a text says is in a file, with the file."""
    for pattern in _BESIDE:
        for quotations, path in pattern.findall(text):
            yield from ((symbol, path) for symbol in _symbols_in(quotations))
    for path, quotations in _BEHIND.findall(text):
        yield from ((symbol, path) for symbol in _symbols_in(quotations))


def _looks_like_code(symbol: str) -> bool:
    """Return whether a name is one of code: with an underscore, a dot or in CamelCase."""
    is_camel = re.search(r"[A-Z][a-z]", symbol) is not None and not symbol.isupper()
    return "_" in symbol or "." in symbol or is_camel


# --- What the code defines -------------------------------------------------------------------


class _Names(ast.NodeVisitor):
    """Collects what a module defines, imports and uses: mypy proves that this exists."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit(self, node: ast.AST) -> None:
        for field in ("name", "id", "attr", "arg", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                self.found.update(value.split("."))
        if isinstance(node, ast.ImportFrom) and node.module:
            self.found.update(node.module.split("."))
        self.generic_visit(node)


@cache
def _names_of(path: Path) -> frozenset[str]:
    names = _Names()
    names.visit(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(names.found)


def _strings_of(path: Path) -> Iterator[str]:
    """Yield the words of a module's strings, which name codes, tables and parameters; of tests
    and benchmarks the variables of the environment alone."""
    word = r"\w+" if path.is_relative_to(ROOT / "app") else r"\b[A-Z]+(?:_[A-Z]+)+\b"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(word, node.value)


@cache
def _everything() -> frozenset[str]:
    """Return every name of the code, the settings, the tables and the metrics."""
    modules = [path for top in CODE for path in (ROOT / top).rglob("*.py")]
    found = {path.stem for path in modules} | {path.parent.name for path in modules}
    found |= {name.upper() for name in Settings.model_fields} | {mode.name for mode in Mode}
    for path in modules:
        found |= _names_of(path)
        found.update(_strings_of(path))
    for table in Base.metadata.tables.values():
        found |= {str(index.name) for index in table.indexes}
    dashboard = (ROOT / "deploy/grafana/cimiento.json").read_text(encoding="utf-8")
    return frozenset(found.union(re.findall(r"\w+", dashboard)))


def _is_known(symbol: str) -> bool:
    """Return whether code defines a symbol; of `a.b`, the module or class `a` has `b`, if `a` is
    a module or class of ours."""
    *owners, name = symbol.split(".")
    known = _everything()
    if name not in known or not known.issuperset(owners):
        return False
    return not owners or _has(owners[-1], name)


def _has(owner: str, name: str) -> bool:
    modules = [*(ROOT / "app").rglob("*.py")]
    named = [path for path in modules if path.stem == owner]
    defining = [path for path in modules if re.search(rf"^class {owner}\b", path.read_text(), re.M)]
    return any(name in _names_of(path) for path in named + defining) or not (named or defining)


# --- The tests -------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_is_that_of_a_file(document: Path) -> None:
    paths = {path.rstrip("./") for path in _PATH.findall(_prose(document))}
    assert not {path for path in paths - MADE_THERE if not [*ROOT.glob(path)]}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_symbol_beside_a_file_is_in_it(document: Path) -> None:
    assert not {each for each in _beside_files(_prose(document)) if not _is_in(*each)}


def _is_in(symbol: str, path: str) -> bool:
    text = (ROOT / path).read_text(encoding="utf-8")
    return all(re.search(rf"\b{name}\b", text) for name in symbol.split("."))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_symbol_is_defined(document: Path) -> None:
    named = {symbol for symbol in _symbols_in(_prose(document)) if _looks_like_code(symbol)}
    named = {symbol for symbol in named if not (ROOT / symbol).exists()}
    assert not {symbol for symbol in named - FOREIGN if not _is_known(symbol)}


def test_foreign_names_are_none_of_ours_and_are_named() -> None:
    text = "".join(_prose(document) for document in DOCUMENTS)
    assert not {name for name in FOREIGN if _is_known(name)}
    assert {*_symbols_in(text)} >= FOREIGN


def test_the_search_finds_what_is_not_there() -> None:
    text = "`rows_in` and `PreparedQuery` (`app/db/queries.py`, …), `app/db/rows.py` (`one_or_404`)"
    assert [*_beside_files(text)] == [
        ("rows_in", "app/db/queries.py"),
        ("PreparedQuery", "app/db/queries.py"),
        ("one_or_404", "app/db/rows.py"),
    ]
    assert [
        _is_known(name) for name in ("rows_in", "Paginator.paginate", "Paginator.read_one")
    ] == [*(False, True, False)]
