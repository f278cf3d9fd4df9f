"""Small checks while training: held-out answers that would be wholly right.

Teacher-forced, which is the same as greedy: the text is right exactly if every argmax is.
"""

import torch
from tokenizers import Tokenizer

from recipes.pocket import tasks
from recipes.pocket.network import PocketModel
from recipes.pocket.packing import Conversation, make_batch
from recipes.pocket.rendering import conversation

NUM = 24
ROWS = 8
# Beside every task without a thought, these with one.
THOUGHT = ("sum4", "difference", "json", "tool")


Checks = dict[str, list[Conversation]]


@torch.no_grad()
def scores(model: PocketModel, checks: Checks, pad_id: int) -> dict[str, float]:
    """By task, `-t` with a thought; `mtp`: share of the drafts that are right."""
    found: dict[str, float] = {}
    drafted = drafts = 0
    for name, conversations in checks.items():
        right = 0
        for i in range(0, len(conversations), ROWS):
            some = conversations[i : i + ROWS]
            batch = make_batch([[c] for c in some], max(len(c.ids) for c in some), pad_id)
            hidden = model(batch.tokens, batch.starts)
            wrong = model.logits(hidden, batch.trunk_rows).argmax(-1) != batch.trunk_targets
            right += len(some) - len(set((batch.trunk_rows[wrong] // batch.tokens.shape[1]).tolist()))
            guesses = model.logits(model.draft(batch.tokens, batch.starts, hidden), batch.draft_rows).argmax(-1)
            drafted += int((guesses == batch.draft_targets).sum())
            drafts += len(guesses)
        found[name] = right / len(conversations)
    return {**found, "mtp": drafted / drafts}


def checks_of(tokenizer: Tokenizer) -> Checks:
    found: Checks = {}
    for task in tasks.TASKS:
        for think in (False, True) if task in THOUGHT else (False,):
            examples = tasks.held_out(task, NUM)
            rendered = [conversation(tokenizer, example, think=think, learn_history=False) for example in examples]
            found[task + ("-t" if think else "")] = sorted(rendered, key=lambda c: len(c.ids))
    return found
