"""The loop: two workers, a checkpoint every few minutes, a check of held-out answers now and then."""

import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, multiprocessing

from recipes.pocket import checking
from recipes.pocket.folder import write_folder
from recipes.pocket.mixture import Mixture
from recipes.pocket.network import PocketModel
from recipes.pocket.packing import PackedBatch
from recipes.pocket.plan import WORKERS, Plan
from recipes.pocket.rendering import pad_id
from recipes.pocket.shared import FIELDS, Shared, attach, owned, slots, update
from recipes.pocket.tokenizer import make_tokenizer

PATIENCE = 1800.0  # seconds that one worker waits for another


class Job:
    """What all workers are given."""

    def __init__(self, plan: Plan, run: Path) -> None:
        self.plan, self.run, self.until, self.compiled = plan, run, plan.steps, False
        self.begin, self.at, self.cpu_seconds = 0, 0, 0.0  # steps done when it was restored, and now
        self.shared = Shared(sum(slot.shape.numel() for slot in slots(PocketModel(plan.seed))))
        # Of each worker: trunk loss, draft loss, processor seconds since the start.
        self.told = torch.zeros(WORKERS, 3, dtype=torch.float64).share_memory_()
        self.barrier = multiprocessing.get_context("spawn").Barrier(WORKERS)


def train(plan: Plan, out: Path, run: Path, *, until: int, compiled: bool) -> None:
    """Train to step `until`, and when that is the plan's last write the model folder."""
    run.mkdir(parents=True, exist_ok=True)
    job = restored(plan, run)
    job.until, job.compiled = min(until, plan.steps), compiled
    if not (run / "tokenizer.json").exists():  # kept beside the checkpoint: it hangs on the tasks as they were
        make_tokenizer().save(str(run / "tokenizer.json"))
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_worker_beside, args=(worker, job, os.getpid())) for worker in range(1, WORKERS)]
    try:
        for process in others:
            process.start()
        _worker(0, job)
    finally:
        job.barrier.abort()
        for process in others:
            process.join()
    job.at = job.until
    if job.until == plan.steps:
        write(job, out)


def restored(plan: Plan, run: Path) -> Job:
    """At the run's checkpoint, or at the beginning."""
    job = Job(plan, run)
    _restore(job)
    return job


def write(job: Job, out: Path) -> None:
    """The average as a model folder, and beside the checkpoint what REPORT.md says of the run."""
    model = PocketModel(job.plan.seed)
    average = {slot.name: slot.view(job.shared.average) for slot in slots(model)}
    tokenizer = Tokenizer.from_file(str(job.run / "tokenizer.json"))
    write_folder(out, tokenizer, model.file_tensors(average))
    plan = job.plan
    summary = {
        "parameters": sum(p.numel() for p in model.parameters()), "steps": max(job.begin, job.at), "seed": plan.seed,
        "tokens_a_step": WORKERS * plan.rows * plan.row_len, "cpu_hours": _cpu_seconds(job) / 3600,
    }  # fmt: skip
    (job.run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"wrote {out}", flush=True)


