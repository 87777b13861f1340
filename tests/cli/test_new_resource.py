"""`scripts/new-resource`: what it writes, and what it refuses. `.ci/new-resource` runs the tests of
what it writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from app.cli.new_resource.commands import new_resource
from app.cli.new_resource.document import Document
from app.cli.new_resource.edits import edited
from app.cli.new_resource.fields import MistakeError, field_of
from app.cli.new_resource.files import all_or_nothing
from app.cli.new_resource.plan import plan_of
from app.cli.new_resource.plurals import singular_of
from app.cli.new_resource.render import modules
from app.db.references import models_with_trash

ROOT = Path(__file__).parents[2]
EVERY_TYPE = [
    *("title:str(100)", "body:text", "size:int", "is_open:bool", "starts_at:datetime", "day:date"),
    "state:enum(open|closed)",
]
LONG = "b" * 29
# Resources with a trash that everybody may know of.
TARGETS = ", ".join(
    sorted(
        model.__tablename__
        for model in models_with_trash()
        if model.__tablename__ != "roles" and not hasattr(model, "post_id")
    )
)
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
    dry_run = called("oddments", *EVERY_TYPE, "--owned", "--dry-run")
    assert dry_run.exit_code == 0, dry_run.output
    assert files(checkout) == before, "a dry run"
    done = called("oddments", *EVERY_TYPE, "--owned", "--spanish", "notas")
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
    assert {"get", "post"} == document["paths"]["/api/v1/oddments"].keys()
    assert "notas" in (checkout / "app/locales/es.toml").read_text("utf-8")
    assert "The role `user` has oddments:write" in done.output
    other = called("oddities", "title:str(100)")
    assert "The role `admin` has oddities:write" in other.output
    again = called("oddments", "title:str(100)")
    assert (again.exit_code, again.stderr) == (
        1,
        "new-resource: 'oddments' is taken: app/models/oddments.py is there\n",
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
        "spare_entries",
        [field_of(each) for each in (*fields, *references)],
        owned=owned and parent != "users",
        public=public,
        nested_under=parent,
    )
    assert (plan.class_name, plan.a, plan.word) == ("SpareEntry", "a", "spare entry")
    changed = edited(ROOT, plan)
    for path, text in (modules(plan) | changed).items():
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert "spare_entries:write" in changed["app/locales/en.toml"]


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ("Oddments title:str(9)", "'Oddments' cannot name a resource"),
        ("oddments_ title:str(9)", "'oddments_' cannot name a resource"),
        ("classes title:str(9)", "'class' cannot name one of a resource: it is a word of Python"),
        ("oddments title", "'title' is not a field"),
        ("oddments title:varchar", "'title:varchar' is not a field"),
        ("oddments title:str", "say how many characters"),
        ("oddments title:str(0)", "say how many characters"),
        ("oddments title:text(9)", "text takes nothing in parentheses"),
        ("oddments state:enum(open)", "name two values or more"),
        ("oddments state:enum(open|open)", "name two values or more"),
        ("oddments state:enum(open|Closed)", "name two values or more"),
        ("oddments state:enum(open|class)", "'class' cannot name a value"),
        ("oddments state:enum(open|title)", "'title' cannot name a value"),
        ("oddments version:int", "every record has it for itself"),
        ("oddments metadata:text", "every record has it for itself"),
        ("oddments model_name:text", "every record has it for itself"),
        ("oddments title:text title:int", "'title' is there twice"),
        ("oddments post:ref(posts)", "name at least one field that is no ref"),
        ("oddments title:text role:ref(roles)", f"role_id: 'roles' is none of {TARGETS}"),
        ("oddments title:text a:ref(posts) b:ref(posts)", "point to each resource once"),
        ("oddments title:text a:ref(users) --owned", "point to each resource once"),
        ("oddments title:text --nested-under tags", "--nested-under: 'tags' is none of"),
        ("oddments title:text --singular oddments", "in two ways"),
        ('oddments title:text --spanish "notas"', "--spanish takes letters"),
        ("sheep title:text", "say what one of 'sheep' is called"),
        ("posts title:text", "'posts' is taken: app/models/posts.py is there"),
        ("mails title:text", "'mails' is taken"),
        ("outboxes title:text --singular mail", "'outboxes' is taken"),
        ("requests title:text", "'requests' is taken"),
        ("pages title:text", "'pages' is taken"),
        ("keys title:text", "'keys' is taken: the API has the operation list_keys"),
        ("post_tags title:text", "'post_tags' is taken: there is a table post_tags"),
        (
            "publication title:text --singular oddment --nested-under posts",
            "the API has the path /api/v1/posts/{post_id}/publication",
        ),
        ("parts title:text", "'parts' is taken: the API has the schema Part"),
        ("tokens title:text", "'tokens' is taken: the API has the schema Token"),
        ("error_responses title:text --singular oddment", "has the name 'error_responses'"),
        ("locations title:text", "app/routers/locations.py has the name 'location' for something"),
        ("changes title:text", "entries/changes.py has the name 'CHANGE' for something else"),
        ("annotations title:text", "'annotations' is taken"),
        ("drafts title:text", "tests/contract/entries/posts.py calls a row 'draft'"),
        ("trails title:text --singular post_status", "the API has the schema PostStatus"),
        ("oddments date:date", "'date' cannot name a field: app/models/oddments.py has the name"),
        ("oddments str:str(5)", "'str' cannot name a field"),
        ("oddments int:int", "'int' cannot name a field"),
        ("oddments record:str(5)", "'record' cannot name a field"),
        ("oddments filters:enum(a|b)", "'filters' cannot name a field"),
        ("oddments limit:bool", "'limit' cannot name a field"),
        ("oddments self:int", "'self' cannot name a field"),
        ("oddments integer:str(5) size:int", "'integer' cannot name a field"),
        ("oddments starts_at:datetime starts_at_from:int", "'starts_at' is filtered by it"),
        ("oddments create:enum(a|b)", "has the name 'OddmentCreate' for something else"),
        ("oddments state:enum(mro|open)", "'mro' cannot name a value"),
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
        done = called("oddments", "title:str(9)")
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
        assert path in done.stderr
        assert files(checkout) == before
        (checkout / path).write_text(kept, "utf-8")


def test_what_cannot_be_finished_is_taken_back(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(checkout / "nowhere"))
    before = files(checkout)
    done = called("oddments", "title:str(9)")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("new-resource: nothing was written: ")
    assert files(checkout) == before
    assert not (checkout / "tests/oddments").exists()


def test_the_document_is_that_of_the_defaults(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD_POLICY", "nist")
    before = json.loads((checkout / "docs/openapi.json").read_text("utf-8"))
    assert called("oddments", "title:str(9)").exit_code == 0
    after = json.loads((checkout / "docs/openapi.json").read_text("utf-8"))
    name = "Registration"
    assert after["components"]["schemas"][name] == before["components"]["schemas"][name]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_what_is_interrupted_is_taken_back(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, ending: type[BaseException]
) -> None:
    """SystemExit: by SIGTERM."""

    def interrupted(*_: object, **__: object) -> None:
        assert (checkout / "app/models/oddments.py").exists()
        if ending is SystemExit:
            os.kill(os.getpid(), signal.SIGTERM)
        raise ending

    monkeypatch.setattr(subprocess, "run", interrupted)
    (checkout / "app/resources.py").chmod(0o640)
    before, handler = files(checkout), signal.getsignal(signal.SIGTERM)
    done = called("oddments", "title:str(9)")
    assert done.exit_code == (
        143 if ending is SystemExit else 130 if ending is KeyboardInterrupt else 1
    )
    assert files(checkout) == before
    assert not (checkout / "tests/oddments").exists()
    assert (checkout / "app/resources.py").stat().st_mode & 0o777 == 0o640
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_file_that_cannot_be_restored_does_not_keep_others_from_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, write = checkout / "app/resources.py", Path.write_bytes

    def refusing(path: Path, data: bytes) -> int:
        if path == lost:
            raise PermissionError(13, "Permission denied")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refusing)
    monkeypatch.setattr("sys.executable", str(checkout / "nowhere"))
    before = files(checkout)
    done = called("oddments", "title:str(9)")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith("; restore these yourself: app/resources.py\n")
    after = files(checkout)
    assert {name for name, data in after.items() if before.get(name) != data} == {
        "app/resources.py"
    }


def test_a_document_that_cannot_be_made_is_one_line(checkout: Path) -> None:
    """And not the trace of the command that makes it."""
    (checkout / "app/main.py").write_text('raise RuntimeError("broken")\n', "utf-8")
    before = files(checkout)
    done = called("oddments", "title:str(9)")
    expected = "new-resource: nothing was written: RuntimeError: broken\n"
    assert (done.exit_code, done.stderr) == (1, expected)
    assert files(checkout) == before


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        *[("stories", "story"), ("boxes", "box"), ("branches", "branch"), ("gadgets", "gadget")],
        *[("addresses", "address"), ("dishes", "dish"), ("pages", "page"), ("issues", "issue")],
        *[("calendar_entries", "calendar_entry"), ("formula_1_races", "formula_1_race")],
        *[("subscription_plans", "subscription_plan"), ("employees", "employee")],
    ],
)
def test_plurals_are_taken_apart(plural: str, singular: str) -> None:
    assert singular_of(plural) == singular


@pytest.mark.parametrize(
    "plural",
    [
        *("movies", "cookies", "series", "news", "analyses", "statuses", "buses", "heroes"),
        *("glass", "caches", "leaves", "quizzes", "axes", "status", "criteria", "daily_news"),
    ],
)
def test_plurals_that_may_be_irregular_are_asked_for(plural: str) -> None:
    with pytest.raises(MistakeError, match="--singular NAME"):
        singular_of(plural)


def test_a_resource_is_called_as_its_path_calls_it(tmp_path: Path) -> None:
    """Its class does not tell: that of `formula_1_race` is Formula1Race."""
    (tmp_path / "docs").mkdir()
    paths = ["/api/v1/formula-1-races/{formula_1_race_id}", "/api/v1/formula-1-races"]
    document: dict[str, Any] = {
        "paths": {path: {} for path in paths},
        "components": {"schemas": {}},
    }
    (tmp_path / "docs/openapi.json").write_text(json.dumps(document), "utf-8")
    assert Document.of(tmp_path).singular_of("formula_1_races") == "formula_1_race"
    assert Document.of(ROOT).singular_of("users") == "user"


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ("[]", "docs/openapi.json is no API document: write it anew"),
        ('{"paths": {}}', "docs/openapi.json is no API document: write it anew"),
        (
            '{"paths": {}, "components": {"schemas": {}}}',
            "--nested-under: the API has no path of one of 'posts', which has its `id`",
        ),
    ],
)
def test_a_document_without_what_is_needed_is_refused(
    checkout: Path, document: str, mistake: str
) -> None:
    (checkout / "docs/openapi.json").write_text(document, "utf-8")
    done = called("oddments", "title:str(9)", "--nested-under", "posts")
    assert (done.exit_code, done.stderr) == (1, f"new-resource: {mistake}\n")


def test_a_new_folder_is_removed_unless_it_holds_something_else(tmp_path: Path) -> None:
    def fail(*written: str) -> None:
        with all_or_nothing(tmp_path, ["new/a.py"]):
            for name in written:
                (tmp_path / "new").mkdir()
                (tmp_path / "new" / name).touch()
            raise OSError("full")

    with pytest.raises(MistakeError, match=r"^nothing was written: full$"):
        fail()
    with pytest.raises(MistakeError, match=r"^nothing was written: full$"):
        fail("a.py")
    assert not (tmp_path / "new").exists()
    with pytest.raises(MistakeError, match=r"^full; restore these yourself: new$"):
        fail("another.txt")
    assert (tmp_path / "new/another.txt").exists()


def test_no_secret_is_left_in_the_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_DIR")
    assert called("oddments", "title:str(9)").exit_code == 0
    assert not (checkout / "data").exists()


def test_those_that_point_to_it_go_to_the_trash_with_it() -> None:
    texts = modules(plan_of(ROOT, "oddments", [field_of("title:str(9)")]))
    assert "await trash.delete_children(session, oddment)" in texts["app/crud/oddments.py"]


@pytest.mark.parametrize("parent", ["", "posts", "users"])
def test_the_longest_names_fit_into_lines(parent: str) -> None:
    plan = plan_of(
        ROOT,
        f"{LONG}s",
        [field_of(each) for each in EVERY_TYPE],
        singular=f"{LONG}n",
        owned=parent != "users",
        nested_under=parent,
    )
    text = modules(plan)[f"app/crud/{LONG}s.py"]
    unbroken = [
        line for line in text.splitlines() if line.lstrip().startswith(('"""', "#", "Raise"))
    ]
    assert max(map(len, unbroken)) <= 100
