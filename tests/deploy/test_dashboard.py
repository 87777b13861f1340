"""The dashboard uses the metrics that the app exports, and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.figures import Figures, look, metered
from tests.support.process import ROOT

FILE = ROOT / "deploy" / "grafana" / "cimiento.json"
# Of PromQL, and put on every sample by Prometheus itself.
WORDS = {
    *("by", "ignoring", "or", "sum", "max", "rate", "vector", "histogram_quantile", "le"),
    *("label_values", "instance"),
}
_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
_NAMES = re.compile(r"(?<![\w$])[a-z_]\w+")


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def queries() -> list[str]:
    """Every query of the panels and of the variables."""
    dashboard = _dashboard()
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [each["expr"] for each in targets] + [each["query"]["query"] for each in variables]


def selectors(query: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics a query asks for, each with what it demands of labels."""
    for name, matchers in _SELECTOR.findall(query):
        yield name, _MATCHER.findall(matchers)


@pytest.fixture
async def figures(client: Client, tmp_path: Path) -> Figures:
    """What an app shows that was asked for something."""
    async with metered(client, tmp_path) as watched:
        await watched.get("/posts")
        return await look(watched)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_metric_and_label_it_asks_for_is_shown(figures: Figures) -> None:
    asked_for = set()
    for query in queries():
        labels = set()
        for name, matchers in selectors(query):
            assert name in figures.names(), query
            asked_for.add(name)
            labels |= figures.labels(name)
            for label, how, value in matchers:
                if label != "instance":
                    assert label in figures.labels(name), query
                    shown = figures.values(name, label)
                    wanted = value.split("|") if how == "=~" else [value]
                    assert "." in value or shown >= set(wanted), query
        named = set(_NAMES.findall(_STRING.sub("", query)))
        assert named - WORDS - asked_for <= labels, query
    ours = {name for name in figures.names() if name.startswith("cimiento")}
    assert ours <= asked_for, "it shows all that is counted"


def test_panels_have_a_place_of_their_own_and_a_unit() -> None:
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        covered = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not places & covered, panel["title"]
        places |= covered
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}", "whichever it is called"


def test_it_holds_all_that_operators_look_for() -> None:
    titles = {panel["title"] for panel in _dashboard()["panels"]}
    assert titles >= {
        *("Requests by route", "Failures (5xx)", "Pool use", "Outbox lag"),
        *(
            "Limits met",
            "Logins",
            *(f"Duration by route, {name}" for name in ("p50", "p95", "p99")),
        ),
    }
