"""How far one draft of the MTP block goes, by torch: the engine does not draft yet."""

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from qwick.model.load import load_network
from qwick.model.qwen3_5 import Qwen3_5
from qwick.model.rope import RopeTable
from qwick.model.source import open_source
from qwick.ops.contract import Batch, Role, Run
from qwick.ops.torch import TorchBackend, TorchOps, TorchStep
from qwick.store import find_model
from recipes.pocket.example import Example
from recipes.pocket.packing import Conversation
from recipes.pocket.rendering import conversation


def accepted_length(model: str, examples: Sequence[Example]) -> float:
    """Mean tokens a step with one draft: one, and one more where the draft is what the trunk says next.

    Over the right answers to the examples, every second with a thought: where the trunk is right, these are what it
    writes.
    """
    found = find_model(model)
    with open_source(found) as source:
        network: Qwen3_5[torch.Tensor] = load_network(source, TorchBackend())
    tokenizer = Tokenizer.from_file(str(found / "tokenizer.json"))
    tokens = steps = 0
    for i, example in enumerate(examples):
        asked = conversation(tokenizer, example, think=i % 2 == 1, learn_history=False)
        accepted = _drafts(network, asked)
        place = 0
        while place < len(accepted):
            place += 1 + int(accepted[place])
            steps += 1
        tokens += len(accepted)
    return tokens / steps


@torch.no_grad()
def _drafts(network: Qwen3_5[torch.Tensor], asked: Conversation) -> list[bool]:
    """For every answer's token: whether the draft made beside it is the trunk's next one; of the last token none is."""
    ids = np.array(asked.ids, np.int32)
    rows = np.flatnonzero(np.array(asked.learned)[1:]).astype(np.int32)
    cos, sin = RopeTable(network.config).angles(np.arange(len(ids)))
    runs = (Run(len(ids), Role.PROMPT, 0, 0, ()),)
    trunk = network.forward(TorchOps(64), TorchStep(Batch(ids, cos, sin, runs, rows), None))
    # Row t: hidden t and token t + 1 -> token t + 2.
    batch = Batch(np.roll(ids, -1), cos, sin, runs, rows)
    draft = network.draft(TorchOps(64), TorchStep(batch, None, hidden=trunk.hidden))
    assert trunk.head is not None
    assert draft.head is not None
    says, drafts = trunk.head.argmax(-1).numpy(), draft.head.argmax(-1).numpy()
    follows = np.append(np.diff(rows) == 1, False)
    return [bool(follows[i] and drafts[i] == says[i + 1]) for i in range(len(rows))]
