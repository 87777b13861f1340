"""`scripts/new-resource`: what it writes, and what it refuses. `.ci/new-resource` runs the tests of
what it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from app.cli.new_resource.commands import new_resource
from app.cli.new_resource.edits import edited
from app.cli.new_resource.fields import MistakeError, field_of
from app.cli.new_resource.plan import plan_of
from app.cli.new_resource.render import modules

ROOT = Path(__file__).parents[2]
EVERY_TYPE = [
    *("title:str(100)", "body:text", "size:int", "is_open:bool", "starts_at:datetime", "day:date"),
    "state:enum(open|closed)",
]
LONG = "a" * 29
cli = typer.Typer()
cli.command()(new_resource)


def called(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what it reads and writes, as the working directory."""
    for name in ("app", "alembic", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "alembic.ini"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {"__pycache__", ".ruff_cache", "data"} & {*path.parts}
    }


def test_it_writes_what_it_says(checkout: Path) -> None:
    before = files(checkout)
    dry_run = called("notes", *EVERY_TYPE, "--owned", "--dry-run")
    assert dry_run.exit_code == 0, dry_run.output
    assert files(checkout) == before, "a dry run"
    done = called("notes", *EVERY_TYPE, "--owned", "--spanish", "notas")
    assert done.exit_code == 0, done.output
    after = files(checkout)
    for line in dry_run.output.splitlines():
        what, path = line.split()
        assert after[path] != before.get(path), path
        assert (path in before) is (what == "changed")
    written = {path for path, text in after.items() if before.get(path) != text}
    assert written == {line.split()[1] for line in dry_run.output.splitlines()}
    assert "scripts/migrate" in done.output
    document = json.loads(after["docs/openapi.json"])
    assert {"get", "post"} == document["paths"]["/api/v1/notes"].keys()
    assert "notas" in (checkout / "app/locales/es.toml").read_text("utf-8")
    assert "The role `user` has notes:write" in done.output
    other = called("gadgets", "title:str(100)")
    assert "The role `admin` has gadgets:write" in other.output
    again = called("notes", "title:str(100)")
    assert (again.exit_code, again.stderr) == (
        1,
        "new-resource: 'notes' is taken: app/models/notes.py is there\n",
    )


@pytest.mark.parametrize("parent", ["", "posts", "users"])
@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("fields", [["title:str(9)"], EVERY_TYPE])
def test_what_it_writes_is_python(
    parent: str, owned: bool, public: bool, fields: list[str]
) -> None:
    references = ["post:ref(posts)"] if parent != "posts" and fields is EVERY_TYPE else []
    plan = plan_of(
        ROOT,
        "blog_entries",
        [field_of(each) for each in (*fields, *references)],
        owned=owned and parent != "users",
        public=public,
        nested_under=parent,
    )
    assert (plan.class_name, plan.a, plan.word) == ("BlogEntry", "a", "blog entry")
    changed = edited(ROOT, plan)
    for path, text in (modules(plan) | changed).items():
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert "blog_entries:write" in changed["app/locales/en.toml"]


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ("Notes title:str(9)", "'Notes' cannot name a resource"),
        ("notes_ title:str(9)", "'notes_' cannot name a resource"),
        ("classes title:str(9)", "'class' cannot name one of a resource: it is a word of Python"),
        ("notes title", "'title' is not a field"),
        ("notes title:varchar", "'title:varchar' is not a field"),
        ("notes title:str", "say how many characters"),
        ("notes title:str(0)", "say how many characters"),
        ("notes title:text(9)", "text takes nothing in parentheses"),
        ("notes state:enum(open)", "name two values or more"),
        ("notes state:enum(open|open)", "name two values or more"),
        ("notes state:enum(open|Closed)", "name two values or more"),
        ("notes state:enum(open|class)", "'class' cannot name a value"),
        ("notes state:enum(open|title)", "'title' cannot name a value"),
        ("notes version:int", "every record has it for itself"),
        ("notes metadata:text", "every record has it for itself"),
        ("notes model_name:text", "every record has it for itself"),
        ("notes title:text title:int", "'title' is there twice"),
        ("notes post:ref(posts)", "name at least one field that is no ref"),
        ("notes title:text role:ref(roles)", "role_id: 'roles' is none of posts, users"),
        ("notes title:text a:ref(posts) b:ref(posts)", "point to each resource once"),
        ("notes title:text a:ref(users) --owned", "point to each resource once"),
        ("notes title:text --nested-under tags", "--nested-under: 'tags' is none of"),
        ("notes title:text --singular notes", "in two ways"),
        ('notes title:text --spanish "notas"', "--spanish takes letters"),
        ("sheep title:text", "say what one of 'sheep' is called"),
        ("posts title:text", "'posts' is taken: app/models/posts.py is there"),
        ("mails title:text", "'mails' is taken"),
        ("outboxes title:text --singular mail", "'outboxes' is taken"),
        ("requests title:text", "'requests' is taken"),
        ("pages title:text", "'pages' is taken"),
        (f"{LONG}s {LONG}:str(9) --owned", "take a shorter name, or shorter fields"),
        (f"{LONG}s title:str(9) {LONG[3:]}:ref(posts)", "take a shorter name, or shorter fields"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: str, mistake: str) -> None:
    done = called(*arguments.split(), "--dry-run")
    assert done.exit_code == 1
    assert done.stderr.startswith("new-resource: ")
    assert mistake in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_checkout_that_cannot_be_added_to_is_left_alone(checkout: Path) -> None:
    for path in ("tests/contract/resources.py", "app/resources.py"):
        kept = (checkout / path).read_text("utf-8")
        (checkout / path).write_text("# another one\n", "utf-8")
        before = files(checkout)
        done = called("notes", "title:str(9)")
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert path in done.stderr
        assert files(checkout) == before
        (checkout / path).write_text(kept, "utf-8")


def test_what_cannot_be_finished_is_taken_back(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(checkout / "nowhere"))
    before = files(checkout)
    done = called("notes", "title:str(9)")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("new-resource: nothing was written: ")
    assert files(checkout) == before
    assert not (checkout / "tests/notes").exists()


def test_the_document_is_that_of_the_defaults(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD_POLICY", "nist")
    before = json.loads((checkout / "docs/openapi.json").read_text("utf-8"))
    assert called("notes", "title:str(9)").exit_code == 0
    after = json.loads((checkout / "docs/openapi.json").read_text("utf-8"))
    name = "Registration"
    assert after["components"]["schemas"][name] == before["components"]["schemas"][name]


def test_plurals_are_taken_apart() -> None:
    def singular(plural: str) -> str:
        return plan_of(ROOT, plural, [field_of("title:str(9)")]).singular

    plurals = ["stories", "boxes", "branches", "addresses", "gadgets"]
    assert [singular(each) for each in plurals] == ["story", "box", "branch", "address", "gadget"]
    with pytest.raises(MistakeError):
        singular("glass")
