"""The server as a user without an entry in /etc/passwd, as Kubernetes and OpenShift run it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import SECRET
from tests.support.client import API, PASSWORD
from tests.support.process import environment, run_command, serving
from tests.support.schema import empty_database

UID = 54321
# The first works for anybody where namespaces are allowed, the second for root. What it may read
# and write is that of others here: the interpreter, and pytest's folders.
_WAYS = (
    f"unshare --user --map-user={UID} --map-group={UID}",
    f"setpriv --reuid={UID} --regid={UID} --clear-groups"
    " --inh-caps=+dac_override --ambient-caps=+dac_override",
)
_LOOK = "import os, pwd; print(os.getuid(), {entry.pw_uid for entry in pwd.getpwall()})"


def way() -> str:
    """What commands are begun with to run as such a user; nothing where none is possible."""
    for each in _WAYS:
        command = [*shlex.split(each), sys.executable, "-c", _LOOK]
        if shutil.which(command[0]):
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.stdout.startswith(str(UID)) and ran.stdout.count(str(UID)) == 1:
                return each
    return ""


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have commands run as the user, with less priority than it could ask for again."""
    found = way()
    if not found:
        if os.environ.get("CI"):
            pytest.fail("neither unshare nor setpriv makes another user here")
        pytest.skip("neither unshare nor setpriv makes another user here")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec nice -n 15 {found} {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.usefixtures("nameless")
async def test_it_is_set_up_and_serves(database_url: str, tmp_path: Path) -> None:
    with empty_database(database_url, tmp_path) as url:
        env = environment(database_url=url, data_dir=tmp_path, secret_key=SECRET, port=0)
        del env["HOME"]
        status, out, err = await run_command("migrate", cwd=tmp_path, env=env)
        assert status == 0, out + err
        async with (
            serving(tmp_path, env) as server,
            httpx2.AsyncClient(base_url=server.url) as http,
        ):
            account = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
            response = await http.post(f"{API}/auth/register", json=account)
            assert response.status_code == 201, response.text
