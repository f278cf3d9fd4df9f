"""The training loop: two processes that work on one model, and a run that goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qwick.model.config import load_config
from recipes.pocket import plot
from recipes.pocket.network import PocketModel, model_config
from recipes.pocket.plan import WORKERS, Plan
from recipes.pocket.shared import Shared, attach, owned, slots, update
from recipes.pocket.training import train

PLAN = Plan(steps=4, rows=1, row_len=512, check_every=100, save_every=2, mtp_every=2, warmup_steps=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two processes that make a tokenizer each
def test_a_run_that_was_stopped_ends_where_an_undisturbed_one_does(tmp_path: Path):
    for run, stops in ((tmp_path / "whole", (4,)), (tmp_path / "parts", (2, 4))):
        for until in stops:
            train(PLAN, run / "model", run, until=until, compiled=False)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4
    for name in ("weights", "average", "first", "second"):
        assert torch.allclose(whole[name], parts[name], rtol=1e-4, atol=1e-6)
    assert load_config(tmp_path / "parts/model") == model_config()
    assert parts["cpu_seconds"] > 0
    assert "<svg" in plot.svg((tmp_path / "parts/log.txt").read_text())


def test_every_parameter_has_one_owner_and_a_step_moves_all_of_them():
    model = PocketModel(0)
    shared = Shared(sum(slot.shape.numel() for slot in slots(model)))
    for slot in slots(model):
        slot.view(shared.weights).copy_(model.weights[slot.name].detach())
    attach(model, shared, 0)
    mine = [list(owned(slots(model), worker)) for worker in range(WORKERS)]
    names = [slot.name for part in mine for slot in part]
    assert sorted(names) == sorted(model.weights.keys())
    before = shared.weights.clone()
    shared.gradients.normal_()
    plan = replace(Plan(), warmup_steps=1)
    for part in mine:
        update(shared, part, plan, 0, drafted=False)
    moved = {slot.name for slot in slots(model) if not slot.view(shared.weights).equal(slot.view(before))}
    assert moved == {name for name in names if not name.startswith("mtp")}
    for part in mine:
        update(shared, part, plan, 1, drafted=True)
    assert all(not slot.view(shared.weights).equal(slot.view(before)) for slot in slots(model))
    assert torch.isfinite(shared.weights).all()


def test_the_learning_rate_rises_holds_and_ends_at_zero():
    plan = Plan(steps=1000, warmup_steps=10, descent_share=0.4)
    shares = [plan.lr_share(step) for step in range(1001)]
    assert shares[0] == 0.1
    assert all(share == 1.0 for share in shares[9:601])
    assert shares[800] == pytest.approx(0.5)
    assert shares[1000] == 0
