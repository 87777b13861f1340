"""The identifiers of a module, by the scopes in which they must not mean two things."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

_Scope = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def bound(tree: ast.Module) -> set[str]:
    """Return the names that a module imports or defines."""
    return {name for statement in tree.body for name in _bound_by(statement)}


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (each.asname or each.name.partition(".")[0] for each in statement.names)
    elif isinstance(statement, _Scope):
        yield statement.name
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def scopes(tree: ast.Module) -> Iterator[set[str]]:
    """Yield the identifiers of the module itself (with the builtins that it uses), and those that
    stand in each of its classes and functions."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    yield bound(tree) | (used & {*dir(builtins)})
    for node in ast.walk(tree):
        if isinstance(node, _Scope):
            yield {*_within(node)}


def _within(scope: _Scope) -> Iterator[str]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, _Scope):
            yield node.name