def _worker_beside(worker: int, job: Job, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        _worker(worker, job)
    except threading.BrokenBarrierError:
        pass  # another worker's failure, which is told there
    except BaseException:
        job.barrier.abort()
        raise


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for it forever."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def _worker(worker: int, job: Job) -> None:
    torch.set_num_threads(1)
    plan, shared = job.plan, job.shared
    model = PocketModel(plan.seed)
    attach(model, shared, worker)
    tokenizer = Tokenizer.from_file(str(job.run / "tokenizer.json"))
    mixture = Mixture(tokenizer, plan.rows, plan.row_len, f"{plan.seed} worker {worker}")
    losses = Losses(model, compiled=job.compiled)
    mine = list(owned(slots(model), worker))
    scribe = Scribe(job, model, tokenizer) if worker == 0 else None
    for step in range(job.begin, job.until):
        drafted = step % plan.mtp_every == 0
        shared.gradients[worker].zero_()
        trunk, draft = losses(mixture.batch(step), plan.mtp_weight if drafted else 0.0)
        job.told[worker] = torch.tensor([trunk, draft, time.process_time()])
        job.barrier.wait(PATIENCE)
        update(shared, mine, plan, step, drafted=drafted)
        job.barrier.wait(PATIENCE)
        if scribe:
            scribe.after(step + 1, drafted=drafted)


class Losses:
    """Mean cross entropy of the learned tokens; leaves its gradients in the parameters."""

    def __init__(self, model: PocketModel, *, compiled: bool) -> None:
        self._model = model
        self._trunk = torch.compile(model.forward, dynamic=False) if compiled else model.forward
        self._draft = torch.compile(model.draft, dynamic=False) if compiled else model.draft

    def __call__(self, batch: PackedBatch, mtp_weight: float) -> tuple[float, float]:
        hidden = self._trunk(batch.tokens, batch.starts)
        trunk = F.cross_entropy(self._model.logits(hidden, batch.trunk_rows), batch.trunk_targets)
        draft: Tensor = trunk.new_zeros(())
        if mtp_weight:
            drafted = self._draft(batch.tokens, batch.starts, hidden)
            draft = F.cross_entropy(self._model.logits(drafted, batch.draft_rows), batch.draft_targets)
        (trunk + mtp_weight * draft).backward()
        return trunk.item(), draft.item()


class Scribe:
    """What worker 0 does besides: the log, checks, checkpoints."""

    def __init__(self, job: Job, model: PocketModel, tokenizer: Tokenizer) -> None:
        self._job, self._model = job, model
        self._checks, self._pad_id = checking.checks_of(tokenizer), pad_id(tokenizer)
        self._recent: list[float] = []
        self._draft = 0.0
        self._started, self._at = time.perf_counter(), job.begin

    def after(self, step: int, *, drafted: bool) -> None:
        plan, told = self._job.plan, self._job.told
        self._recent.append(told[:, 0].mean().item())
        if drafted:
            self._draft = told[:, 1].mean().item()
        last = step == self._job.until
        if step % 10 == 0 or last:
            self._log(step)
        if step % plan.check_every == 0 or last:
            self._check(step)
        if step % plan.save_every == 0 or last:
            _save(self._job, step)

    def _log(self, step: int) -> None:
        cpu = _cpu_seconds(self._job)
        wall = (time.perf_counter() - self._started) / max(1, step - self._at)
        line = f"step {step:5d}  loss {sum(self._recent) / len(self._recent):.4f}  mtp {self._draft:.4f}"
        self._recent.clear()
        self._started, self._at = time.perf_counter(), step
        self._tell(f"{line}  {cpu / 3600:.2f} cpu h  {wall:.2f} s/step  {time.strftime('%H:%M:%S')}")

    def _check(self, step: int) -> None:
        shared = self._job.shared
        trained = shared.weights.clone()
        shared.weights.copy_(shared.average)
        scores = checking.scores(self._model, self._checks, self._pad_id)
        shared.weights.copy_(trained)
        self._tell(f"check {step}  " + "  ".join(f"{name} {share:.0%}" for name, share in scores.items()))
        with (self._job.run / "checks.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **scores}) + "\n")
        self._started, self._at = time.perf_counter(), step

    def _tell(self, line: str) -> None:
        print(line, flush=True)
        with (self._job.run / "log.txt").open("a") as log:
            log.write(line + "\n")


def _cpu_seconds(job: Job) -> float:
    """Of all workers, earlier runs included."""
    return job.cpu_seconds + job.told[:, 2].sum().item()


def _save(job: Job, step: int) -> None:
    """Whole or not at all: a run killed meanwhile finds the checkpoint before."""
    state = {name: getattr(job.shared, name) for name in FIELDS}
    new, path = job.run / "checkpoint.new", job.run / "checkpoint.pt"
    torch.save({"plan": asdict(job.plan), "step": step, "cpu_seconds": _cpu_seconds(job), **state}, new)
    new.replace(path)


def _restore(job: Job) -> None:
    path = job.run / "checkpoint.pt"
    if not path.exists():
        model = PocketModel(job.plan.seed)
        for slot in slots(model):
            for flat in (job.shared.weights, job.shared.average):
                slot.view(flat).copy_(model.weights[slot.name].detach())
        return
    state = torch.load(path)
    for name in FIELDS:
        getattr(job.shared, name).copy_(state[name])
    job.begin, job.cpu_seconds = state["step"], state["cpu_seconds"]
    print(f"resuming at step {job.begin}", flush=True)
