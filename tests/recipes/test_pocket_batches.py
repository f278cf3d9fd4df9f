"""Training batches: the loss sits on the answers, and on nothing else."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.pocket import tasks
from recipes.pocket.batches import END, PAD, SUMMANDS, TABLE_ROWS, Renderer, make_batch, training_batches
from recipes.pocket.tokenizer import make_tokenizer

TOKENIZER = make_tokenizer()
RENDERER = Renderer(TOKENIZER)
PAD_ID = TOKENIZER.token_to_id(PAD)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_targets_are_the_answers(seed: int, num: int):
    rng = random.Random(seed)
    conversations = [RENDERER.training(tasks.draw_training(rng), rng) for _ in range(num)]
    batch = make_batch(conversations, PAD_ID)
    for i, conversation in enumerate(conversations):
        answer = [token for token, learned in zip(conversation.ids, conversation.learned, strict=True) if learned]
        mine = batch.trunk_sequences == i
        assert batch.trunk_targets[mine].tolist() == answer
        places = batch.trunk_rows[mine] % batch.tokens.shape[1]
        assert places.tolist() == list(range(len(conversation.ids) - len(answer) - 1, len(conversation.ids) - 1))
    assert batch.draft_targets.tolist() == batch.trunk_targets.tolist()  # every answer token is drafted, too
    assert np.array_equal(batch.draft_rows + 1, batch.trunk_rows)


def test_a_plain_question_is_what_the_template_says():
    example = tasks.sum_example(17, 25, "What is {a} + {b}?")
    conversation = RENDERER.plain(example)
    text = TOKENIZER.decode(conversation.ids, skip_special_tokens=False)
    turns = "<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n"
    assert text == turns + f"<think>\n\n</think>\n\n42{END}"


@given(st.integers(0, 2**32))
def test_a_table_teaches_right_sums_that_are_not_held_out(seed: int):
    table = RENDERER.table(random.Random(seed))
    rows = TOKENIZER.decode(table.ids).splitlines()
    assert len(rows) == TABLE_ROWS
    for row in rows:
        a, b, total = map(int, SUMMANDS.findall(row))
        assert a + b == total
        assert not tasks.sum_example(a, b, "{a}{b}").held_out
    learned = [token for token, is_learned in zip(table.ids, table.learned, strict=True) if is_learned]
    assert TOKENIZER.decode(learned).split() == [SUMMANDS.findall(row)[-1] for row in rows]


def test_batches_are_seeded():
    first, second = (
        next(training_batches(TOKENIZER, 4, lambda index: random.Random(f"seed {index}"))) for _ in range(2)
    )
    assert np.array_equal(first.tokens, second.tokens)
