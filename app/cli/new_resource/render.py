"""The modules of a new resource, as text."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from app.cli.new_resource import samples, texts
from app.cli.new_resource.fields import MAX_TEXT, Kind
from app.cli.new_resource.identifiers import bound
from app.cli.new_resource.plan import Plan

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(),  # of HTML, of which there is none
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["paragraph"] = texts.paragraph
_BOUNDED = {Kind.str, Kind.text}
Statuses = tuple[int, ...]


def modules(plan: Plan) -> dict[str, str]:
    """Return the texts of the new files, by their paths from the checkout on."""
    name = plan.plural
    paths = {f"app/{layer}/{name}.py": layer for layer in ("models", "schemas", "crud", "routers")}
    paths |= {
        f"alembic/versions/{plan.revision}_{name}.py": "migration",
        f"tests/contract/entries/{name}.py": "entry",
        f"tests/{name}/test_{name}.py": "test",
    }
    names = aliases(plan)
    given = _given(plan) | {"alias": lambda field: names[field.name]}
    rendered = {path: _rendered(template, given) for path, template in paths.items()}
    return rendered | {f"tests/{name}/__init__.py": ""}


def _rendered(template: str, given: Mapping[str, Any]) -> str:
    return _TEMPLATES.get_template(f"{template}.py.jinja").render(given)


def _given(plan: Plan) -> dict[str, Any]:
    others = plan.marks
    fields = {other.plural: field for field, other in plan.others}
    targets = {field.name: other for field, other in plan.others}
    return {
        "plan": plan,
        "others": others,
        "references": bool(plan.others),
        "posts_are_seen": any(other.is_posts for other in others),
        "filters": plan.filters
        + [f"{field.name}_{end}" for field in plan.datetime_fields for end in ("from", "to")],
        "bools": any(field.kind is Kind.bool for field in plan.fields),
        "marks": [each.mark for each in others] + ["deleted_with_author"] * plan.owned,
        "migrated": [*_migrated(plan)],
        "pointers": _pointers(plan),
        "raises": _raises(plan),
        "max_text": MAX_TEXT,
        "quoted": _quoted,
        "signed": [sign + name for name in plan.sorts for sign in ("", "-")],
        "from_model": _from_model,
        "alias": lambda field: f"_{field.name}",
        "samples": samples,
        "texts": texts,
        "target": lambda field: targets[field.name],
        "field_of": lambda other: fields[other.plural],
    } | _answered(plan)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def aliases(plan: Plan) -> dict[str, str]:
    """Return the names of the fields' types in the schemas, which are no other names there."""
    taken = bound(ast.parse(_rendered("schemas", _given(plan))))
    return {
        field.name: f"{field.camel}Value" if field.camel in taken else field.camel
        for field in plan.fields
    }


def _from_model(plan: Plan) -> str:
    """Return what the schemas import from the model."""
    bounds = [f"MAX_{field.name.upper()}" for field in plan.fields if field.kind in _BOUNDED]
    enums = [plan.class_name + field.camel for field in plan.fields if field.kind is Kind.enum]
    return ", ".join(bounds + enums)


def _migrated(plan: Plan) -> Iterable[tuple[str, str]]:
    """Return the columns, with their types in the migration, in the order of the model's."""
    if plan.parent:
        yield plan.parent.column, "BIG"
    if plan.owned:
        yield "author_id", "BIG"
    for field in plan.fields:
        types = {
            Kind.str: f"sa.String({field.length})",
            Kind.text: "TEXT",
            Kind.int: "sa.BigInteger()",
            Kind.bool: "sa.Boolean()",
            Kind.datetime: "MOMENT",
            Kind.date: "sa.Date()",
            Kind.enum: f"sa.String({max(map(len, field.values), default=0)})",
            Kind.ref: "BIG",
        }
        yield field.name, types[field.kind]
    for mark in [each.mark for each in plan.marks] + ["deleted_with_author"] * plan.owned:
        yield mark, "sa.Boolean()"
    yield "version", "sa.Integer()"
    for name in ("created_at", "updated_at", "deleted_at"):
        yield name, "MOMENT"


def _pointers(plan: Plan) -> list[tuple[str, str]]:
    parent = [(plan.parent.column, plan.parent.plural)] if plan.parent else []
    owner = [("author_id", "users")] if plan.owned else []
    return parent + owner + [(field.name, other.plural) for field, other in plan.others]


def _raises(plan: Plan) -> list[str]:
    """Return what creating one raises, as the docstring says it."""
    sentences = []
    if plan.parent:
        sentences.append(
            f"Raise NotFound for {plan.parent.a} {plan.parent.word} that is not there."
        )
    if plan.others:
        sentences.append("Raise Invalid for other rows that are not there.")
    return sentences


def _answered(plan: Plan) -> dict[str, Statuses]:
    """Return how operations answer each of ACTORS."""
    anonymous = 200 if plan.public else 401
    # Where a login may show more, one that is over is refused.
    ended = 200 if plan.public and not plan.is_seen_by_caller else 401
    mine, others = (201, 403) if plan.owned else (403, 403)
    own = 200 if plan.owned else 403
    return {
        "read_by": (anonymous, 200, 200, 200, 200, 200, ended, ended),
        "created_by": (401, mine, mine, others, others, 201, 401, 401),
        "changed_by": (401, 403, own, 403, 403, 200, 401, 401),
        "deleted_by": (401, 403, 204 if plan.owned else 403, 403, 403, 204, 401, 401),
    }
