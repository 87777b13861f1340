"""The set-up that every script does first: find a Python, make a virtualenv, or say why not.

Stand-ins take the place of Pythons: they answer what the script asks, and make and fill
virtualenvs that are as hollow as they are. CI runs the script on real ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOLS = ("bash", "cmp", "cp", "dirname", "env", "flock", "mkdir", "rm", "touch")
STAND_IN = """#!/usr/bin/env bash
if [ "$1" = -c ]; then
  for module in {lacks}; do case $2 in *"$module"*) exit 1 ;; esac; done
  echo {version}
elif [ "$2" = venv ]; then
  mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python"
elif [ "$2" = pip ]; then
  echo "{version} ${{@: -1}}" >>installed
  exit {pip_status}
fi
"""
SHIM = "#!/usr/bin/env bash\necho 'shim: no such version' >&2\nexit 127\n"
TOO_OLD = "cimiento: Python 3.11 or later is needed"


@dataclass
class Machine:
    """A clone with one script, and the only programs that it finds."""

    clone: Path
    programs: Path

    def add(self, name: str, text: str) -> Path:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def add_python(
        self, version: str, *, name: str = "", lacks: str = "nothing", pip_status: int = 0
    ) -> Path:
        text = STAND_IN.format(version=version, lacks=lacks, pip_status=pip_status)
        return self.add(name or f"python{version}", text)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.clone / "scripts" / "version"],
            env={"PATH": str(self.programs), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def version(self, **environment: str) -> str:
        """The version of the Python that a script runs on."""
        done = self.run(**environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refusal(self, **environment: str) -> str:
        """The one line with which a script ends."""
        done = self.run(**environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        return done.stderr.strip()

    @property
    def installed(self) -> list[str]:
        """What was installed, and by which Python."""
        path = self.clone / "installed"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    clone, programs = tmp_path / "clone", tmp_path / "programs"
    (clone / "scripts").mkdir(parents=True)
    programs.mkdir()
    for tool in TOOLS:
        path = shutil.which(tool)
        assert path is not None, tool
        (programs / tool).symlink_to(path)
    for part in ("_setup", "_python", "_venv"):
        shutil.copy(ROOT / "scripts" / part, clone / "scripts")
    script = clone / "scripts" / "version"
    script.write_text(
        '#!/usr/bin/env bash\n. "$(dirname "$0")/_setup" requirements.txt\npython -c version\n'
    )
    script.chmod(0o755)
    (clone / "requirements.txt").write_text("one\n")
    return Machine(clone, programs)


# --- Which Python --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["3.11", "3.12", "3.13"], "3.13"),
        (["3.9", "3.11", "3.12"], "3.12"),
        (["3.11"], "3.11"),
    ],
)
def test_the_newest_that_is_supported_is_taken(
    machine: Machine, there: list[str], taken: str
) -> None:
    for version in there:
        machine.add_python(version)
    assert machine.version() == taken
    assert machine.installed == [f"{taken} requirements.txt"]


def test_one_that_has_no_number_in_its_name_is_taken_if_there_is_no_other(machine: Machine) -> None:
    machine.add_python("3.9", name="python")
    machine.add_python("3.14", name="python3")
    assert machine.version() == "3.14"


def test_names_that_do_not_answer_are_passed_over(machine: Machine) -> None:
    machine.add("python3.13", SHIM)
    machine.add_python("3.12", lacks="ensurepip")
    machine.add_python("3.11")
    assert machine.version() == "3.11"


def test_a_python_that_is_named_is_taken(machine: Machine) -> None:
    machine.add_python("3.13")
    named = machine.add_python("3.12", name="other")
    assert machine.version(PYTHON=str(named)) == "3.12"
    assert machine.version() == "3.12", "what there is stays"
    assert machine.version(PYTHON="python3.13") == "3.13"
    assert len(machine.installed) == 2


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, f"{TOO_OLD}; python3 was not found"),
        ({"python3": "3.9", "python": "2.7"}, f"{TOO_OLD}; python3 is 3.9"),
        ({"python": "3.10"}, f"{TOO_OLD}; python is 3.10"),
    ],
)
def test_without_a_python_that_is_new_enough_it_says_so(
    machine: Machine, there: dict[str, str], expected: str
) -> None:
    for name, version in there.items():
        machine.add_python(version, name=name)
    machine.add("python3.13", SHIM)
    assert machine.refusal() == expected
    assert not (machine.clone / ".venv").exists()


@pytest.mark.parametrize("lacks", ["venv", "ensurepip"])
def test_without_the_means_to_make_a_virtualenv_it_says_what_to_install(
    machine: Machine, lacks: str
) -> None:
    machine.add_python("3.11", lacks=lacks)
    machine.add_python("2.7", name="python")
    expected = "Python 3.11 lacks the module venv or ensurepip: install python3.11-venv"
    assert machine.refusal() == f"cimiento: {expected}"


def test_a_named_python_that_is_of_no_use_is_not_replaced_by_another(machine: Machine) -> None:
    machine.add_python("3.13")
    machine.add_python("3.9")
    assert machine.refusal(PYTHON="python3.9") == f"{TOO_OLD}; python3.9 is 3.9"
    assert machine.refusal(PYTHON="nowhere") == f"{TOO_OLD}; nowhere was not found"


# --- The virtualenv ------------------------------------------------------------------------------


def test_what_is_installed_is_not_installed_again_before_the_lock_changes(machine: Machine) -> None:
    machine.add_python("3.12")
    for _ in range(2):
        assert machine.version() == "3.12"
    assert len(machine.installed) == 1
    (machine.clone / "requirements.txt").write_text("two\n")
    machine.version()
    assert len(machine.installed) == 2


def test_an_installation_that_was_cut_off_is_started_anew(machine: Machine) -> None:
    machine.add_python("3.13", pip_status=1)
    assert machine.run().returncode == 1
    assert (machine.clone / ".venv" / "bin" / "python").exists()
    (machine.clone / ".venv" / "half").touch()
    machine.add_python("3.13")
    assert machine.version() == "3.13"
    assert not (machine.clone / ".venv" / "half").exists()


def half_made(venv: Path) -> None:
    (venv / "bin" / "python").write_text(STAND_IN.format(version="3.13", lacks="pip", pip_status=1))


def python_is_gone(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3.12")


def replaced_by_a_file(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.touch()


def leads_nowhere(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.symlink_to("nowhere")


def emptied(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.mkdir()


def of_a_python_too_old(venv: Path) -> None:
    old = STAND_IN.format(version="3.9", lacks="nothing", pip_status=0)
    (venv / "bin" / "python").write_text(old)


@pytest.mark.parametrize(
    "spoil",
    [half_made, python_is_gone, replaced_by_a_file, leads_nowhere, emptied, of_a_python_too_old],
)
def test_a_virtualenv_that_does_not_work_is_made_anew(machine: Machine, spoil: object) -> None:
    assert callable(spoil)
    machine.add_python("3.12")
    machine.version()
    spoil(machine.clone / ".venv")
    assert machine.version() == "3.12"
    assert len(machine.installed) == 2
    assert machine.version() == "3.12"
    assert len(machine.installed) == 2


def test_several_virtualenvs_lie_side_by_side(machine: Machine) -> None:
    for version in ("3.12", "3.13"):
        machine.add_python(version)
        found = machine.version(PYTHON=f"python{version}", VENV=f".venv-{version}")
        assert found == version
    assert [*machine.clone.glob(".venv*")] != []
    assert not (machine.clone / ".venv").exists()


def test_a_directory_that_is_no_virtualenv_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    machine.add_python("3.13")
    kept = tmp_path / "precious" / "file"
    kept.parent.mkdir()
    kept.touch()
    named = str(kept.parent)
    expected = f"cimiento: VENV: {named} is there, and no virtualenv"
    assert machine.refusal(VENV=named) == expected
    assert kept.exists()


def not_executable(venv: Path) -> None:
    (venv / "bin" / "python").chmod(0o644)


def of_another_tool(venv: Path) -> None:
    of_a_python_too_old(venv)
    (venv / "installed-requirements.txt").unlink()


@pytest.mark.parametrize("spoil", [not_executable, python_is_gone, of_another_tool])
def test_a_named_virtualenv_that_may_be_in_use_is_left_alone(
    machine: Machine, tmp_path: Path, spoil: object
) -> None:
    assert callable(spoil)
    machine.add_python("3.13")
    venv = tmp_path / "shared"
    machine.version(VENV=str(venv))
    spoil(venv)
    before = {path: path.lstat().st_ino for path in venv.rglob("*")}
    expected = f"cimiento: VENV: {venv} does not work for this user, and is not replaced"
    assert machine.refusal(VENV=str(venv)) == f"{expected}: name another"
    assert {path: path.lstat().st_ino for path in venv.rglob("*")} == before


@pytest.mark.parametrize("python", ["python3.12", ""])
def test_a_named_virtualenv_of_these_scripts_is_made_anew(
    machine: Machine, tmp_path: Path, python: str
) -> None:
    """For another Python, and after an installation that was cut off."""
    machine.add_python("3.12")
    machine.add_python("3.13")
    venv = tmp_path / "shared"
    assert machine.version(VENV=str(venv)) == "3.13"
    if not python:
        (venv / "unfinished").touch()
    assert machine.version(VENV=str(venv), PYTHON=python) == ("3.12" if python else "3.13")
    assert len(machine.installed) == 2


def test_scripts_that_start_together_make_one_virtualenv(machine: Machine) -> None:
    machine.add_python("3.13")
    started = [
        subprocess.Popen(
            [machine.clone / "scripts" / "version"],
            env={"PATH": str(machine.programs)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(4)
    ]
    assert [each.communicate()[0] for each in started] == ["3.13\n"] * 4
    assert len(machine.installed) == 1


def test_only_what_the_script_needs_is_in_its_way(machine: Machine) -> None:
    """Not every system has `flock`."""
    machine.add_python("3.13")
    (machine.programs / "flock").unlink()
    assert machine.version() == "3.13"
    assert os.listdir(machine.clone / ".venv")
