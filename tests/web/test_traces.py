"""Traces: one span for each request by its route, without user content."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.config import checks, load_settings
from tests.support import faults
from tests.support.apps import client_of
from tests.support.client import Client
from tests.support.settings import refusal, set_env

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def traced(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Client, InMemorySpanExporter]]:
    # As if the package that sends traces were installed.
    monkeypatch.setattr(checks, "find_spec", lambda _: ModuleSpec("exporter", None))
    exporter = InMemorySpanExporter()
    async with client_of(client, tmp_path, traces_enabled=True) as found:
        provider = found.app.state.telemetry.config["tracer_provider"]
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        yield found, exporter


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@on_sqlite
async def test_a_request_is_one_span_named_by_its_route(
    traced: tuple[Client, InMemorySpanExporter],
) -> None:
    client, exporter = traced
    ana = await client.user()
    exporter.clear()
    await ana.get("/posts/999999")
    await client.get("/health")
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /api/v1/posts/{post_id}"
    assert attributes(span)["http.response.status_code"] == 404
    assert span.resource.attributes["service.name"] == "cimiento"


@on_sqlite
async def test_spans_hold_nothing_that_people_wrote(
    traced: tuple[Client, InMemorySpanExporter],
) -> None:
    client, exporter = traced
    ana = await client.user("Unmistakable", email="unmistakable@example.com")
    await ana.write("Unmistakable")
    await ana.get("/posts?q=unmistakable&token=unmistakable")
    with faults.failing_writes(
        client.database, lambda: RuntimeError("an unmistakable defect"), times=1
    ):
        form = {"username": "unmistakable@example.com", "password": "Correct-Horse-7"}
        await client.request("POST", "/auth/login", data=form)
    spans = exporter.get_finished_spans()
    assert len(spans) > 3
    assert "unmistakable" not in json.dumps([json.loads(span.to_json()) for span in spans]).lower()
    queries = [attributes(span).get("url.query") for span in spans]
    assert "REDACTED" in queries


@on_sqlite
async def test_an_app_traces_nothing_unless_told(client: Client) -> None:
    assert client.app.state.telemetry.config["tracing"] is False
    assert client.app.state.telemetry.config["logs"] is False


@pytest.mark.usefixtures("no_settings")
def test_traces_need_the_package_that_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    set_env(monkeypatch, TRACES_ENABLED="true")
    assert "opentelemetry-exporter-otlp-proto-http" in refusal()
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    assert "opentelemetry-exporter-otlp-proto-http" in refusal()


@pytest.mark.usefixtures("no_settings")
def test_metrics_are_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    set_env(monkeypatch, METRICS_ENABLED="true", WORKERS="2")
    assert "WORKERS=1" in refusal()
    set_env(monkeypatch, WORKERS="1")
    assert load_settings().metrics_enabled
