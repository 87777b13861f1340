"""What `GET /metrics` shows, by name and labels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.apps import client_of
from tests.support.client import Client


@dataclass(frozen=True)
class Figures:
    """The samples of one look."""

    text: str
    samples: list[tuple[str, dict[str, str], float]]

    def of(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 when there are none."""
        return sum(
            value
            for found, given, value in self.samples
            if found == name and given.items() >= labels.items()
        )

    def labels(self, name: str) -> set[str]:
        """The labels a metric is shown with."""
        return {label for found, given, _ in self.samples if found == name for label in given}

    def values(self, name: str, label: str) -> set[str]:
        """The values of a metric's label."""
        return {given[label] for found, given, _ in self.samples if found == name}

    def names(self) -> set[str]:
        return {name for name, _, _ in self.samples}


async def look(client: Client) -> Figures:
    """What the app of a client shows now."""
    response = await client.http.get("/metrics")
    assert response.status_code == 200, response.text
    families = text_string_to_metric_families(response.text)
    samples = [(each.name, each.labels, each.value) for one in families for each in one.samples]
    return Figures(response.text, samples)


@asynccontextmanager
async def metered(like: Client, folder: Path, **overrides: object) -> AsyncIterator[Client]:
    """A client of an app that counts."""
    async with client_of(like, folder, **({"metrics_enabled": True} | overrides)) as client:
        yield client
        await client.app.state.telemetry.close()
