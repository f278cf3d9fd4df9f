"""What the server takes of the machine, as metrics: memory by kind, the cache's part of it, what is free on disks."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from qwick.engine.memory_plan import MemoryPlan
from qwick.errors import UsageError
from qwick.thread_choice import state_folder
from qwick.weights.pack_cache import packs_folder

_PAGE = os.sysconf("SC_PAGE_SIZE")


def planned(plan: MemoryPlan | None, facts: Mapping[str, Any]) -> Metric:
    """What it was set aside for: parts that do not overlap. `facts`: the engine's own, where nobody set a cap."""
    text = "Memory by what it was set aside for; not all of it need be touched yet."
    family = GaugeMetricFamily("qwick_memory_bytes", text, labels=["kind"])
    parts = {"weights": facts.get("weight_bytes", 0), "cache": facts.get("cache_bytes", 0)}
    for kind, size in (parts if plan is None else plan.parts).items():
        family.add_metric([kind.replace(" ", "_").lower()], size)
    return family


def cached(levels: Mapping[str, Any]) -> Metric:
    """Of the cache's pages; the three are all of it."""
    family = GaugeMetricFamily("qwick_cache_bytes", "Pages of the cache by what they hold.", labels=["kind"])
    page, free, used = (levels.get(name, 0) for name in ("page_bytes", "pages_free", "pages_in_use"))
    remembered = levels.get("pages", 0) - free - used
    for kind, pages in (("answers", used), ("remembered", remembered), ("free", free)):
        family.add_metric([kind], pages * page)
    return family


def resident(processes: Mapping[str, int | None]) -> Metric:
    """Now, as the system counts it; none where it does not tell, or between two processes."""
    family = GaugeMetricFamily("qwick_resident_bytes", "Resident memory of a process.", labels=["process"])
    for name, number in processes.items():
        with suppress(OSError, IndexError):
            pages = Path(f"/proc/{number}/statm").read_text().split()[1]
            family.add_metric([name], int(pages) * _PAGE)
    return family


def free_on_disk(model: Path) -> Metric:
    """Where the model lies, where packed weights would, and where it is noted how many threads were fastest."""
    family = GaugeMetricFamily("qwick_disk_free_bytes", "Free where these files lie, or would.", labels=["kind"])
    folders = {"model": lambda: model, "packed": packs_folder, "state": state_folder}
    for kind, folder in folders.items():
        with suppress(OSError, RuntimeError, UsageError):
            family.add_metric([kind], shutil.disk_usage(_existing(folder())).free)
    return family


def _existing(path: Path) -> Path:
    """It, or the nearest folder above."""
    return next(each for each in (path, *path.parents) if each.exists())
