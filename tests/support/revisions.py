"""The revisions of the migrations, oldest first."""

from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.conftest import ROOT

_SCRIPTS = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
REVISIONS = [each.revision for each in _SCRIPTS.walk_revisions()][::-1]
