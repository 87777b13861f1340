"""What Swagger UI makes of operations whose login is optional."""

from __future__ import annotations

import json
import shutil
import subprocess

from tests.support.javascript import missing
from tests.support.process import ROOT

# Runs the script of the page with a Swagger UI that hands back the requirements it is to judge.
PROGRAM = """
let options;
const swaggerUi = Object.assign((given) => { options = given; }, { presets: {} });
const script = require("fs").readFileSync(process.argv[1], "utf8");
new Function("SwaggerUIBundle", script)(swaggerUi);
const { isAuthorized } = options.plugins[0].statePlugins.auth.wrapSelectors;
const judged = isAuthorized((security) => security && security.map((each) => [...each.keys()]));
const requirements = JSON.parse(process.argv[2]).map((each) => new Map(Object.entries(each)));
console.log(JSON.stringify([judged({}, requirements), judged({}, undefined) === undefined]));
"""


def test_an_optional_login_is_judged_by_the_login_alone() -> None:
    """By itself Swagger UI takes `{}` for a login that was done, and shows a closed padlock."""
    node = shutil.which("node") or missing("node")
    script = ROOT / "app" / "static" / "swagger.js"
    security = json.dumps([{}, {"OAuth2": []}])
    run = subprocess.run(
        [node, "-e", PROGRAM, str(script), security], check=True, capture_output=True, timeout=60
    )
    assert json.loads(run.stdout) == [[["OAuth2"]], True]
