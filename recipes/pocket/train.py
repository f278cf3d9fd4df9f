"""Train the embedded model: `python recipes/pocket/train.py`. Seeded; resumes where it was stopped.

Writes the Hugging Face folder src/qwick/pocket/model and recipes/pocket/runs/log.tsv. Under an hour on two cores.
"""

import argparse
import json
import os
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Without the first two the C library gives freed activations back to the kernel and every step faults them in again;
# without the last a thread that waits for one without a core burns its own.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "OMP_WAIT_POLICY": "passive",
}
ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]  # run as a script: make `recipes.pocket` importable
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.environ.update(ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, *sys.argv])

import torch

from recipes.pocket import tasks
from recipes.pocket.batches import PAD, Renderer, TrainingBatch, make_batch, training_batches
from recipes.pocket.folder import write_folder
from recipes.pocket.network import MTP_LOSS_WEIGHT, PocketModel
from recipes.pocket.optimizer import Muon
from recipes.pocket.tokenizer import make_tokenizer

RUNS = Path(__file__).parent / "runs"
MODEL_FOLDER = ROOT / "src/qwick/pocket/model"


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int = 1200
    batch_size: int = 64
    warmup_steps: int = 30
    matrix_lr: float = 4e-3  # Muon
    vector_lr: float = 3e-3  # AdamW: embedding, norms, convolution taps, decay
    descent_share: float = 0.4  # of the steps, at the end
    clip_norm: float = 1.0
    average_decay: float = 0.99  # of the exponential average that is evaluated and saved
    check_every: int = 100
    seed: int = 0


def lr_share(plan: Plan, step: int) -> float:
    """Linear warm-up, constant, then linearly down: so a run can be made longer or shorter until the descent begins."""
    left = (plan.steps - step) / max(1, round(plan.steps * plan.descent_share))
    return min(1.0, (step + 1) / plan.warmup_steps, left)


