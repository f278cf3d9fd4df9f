"""What is exported: complete, documented, in the units that Prometheus wants; and the dashboard knows it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.server.running import Running

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"
UNITS = {"seconds", "bytes", "tokens", "requests", "answers", "pages", "snapshots", "steps", "jobs", "errors"}
COUNTED = {"interventions", "misses", "preemptions", "starts"}  # happenings: no other unit than their name
STATES = {"qwick_ready", "qwick_info"}
ASKED = {
    "request latency": "qwick_http_request_seconds",
    "time to first token": "qwick_time_to_first_token_seconds",
    "between tokens": "qwick_inter_token_seconds",
    "tokens/s": "qwick_generated_tokens",
    "queue": "qwick_requests_waiting",
    "running": "qwick_requests_running",
    "errors by kind": "qwick_errors",
    "cache hits": "qwick_prompt_tokens_cached",
    "cache misses": "qwick_cache_misses",
    "cache bytes": "qwick_cache_bytes",
    "memory by kind": "qwick_memory_bytes",
    "resident": "qwick_resident_bytes",
    "disk": "qwick_disk_free_bytes",
    "model's files": "qwick_model_file_bytes",
    "model load time": "qwick_model_load_seconds",
}


@pytest.fixture(scope="module")
def families(server: Running) -> dict[str, Metric]:
    """After an answer, a thought that was ended, and an error."""
    assert server.ask("/v1/completions", {"prompt": "What is", "max_tokens": 2})[0] == 200
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    assert server.ask("/v1/chat/completions", {"messages": messages, "think": True, "thinking_budget": 1})[0] == 200
    assert server.ask("/v1/completions", {"prompt": []})[0] == 400
    server.until(lambda: server.metric("qwick_finished_answers_total") > 0)
    _, text, headers = server.ask("/metrics")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.mark.parametrize(("asked", "name"), ASKED.items())
def test_what_operators_ask_for(families: dict[str, Metric], asked: str, name: str) -> None:
    assert families[name].samples, asked


def test_memory_and_disk_by_kind(families: dict[str, Metric]) -> None:
    def kinds(name: str, label: str = "kind") -> set[str]:
        return {sample.labels[label] for sample in families[name].samples if sample.value > 0}

    assert kinds("qwick_memory_bytes") == {"weights", "cache"}
    assert kinds("qwick_resident_bytes", "process") == {"server", "engine"}
    assert {"model", "state"} <= kinds("qwick_disk_free_bytes") <= {"model", "packed", "state"}
    cache = {sample.labels["kind"]: sample.value for sample in families["qwick_cache_bytes"].samples}
    assert cache.keys() == {"answers", "remembered", "free"}
    assert 0 < sum(cache.values()) < sum(s.value for s in families["qwick_memory_bytes"].samples)


def test_every_family_is_documented_and_has_a_unit(families: dict[str, Metric]) -> None:
    for name, family in families.items():
        assert re.fullmatch(r"(qwick|process)_[a-z]+(_[a-z]+)*", name), name
        assert family.documentation.rstrip(".") not in ("", name), name
        assert family.type in ("counter", "gauge", "histogram"), name
        words = set(name.split("_"))
        assert words & (UNITS | COUNTED) or name in STATES or name.startswith("process_"), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert all(each.endswith("_total") for each in names), names
        series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(series) == len(set(series)), name


def expressions() -> Iterator[tuple[dict[str, Any], str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel, target["expr"]


def test_the_dashboard_asks_for_what_there_is(families: dict[str, Metric]) -> None:
    samples = {sample.name: family for family in families.values() for sample in family.samples}
    shown: set[str] = set()
    for panel, expression in expressions():
        names = re.findall(r"\b(?:qwick|process)_\w+", expression)
        assert names, panel["title"]
        for name in names:
            assert name in samples, f"{panel['title']}: {name}"
            shown.add(samples[name].name)
        labels = {label for sample in samples[names[0]].samples for label in sample.labels} | {"le"}
        for by in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(by.replace(" ", "").split(",")) <= labels, expression
    ours = {name for name in families if name.startswith("qwick_")}
    assert set(ASKED.values()) <= shown | {"qwick_model_file_bytes"}
    assert len(ours - shown) <= len(ours) / 3, sorted(ours - shown)


def test_the_dashboards_panels() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        names = " ".join(target["expr"] for target in panel["targets"])
        expected = "bytes" if "_bytes" in names else "s" if "_seconds" in names else None
        assert unit == expected or expected is None, panel["title"]
