"""Edits of the existing modules that declare all resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from app.cli.new_resource import texts
from app.cli.new_resource.fields import Field, Kind, MistakeError
from app.cli.new_resource.plan import Plan


def edited(root: Path, plan: Plan) -> dict[str, str]:
    """Return the texts of the files that change, by their paths from the checkout on."""
    return {path: edit((root / path).read_text("utf-8"), plan) for path, edit in _EDITS.items()}


def _before(text: str, anchor: str, added: str, where: str) -> str:
    if text.count(anchor) != 1:
        raise MistakeError(f"{where} was changed so that nothing can be added: {anchor!r}")
    return text.replace(anchor, added + anchor)


def _permissions(plan: Plan) -> list[tuple[str, str]]:
    """Return the new permissions, each with the options of `Permission.declare`."""
    if not plan.owned:
        return [("write", "")]
    return [("write", ", self_scoped=True"), ("moderate", "")]


def _in_permissions(text: str, plan: Plan) -> str:
    where = "app/core/permissions.py"
    names = [(f"{plan.plural}_{action}", action, options) for action, options in _permissions(plan)]
    typed = "".join(f"    {name}: ClassVar[Permission]\n" for name, _, _ in names)
    declared = "".join(
        f'Permission.{name} = Permission.declare("{plan.plural}:{action}"{options})\n'
        for name, action, options in names
    )
    text = _before(text, "\n    def __new__(cls, name: str)", typed, where)
    return _before(text, 'ADMIN_ROLE = "admin"\n', declared, where)


def _in_resources(text: str, plan: Plan) -> str:
    where = "app/resources.py"
    names = [f"Permission.{plan.plural}_{action}" for action, _ in _permissions(plan)]
    granted = f"granted_to_users=({names[0]},)," if plan.owned else ""
    entry = f"""    Resource(
        {plan.plural}.router,
        {texts.tag(plan)},
        models=({plan.class_name},),
        permissions=({", ".join(names)}{"," if len(names) == 1 else ""}),
        {granted}
    ),
"""
    text = _before(text, "    Resource(\n        roles.router,", entry, where)
    text = _before(text, "    account_recovery,\n", f"    {plan.plural},\n", where)
    imported = f"from app.models.{plan.plural} import {plan.class_name}\n"
    return _before(text, "from app.models.outbox import Mail\n", imported, where)


# By language: what the permissions are for, of one's own rows and of all rows.
_DESCRIPTIONS = {
    "en": {
        "write": "Create, change and delete {words}.",
        "own": "Create {words}, and change or delete one's own.",
        "moderate": "Change and delete the {words} of all users.",
    },
    "es": {
        "write": "Crear, modificar y borrar {words}.",
        "own": "Crear {words}; modificar o borrar lo propio.",
        "moderate": "Modificar y borrar {words} de cualquier usuario.",
    },
}


def _in_locale(language: str, text: str, plan: Plan) -> str:
    described = _DESCRIPTIONS[language]
    words = plan.spanish if language == "es" else plan.words
    shown = described | ({"write": described["own"]} if plan.owned else {})
    added = "".join(
        f'"{plan.plural}:{action}" = "{shown[action].format(words=words)}"\n'
        for action, _ in _permissions(plan)
    )
    return _before(text, "\n[mail.common]", added, f"app/locales/{language}.toml")


def _in_entries(text: str, plan: Plan) -> str:
    where = "tests/contract/resources.py"
    imported = f"from tests.contract.entries import {plan.plural}\n"
    text = _before(text, "from tests.contract.entries.base import", imported, where)
    return _before(text, "    operations.ENTRY,\n", f"    {plan.plural}.ENTRY,\n", where)


def _in_migrations(text: str, plan: Plan) -> str:
    where = "tests/db/test_migrations.py"
    imported = f"from app.models.{plan.plural} import {plan.class_name}\n"
    text = _before(text, "from app.models.outbox import Mail, MailKind\n", imported, where)
    row = f"{plan.class_name}({', '.join(_values(plan))})"
    anchor = "        session.add(RefreshToken("
    return _before(text, anchor, f"        session.add({row})\n        session.flush()\n", where)


def _values(plan: Plan) -> Iterator[str]:
    rows = {"users": "ana.id", "posts": "post.id"}
    if plan.parent:
        yield f"{plan.parent.column}={rows.get(plan.parent.plural, '1')}"
    if plan.owned:
        yield "author_id=ana.id"
    targets = {field.name: other.plural for field, other in plan.others}
    for field in plan.fields:
        yield f"{field.name}={_value(field, rows.get(targets.get(field.name, ''), '1'))}"


def _value(field: Field, row: str) -> str:
    values = {
        Kind.str: '"ñ"',
        Kind.text: '"ñ 😀"',
        Kind.int: "1",
        Kind.bool: "True",
        Kind.datetime: "now",
        Kind.date: "now.date()",
        Kind.ref: row,
    }
    return values.get(field.kind) or f'"{field.values[0]}"'


_EDITS: dict[str, Callable[[str, Plan], str]] = {
    "app/core/permissions.py": _in_permissions,
    "app/resources.py": _in_resources,
    "app/locales/en.toml": partial(_in_locale, "en"),
    "app/locales/es.toml": partial(_in_locale, "es"),
    "tests/contract/resources.py": _in_entries,
    "tests/db/test_migrations.py": _in_migrations,
}
