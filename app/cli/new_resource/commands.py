"""The command: `scripts/new-resource notes 'title:str(100)' 'content:str(250)'`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from app.cli.new_resource.document import DOCUMENT
from app.cli.new_resource.edits import edited
from app.cli.new_resource.fields import MistakeError, field_of
from app.cli.new_resource.files import all_or_nothing
from app.cli.new_resource.names import require_free
from app.cli.new_resource.plan import Plan, plan_of
from app.cli.new_resource.render import modules

# The document is that of the defaults, whatever `.env` says.
_DEFAULTS = {"ENVIRONMENT": "development", "PASSWORD_POLICY": "classic", "DOCS_ENABLED": "true"}
# Imports that the fields leave unused, and their order.
_FIXES = ("--quiet", "--output-format=concise", "--fix", "--select=F401,I")
_FIELDS = (
    "name:type; the types are str(n), text, int, bool, datetime, date, enum(a|b) and ref(resource)"
)
_AFTERWARDS = """\
Read them, then:
  scripts/migrate                  make the table
  scripts/lint && scripts/test     check all of it
  scripts/run                      see {path} in /docs
{granted}"""


def new_resource(
    name: Annotated[str, typer.Argument(help="What many of them are called: notes")],
    fields: Annotated[list[str], typer.Argument(help=_FIELDS)],
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
        require_free(root, plan)
        new, changed = modules(plan), edited(root, plan)
        if not dry_run:
            _write(root, {**new, **changed})
    except (MistakeError, OSError) as mistake:
        typer.echo(f"new-resource: {mistake}", err=True)
        raise typer.Exit(1) from None
    _report(plan, new, changed, spanish=spanish, dry_run=dry_run)


def _report(
    plan: Plan,
    new: Mapping[str, str],
    changed: Mapping[str, str],
    *,
    spanish: str,
    dry_run: bool,
) -> None:
    for path in (*new, *changed, DOCUMENT):
        typer.echo(f"{'new' if path in new else 'changed'}  {path}")
    if not dry_run:
        typer.echo(_AFTERWARDS.format(path=plan.path, granted=_granted(plan)))
        if not spanish:
            typer.echo(
                f"Spanish texts say «{plan.plural}»: mend app/locales/es.toml, or --spanish."
            )


def _granted(plan: Plan) -> str:
    if plan.owned:
        return f"The role `user` has {plan.plural}:write from that migration on."
    return f"The role `admin` has {plan.plural}:write; grant it to others in /docs."


def _write(root: Path, texts: Mapping[str, str]) -> None:
    """Write files, check and format them, and write the API document anew."""
    written = [name for name in texts if name.endswith(".py")]
    with all_or_nothing(root, [*texts, DOCUMENT]):
        for name, text in texts.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text, "utf-8")
        _run(root, "ruff", "check", *_FIXES, *written)
        _run(root, "ruff", "format", "--quiet", *written)
        _run(root, "ruff", "check", "--quiet", "--output-format=concise", *written)
        # The app keeps a secret in its DATA_DIR.
        with TemporaryDirectory() as data_dir:
            document = _run(root, "app.cli", "openapi", DATA_DIR=data_dir)
        (root / DOCUMENT).write_text(document, "utf-8")


def _run(root: Path, module: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(  # noqa: S603 our own commands
        [sys.executable, "-m", module, *arguments],
        cwd=root,
        env=os.environ | _DEFAULTS | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        found, trace = done.stdout.strip().splitlines(), done.stderr.strip().splitlines()
        raise MistakeError([*found[:1], *trace[-1:], f"{module} failed"][0])
    return done.stdout
