"""The command: `scripts/new-resource notes 'title:str(100)' 'content:str(250)'`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from app.cli.new_resource.edits import edited
from app.cli.new_resource.fields import MistakeError, field_of
from app.cli.new_resource.plan import Plan, plan_of
from app.cli.new_resource.render import modules

_DOCUMENT = "docs/openapi.json"
# The document is that of the defaults, whatever `.env` says.
_DEFAULTS = {"ENVIRONMENT": "development", "PASSWORD_POLICY": "classic", "DOCS_ENABLED": "true"}
# Imports that the fields leave unused, and their order.
_FIXES = ("--quiet", "--output-format=concise", "--fix", "--select=F401,I")
_AFTERWARDS = """\
Read them, then:
  scripts/migrate                  make the table
  scripts/lint && scripts/test     check all of it
  scripts/run                      see {path} in /docs
{granted}"""


def new_resource(
    name: Annotated[str, typer.Argument(help="What many of them are called: notes")],
    fields: Annotated[
        list[str],
        typer.Argument(
            help="name:type; the types are str(n), text, int, bool, datetime, date, enum(a|b) and"
            " ref(resource)"
        ),
    ],
    singular: Annotated[str, typer.Option(help="What one is called.")] = "",
    owned: Annotated[
        bool, typer.Option("--owned", help="Users create, change and delete their own.")
    ] = False,
    nested_under: Annotated[str, typer.Option(help="A resource that they belong to: posts")] = "",
    public_read: Annotated[
        bool, typer.Option("--public-read", help="They are read without a login.")
    ] = False,
    spanish: Annotated[str, typer.Option(help="What many are called in Spanish.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files alone.")] = False,
) -> None:
    """Write the modules, texts, migration and tests of a new resource into this checkout."""
    root = Path.cwd()
    try:
        plan = plan_of(
            root,
            name,
            [field_of(each) for each in fields],
            singular=singular,
            owned=owned,
            public=public_read,
            nested_under=nested_under,
            spanish=spanish,
        )
        new, changed = modules(plan), edited(root, plan)
        if not dry_run:
            _write(root, {**new, **changed})
    except MistakeError as mistake:
        typer.echo(f"new-resource: {mistake}", err=True)
        raise typer.Exit(1) from None
    _report(plan, new, changed, dry_run=dry_run)


def _report(
    plan: Plan, new: Mapping[str, str], changed: Mapping[str, str], *, dry_run: bool
) -> None:
    for path in (*new, *changed, _DOCUMENT):
        typer.echo(f"{'new' if path in new else 'changed'}  {path}")
    if not dry_run:
        typer.echo(_AFTERWARDS.format(path=plan.path, granted=_granted(plan)))


def _granted(plan: Plan) -> str:
    if plan.owned:
        return f"The role `user` has {plan.plural}:write from that migration on."
    return f"The role `admin` has {plan.plural}:write; grant it to others in /docs."


def _write(root: Path, texts: Mapping[str, str]) -> None:
    """Write files, format them, and write the API document anew; leave nothing if that fails."""
    paths = [root / path for path in (*texts, _DOCUMENT)]
    before = {path: path.read_text("utf-8") for path in paths if path.exists()}
    try:
        for name, text in texts.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text, "utf-8")
        modules = [name for name in texts if name.endswith(".py")]
        _run(root, "ruff", "check", *_FIXES, *modules)
        _run(root, "ruff", "format", "--quiet", *modules)
        (root / _DOCUMENT).write_text(_run(root, "app.cli", "openapi"), "utf-8")
    except (OSError, subprocess.CalledProcessError) as error:
        for path in paths:
            path.unlink(missing_ok=True)
            if path in before:
                path.write_text(before[path], "utf-8")
            elif not any(path.parent.iterdir()):
                path.parent.rmdir()
        said = getattr(error, "stdout", "").strip().splitlines()
        raise MistakeError(f"nothing was written: {said[0] if said else error}") from None


def _run(root: Path, module: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 our own commands
        [sys.executable, "-m", module, *arguments],
        cwd=root,
        env=os.environ | _DEFAULTS,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
