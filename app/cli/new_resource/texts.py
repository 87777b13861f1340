"""What a new resource says about itself: descriptions and examples of its fields."""

from __future__ import annotations

import re
import textwrap

from app.cli.new_resource.fields import Field, Kind
from app.cli.new_resource.plan import Plan

# Lengths of strings that fit into a line of `app/resources.py`, and into those of schemas.
_LONG, _FITTING = 86, 70
_VERB = re.compile(r"(is|has|was|can|may|must|needs|allows|accepts)_.")


def literal(text: str, length: int = _FITTING) -> str:
    """Return a string as Python has it, in several parts if it is too long for a line."""
    parts = textwrap.wrap(text, length, drop_whitespace=False)
    quoted = " ".join(f'"{part}"' for part in parts)
    return quoted if len(parts) == 1 else f"({quoted})"


def paragraph(text: str) -> str:
    """Return a paragraph of the docstring of a function, from lines of any length."""
    wrapped = textwrap.fill(" ".join(text.split()), 96, break_on_hyphens=False)
    return textwrap.indent(wrapped, "    ") + "\n"


def described(field: Field) -> str:
    """Return what is shown of a field."""
    is_sentence = _VERB.match(field.name)
    texts = {
        Kind.bool: f"Whether it {'' if is_sentence else 'is '}{field.label}.",
        Kind.datetime: f"Date and time: `{field.name}`.",
        Kind.date: f"Date: `{field.name}`.",
        Kind.ref: f"The `id` of the {field.label}.",
    }
    return texts.get(field.kind, f"The {field.label}.")


def required(field: Field) -> str:
    """Return what is asked of a field that is sent."""
    rule = " One line, at least one visible character." if field.kind is Kind.str else ""
    return described(field) + rule


def example(plan: Plan, field: Field) -> str:
    """Return an example of a text."""
    return f"{field.label.capitalize()} of the {plan.word}"[: field.length or None].strip()


def tag(plan: Plan) -> str:
    """Return the description of the tag: what they are, who reads and who writes them."""
    parent = plan.parent
    what = f"{plan.words.capitalize()} of {parent.words}" if parent else plan.words.capitalize()
    readers = "everyone" if plan.public else "users"
    if plan.is_seen_by_caller:
        readers = f"{'everyone' if plan.public else 'users'} who may read the post"
    writers = "their authors" if plan.owned else f"holders of `{plan.plural}:write`"
    return literal(f"{what}, read by {readers} and written by {writers}.", _LONG)
