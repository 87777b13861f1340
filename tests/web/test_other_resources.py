"""An app serves resources of other packages too, with their migrations, texts and permissions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import DATABASES, ROOT, SERVERS

CHECKS = ROOT / "tests" / "replies" / "check_replies.py"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.server] * (kind in SERVERS)) for kind in DATABASES],
)
def test_a_package_outside_app_is_served(kind: str, pytestconfig: pytest.Config) -> None:
    """In a process of its own: what it declares is there for the whole process."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", kind]
    if pytestconfig.getoption("cov_source", None):
        command += ["--cov=app", "--cov-report=", "--cov-fail-under=0"]
    # By this name the coverage of this process is combined with it.
    measured = {"COVERAGE_FILE": str(ROOT / f".coverage.replies-{kind}-{os.getpid()}")}
    checked = subprocess.run(
        [*command, str(CHECKS)],
        cwd=ROOT,
        env=os.environ | measured,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
