"""/metrics: what the engine counted and what the server saw, as Prometheus reads it."""

from collections.abc import Iterable, Iterator, Mapping
from os import getpid
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from qwick import __version__
from qwick.engine.instruments import Histogram as EngineHistogram
from qwick.server import footprint
from qwick.server.service import Note, Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)

_COUNTERS = {
    "steps": ("qwick_steps", "Steps of the engine."),
    "requests": ("qwick_engine_requests", "Answers that were asked of the engine."),
    "cancelled": ("qwick_cancelled_requests", "Answers that nobody wanted any more."),
    "read_tokens": ("qwick_prompt_tokens_read", "Tokens of prompts that were read."),
    "cached_tokens": ("qwick_prompt_tokens_cached", "Tokens of prompts that were in memory."),
    "reread_tokens": ("qwick_tokens_reread", "Tokens read again after a sequence made room."),
    "idle_tokens": ("qwick_tokens_read_at_leisure", "Tokens of earlier answers, read while nothing was asked."),
    "generated_tokens": ("qwick_generated_tokens", "Tokens of answers."),
}
_HISTOGRAMS = {
    "step_seconds": ("qwick_step_seconds", "Of one step of the engine."),
    "queue_seconds": ("qwick_queue_seconds", "From asking the engine to the first step."),
    "first_token_seconds": ("qwick_time_to_first_token_seconds", "From asking the engine to the first token."),
    "token_seconds": ("qwick_inter_token_seconds", "Between two tokens of one answer."),
}
_LEVELS = {
    "waiting": ("qwick_requests_waiting", "Answers that wait for their turn."),
    "running": ("qwick_requests_running", "Answers that are being generated."),
    "idle_jobs": ("qwick_idle_jobs", "Chats to be read at leisure."),
    "pages": ("qwick_cache_pages", "Pages of the cache."),
    "pages_free": ("qwick_cache_pages_free", "Pages that hold nothing."),
    "pages_in_use": ("qwick_cache_pages_in_use", "Pages of answers under way."),
    "snapshots": ("qwick_cache_snapshots", "Recurrent states that prompts may go on from."),
}
_LEVEL_COUNTERS = {
    "snapshots_taken": ("qwick_cache_snapshots_taken", "States that were kept."),
    "snapshots_forgotten": ("qwick_cache_snapshots_forgotten", "States whose memory went to something else."),
    "preemptions": ("qwick_preemptions", "Answers that made room for older ones."),
}


class Metrics:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        disable_created_metrics()  # a second series for each that nobody reads
        self._registry = CollectorRegistry()
        self._requests = Counter("qwick_http_requests", "Requests.", ["path", "status"], registry=self._registry)
        self._errors = Counter("qwick_errors", "What was said instead of answers.", ["kind"], registry=self._registry)
        self._interventions = Counter(
            "qwick_interventions", "Thoughts and answers that were ended for them.", ["kind"], registry=self._registry
        )
        self._seconds = Histogram(
            "qwick_http_request_seconds",
            "From the first byte to the last of the answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        admitted = Gauge("qwick_requests_admitted", "Answers under way or waiting.", registry=self._registry)
        admitted.set_function(lambda: service.num_admitted)
        held = Gauge("qwick_prompt_tokens_held", "Tokens of their prompts.", registry=self._registry)
        held.set_function(lambda: service.num_held)
        self._registry.register(_OfEngine(service))
        ProcessCollector(registry=self._registry)

    def request_done(self, path: str, status: int, seconds: float, note: Note) -> None:
        """One is over."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        for each in note.told.get("interventions", ()):
            self._interventions.labels(each).inc()
        kind = note.told.get("error") or note.told.get("ended")
        if kind is not None:
            self._errors.labels(str(kind)).inc()

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)


class _OfEngine(Collector):
    """What the engine's process said last, and what is known of the model."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield GaugeMetricFamily("qwick_ready", "Whether questions are answered now.", float(service.is_ready))
        if not service.is_open:
            return
        llm = service.opened
        counted, levels = llm.process.counted.instruments, llm.process.counted.levels
        yield CounterMetricFamily("qwick_engine_starts", "Processes of the engine.", llm.process.num_starts)
        yield GaugeMetricFamily("qwick_model_load_seconds", "Until the model was ready.", service.load_seconds)
        yield from _plain(counted, _COUNTERS, CounterMetricFamily)
        yield from _plain(levels, _LEVELS, GaugeMetricFamily)
        yield from _plain(levels, _LEVEL_COUNTERS, CounterMetricFamily)
        yield from _labelled(counted, "finished", "qwick_finished_answers", "Answers by how they ended.", "reason")
        yield from _labelled(
            counted, "misses", "qwick_cache_misses", "Why no more of a prompt was in memory.", "reason"
        )
        for key, (name, text) in _HISTOGRAMS.items():
            if key in counted:
                yield _histogram(name, text, EngineHistogram(**counted[key]))
        yield footprint.planned(llm.ready.config.memory, llm.ready.facts)
        if levels:
            yield footprint.cached(levels)
        yield footprint.resident({"server": getpid(), "engine": llm.process.pid})
        yield GaugeMetricFamily("qwick_model_file_bytes", "The model's files.", service.model_bytes)
        yield footprint.free_on_disk(service.model_path)
        info = {"version": __version__, "model": service.model_name, "isa": str(llm.ready.facts.get("isa", ""))}
        yield _info(info)


def _plain(found: Mapping[str, Any], named: Mapping[str, tuple[str, str]], family: Any) -> Iterator[Metric]:
    for key, (name, text) in named.items():
        if key in found:
            yield family(name, text, found[key])


def _labelled(found: Mapping[str, Any], key: str, name: str, text: str, label: str) -> Iterator[Metric]:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in found.get(key, {}).items():
        family.add_metric([str(value)], count)
    yield family


def _histogram(name: str, text: str, found: EngineHistogram) -> Metric:
    total, buckets = 0, list[tuple[str, float]]()
    for bound, count in zip((*map(str, found.bounds), "+Inf"), found.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets, found.total)


def _info(info: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily("qwick_info", "What runs.", labels=list(info))
    family.add_metric(list(info.values()), 1)
    return family
