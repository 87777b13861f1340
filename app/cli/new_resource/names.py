"""The names that a new resource must not take from anything else.

No list of them is kept: the same plan is rendered with placeholders for all its names. Every other
identifier in that text is the template's own. Two identifiers of one scope that differ there, and
would not with the names in their places, clash.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase

from sqlalchemy import select

from app.cli.new_resource.document import Document
from app.cli.new_resource.fields import MistakeError, camel
from app.cli.new_resource.identifiers import bound, scopes
from app.cli.new_resource.plan import LAYERS, Plan
from app.cli.new_resource.render import aliases, modules
from app.db.paginated_queries import PaginatedQuery
from app.db.projections import Projection
from app.models import Base
from app.models.users import User

_ENTRIES = "tests/contract/entries"
_PLURAL, _SINGULAR = "qzmany", "qzone"
_PREFIX = "/api/v1"


def require_free(root: Path, plan: Plan) -> None:
    """Raise MistakeError if something has one of the names already."""
    for clash in _clashes_of_resource(root, plan):
        raise MistakeError(f"{plan.plural!r} is taken: {clash}")
    parent = [plan.parent.column] if plan.parent else []
    for name in {*plan.filters, *parent} & _parameters_of_pages():
        raise MistakeError(f"{name!r} cannot name a field: the statements of pages have it")
    ranges = {f"{each.name}_{end}": each for each in plan.datetime_fields for end in ("from", "to")}
    for name in {field.name for field in plan.fields} & ranges.keys():
        raise MistakeError(f"{name!r} cannot name a field: {ranges[name].name!r} is filtered by it")
    _require_own_identifiers(plan)


def _parameters_of_pages() -> set[str]:
    pages = PaginatedQuery(
        name="",
        filtered_ids=select(User.id),
        id=User.id,
        sort_columns={"created_at": User.created_at},
        projection=Projection(["id"], User),
    )
    queries = [pages.page("created_at", after=after) for after in (True, False)]
    queries.append(pages.page_from_end("created_at"))
    return {name for query in queries for name in query.statement.compile().params}


def _clashes_of_resource(root: Path, plan: Plan) -> Iterator[str]:
    name = plan.plural
    paths = [root / "app" / layer / f"{name}.py" for layer in LAYERS]
    paths += [root / "tests" / name, root / _ENTRIES / f"{name}.py"]
    yield from (f"{path.relative_to(root)} is there" for path in paths if path.exists())
    for table in Base.metadata.tables:
        if table.replace("_", "") == name.replace("_", ""):
            yield f"there is a table {table}"
    yield from _clashes_in_document(Document.of(root), plan)
    yield from _clashes_in_entries(root, plan)
    # The modules that import the new ones.
    for path, imported in (
        ("app/resources.py", {name, plan.class_name}),
        ("tests/contract/resources.py", {name}),
        ("tests/db/test_migrations.py", {plan.class_name}),
    ):
        for taken in imported & bound(ast.parse((root / path).read_text("utf-8"))):
            yield f"{path} has the name {taken!r}"


def _clashes_in_document(document: Document, plan: Plan) -> Iterator[str]:
    path = f"{_PREFIX}{plan.path}"
    if path in document.paths:
        yield f"the API has the path {path}"
    operations = [f"list_{plan.plural}"]
    operations += [f"{verb}_{plan.singular}" for verb in ("get", "create", "update", "delete")]
    for operation in operations:
        if operation in document.operations:
            yield f"the API has the operation {operation}"
    models = {mapper.class_.__name__ for mapper in Base.registry.mappers}
    for name in _classes(plan):
        if name in models:
            yield f"there is a model {name}"
        if name in document.schemas:
            yield f"the API has the schema {name}"


def _classes(plan: Plan) -> list[str]:
    return [
        node.name
        for path, text in modules(plan).items()
        if path.startswith(("app/models/", "app/schemas/"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    ]


def _clashes_in_entries(root: Path, plan: Plan) -> Iterator[str]:
    """Yield what rows of other entries are called in the paths of their `writes`."""
    mine = {plan.singular, f"doomed_{plan.singular}", f"{plan.singular}_parent"}
    for path in sorted((root / _ENTRIES).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in mine & {*re.findall(r"\{(\w+)\}", node.value)}:
                    yield f"{path.relative_to(root)} calls a row {name!r}"


# --- Identifiers ---------------------------------------------------------------------------------


def _require_own_identifiers(plan: Plan) -> None:
    neutral = _neutral(plan)
    names = _names(neutral, plan)
    pattern = re.compile("|".join(sorted(names, key=len, reverse=True)))
    whole = dict(zip(aliases(neutral).values(), aliases(plan).values(), strict=True))
    for (_, text), path in zip(modules(neutral).items(), modules(plan), strict=True):
        for scope in scopes(ast.parse(text)):
            meant: dict[str, str] = {}
            for identifier in sorted(scope):
                actual = whole.get(identifier) or pattern.sub(
                    lambda found: names[found[0]], identifier
                )
                if actual in meant:
                    raise _clash(plan, neutral, (meant[actual], identifier), actual, path)
                meant[actual] = identifier


def _clash(
    plan: Plan, neutral: Plan, identifiers: tuple[str, str], actual: str, path: str
) -> MistakeError:
    """Return the error that names the field or, if there is none, the resource."""
    for field, other in reversed([*zip(plan.fields, neutral.fields, strict=True)]):
        if any(other.name in identifier.lower() for identifier in identifiers):
            return MistakeError(
                f"{field.name!r} cannot name a field: {path} has the name {actual!r} for"
                " something else"
            )
    return MistakeError(
        f"{plan.plural!r} is taken: {path} has the name {actual!r} for something else"
    )


def _neutral(plan: Plan) -> Plan:
    """Return the plan with placeholders for its names and for those of its fields."""
    named = {
        field.name: replace(field, name=f"qzf{ascii_lowercase[n // 26]}{ascii_lowercase[n % 26]}z")
        for n, field in enumerate(plan.fields)
    }
    return replace(
        plan,
        plural=_PLURAL,
        singular=_SINGULAR,
        fields=tuple(named.values()),
        others=tuple((named[field.name], other) for field, other in plan.others),
    )


def _names(neutral: Plan, plan: Plan) -> Mapping[str, str]:
    """Return the placeholders, as lower-case, upper-case and class names, and what they stand
    for."""
    pairs = [(neutral.plural, plan.plural), (neutral.singular, plan.singular)]
    pairs += [
        (each.name, field.name) for each, field in zip(neutral.fields, plan.fields, strict=True)
    ]
    return {
        write(placeholder): write(name)
        for placeholder, name in pairs
        for write in (str, str.upper, camel)
    }