class Trainer:
    """Model, optimisers, average, and the place in the data: everything that a checkpoint holds."""

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.model = PocketModel(plan.seed)
        self.average = {name: p.detach().clone() for name, p in self.model.weights.items()}
        matrices = [p for name, p in self.model.weights.items() if p.dim() == 2 and not _by_adam(name)]
        others = [p for name, p in self.model.weights.items() if p.dim() != 2 or _by_adam(name)]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, plan.matrix_lr),
            torch.optim.AdamW(others, plan.vector_lr, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.base_lrs = (plan.matrix_lr, plan.vector_lr)
        self.step = 0
        self.seconds = 0.0

    def advance(self, batch: TrainingBatch) -> tuple[float, float]:
        """One step of training; returns the losses of trunk and MTP block."""
        for optimizer, lr in zip(self.optimizers, self.base_lrs, strict=True):
            optimizer.param_groups[0]["lr"] = lr * lr_share(self.plan, self.step)
        trunk, draft = self.model.loss(batch)
        (trunk + MTP_LOSS_WEIGHT * draft).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad()
        decay = min(self.plan.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, p in self.model.weights.items():
                self.average[name].lerp_(p, 1 - decay)
        self.step += 1
        return trunk.item(), draft.item()

    def state(self) -> dict[str, Any]:
        return {
            "plan": self.plan, "step": self.step, "seconds": self.seconds, "model": self.model.state_dict(),
            "average": self.average, "optimizers": [o.state_dict() for o in self.optimizers],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def _by_adam(name: str) -> bool:
    return name.endswith(("embed_tokens", "conv1d"))


@torch.no_grad()
def accuracies(trainer: Trainer, checks: dict[str, list[TrainingBatch]]) -> dict[str, float]:
    """Share of wholly right answers per task, averaged weights. Greedy text is right exactly if every argmax is."""
    trained = {name: p.detach().clone() for name, p in trainer.model.weights.items()}
    _assign(trainer.model, trainer.average)
    found: dict[str, float] = {}
    drafted = drafts = 0
    for task, batches in checks.items():
        right = num = 0
        for batch in batches:
            trunk, draft = trainer.model(batch)
            wrong = (trunk.argmax(-1) != torch.from_numpy(batch.trunk_targets)).numpy()
            num += len(batch.tokens)
            right += len(batch.tokens) - len(set(batch.trunk_sequences[wrong].tolist()))
            drafted += int((draft.argmax(-1) == torch.from_numpy(batch.draft_targets)).sum())
            drafts += len(batch.draft_targets)
        found[task] = right / num
    _assign(trainer.model, trained)
    return found | {"mtp": drafted / drafts}


@torch.no_grad()
def _assign(model: PocketModel, values: dict[str, torch.Tensor]) -> None:
    for name, p in model.weights.items():
        p.copy_(values[name])


def check_batches(renderer: Renderer, pad_id: int, most: int) -> dict[str, list[TrainingBatch]]:
    found: dict[str, list[TrainingBatch]] = {}
    for task in tasks.TASKS:
        conversations = sorted((renderer.plain(e) for e in tasks.held_out(task)[:most]), key=lambda c: len(c.ids))
        found[task] = [make_batch(conversations[i : i + 64], pad_id) for i in range(0, len(conversations), 64)]
    return found


def train(plan: Plan, out: Path, run: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    tokenizer = make_tokenizer()
    pad_id = tokenizer.token_to_id(PAD)
    checks = check_batches(Renderer(tokenizer), pad_id, most=128)
    trainer = Trainer(plan)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        if replace(saved["plan"], steps=plan.steps, check_every=plan.check_every) != plan:
            raise SystemExit(
                f"{checkpoint} belongs to another plan ({saved['plan']}); remove it or choose another --run"
            )
        trainer.restore(saved)
        print(f"resuming at step {trainer.step}", flush=True)
    batches = training_batches(tokenizer, plan.batch_size, lambda i: random.Random(f"pocket {plan.seed} pool {i}"))
    for _ in range(trainer.step):
        next(batches)
    num_parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{num_parameters:,} parameters, {plan.steps} steps of {plan.batch_size} conversations", flush=True)
    recent: list[tuple[float, float]] = []
    scores: dict[str, float] = {}
    begin = time.perf_counter() - trainer.seconds
    while trainer.step < plan.steps:
        recent.append(trainer.advance(next(batches)))
        trainer.seconds = time.perf_counter() - begin
        last = trainer.step == plan.steps
        if trainer.step % 10 == 0 or last:
            trunk, draft = (sum(x) / len(recent) for x in zip(*recent, strict=True))
            recent.clear()
            line = f"step {trainer.step:5d}  loss {trunk:.4f}  mtp {draft:.4f}  {trainer.seconds / 60:5.1f} min"
            if trainer.step % plan.check_every == 0 or last:
                scores = accuracies(trainer, checks)
                line += "  held out: " + "  ".join(f"{task} {share:.1%}" for task, share in scores.items())
                torch.save(trainer.state(), checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
            print(line, flush=True)
            with (run / "log.tsv").open("a") as log:
                log.write("\t".join(line.split("  ")) + "\n")
    write_folder(out, tokenizer, trainer.model.file_tensors(trainer.average))
    scores = scores or accuracies(trainer, checks)
    summary = {
        "parameters": num_parameters, "steps": plan.steps, "batch_size": plan.batch_size, "seed": plan.seed,
        "threads": threads, "minutes": trainer.seconds / 60, **scores,
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"wrote {out} after {trainer.seconds / 60:.1f} minutes", flush=True)


def main() -> None:
    defaults = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--matrix-lr", type=float, default=defaults.matrix_lr)
    parser.add_argument("--vector-lr", type=float, default=defaults.vector_lr)
    parser.add_argument("--check-every", type=int, default=defaults.check_every)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="the model folder to write")
    parser.add_argument("--run", type=Path, default=RUNS, help="log and checkpoint; resumed if there is one")
    given = parser.parse_args()
    plan = Plan(
        steps=given.steps, batch_size=given.batch_size, matrix_lr=given.matrix_lr, vector_lr=given.vector_lr,
        check_every=given.check_every, seed=given.seed,
    )  # fmt: skip
    train(plan, given.out, given.run, given.threads)


if __name__ == "__main__":
    main()
