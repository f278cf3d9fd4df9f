"""Conversations as the official template writes them; what of them is learned; rows that hold them."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qwick.text.chat_template import ChatTemplate
from recipes.pocket import arithmetic, tasks, tools
from recipes.pocket.folder import TEMPLATE_FILE
from recipes.pocket.mixture import LESSONS, TABLE_ROWS, Mixture, table
from recipes.pocket.packing import Conversation, make_batch, pack
from recipes.pocket.rendering import END, NO_THOUGHT, conversation, parts, prompt, written
from recipes.pocket.tokenizer import make_tokenizer

TEMPLATE = ChatTemplate(TEMPLATE_FILE.read_text())
CONTROL = ("<|im_start|>", END)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def official(example, messages, *, think: bool, asking: bool) -> str:
    plain = [{k: v for k, v in m.items() if think or k != "reasoning_content"} for m in messages]
    pieces = TEMPLATE.render(
        plain, think=think, control_tokens=CONTROL, tools=example.tools, add_generation_prompt=asking
    )
    return "".join(piece.text for piece in pieces)


def test_the_template_is_an_official_one():
    assert TEMPLATE.is_known
    assert not TEMPLATE.thinks_by_default(hidden_size=256)


@settings(max_examples=30)
@given(seeds, st.sampled_from(sorted(tasks.TASKS)), st.booleans())
def test_conversations_are_the_templates(seed: int, task: str, think: bool):
    example = tasks.TASKS[task](random.Random(seed))
    whole = "".join(text for text, _ in parts(example, think=think, learn_history=False))
    assert whole == official(example, example.messages, think=think, asking=False)
    last = len(example.messages) - 1
    asked = official(example, example.messages[:last], think=think, asking=True)
    assert prompt(example, last, think=think) == asked
    assert whole == asked + written(example.messages[-1], think=think) + "\n"


@given(seeds, st.booleans())
def test_learned_is_what_the_model_writes(seed: int, think: bool):
    example = tools.draw_call(random.Random(seed), rounds=2)
    current = [written(example.messages[i], think=think) for i in (5, 7)]
    history = [written(example.messages[i], think=False) for i in (1, 3)]
    for with_history, expected in ((False, current), (True, history + current)):
        rendered = parts(example, think=think, learn_history=with_history)
        assert [text for text, learned in rendered if learned] == expected
        assert all(text.endswith(END) for text, learned in rendered if learned)
        assert not any(NO_THOUGHT in text for text, learned in rendered if learned)


def test_with_a_thought_no_answer_without_one_is_learned(tokenizer: Tokenizer):
    example = tools.draw_call(random.Random(1), rounds=2)
    learned = [conversation(tokenizer, example, think=think).learned.count(True) for think in (False, True)]
    without_history = conversation(tokenizer, example, think=True, learn_history=False)
    assert learned[1] == without_history.learned.count(True)
    assert learned[0] > conversation(tokenizer, example, think=False, learn_history=False).learned.count(True)


def test_the_templates_words_on_tools_are_two_tokens(tokenizer: Tokenizer):
    example = tools.draw_call(random.Random(2))
    length = len(conversation(tokenizer, example, think=False).ids)
    assert length < 400  # 300 more otherwise


@given(st.lists(st.integers(1, 30), max_size=60))
def test_packing_places_everything_once_and_nothing_overflows(lengths: list[int]):
    rows = pack(lengths, 30)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 30 for row in rows)
    if lengths:  # best fit: no two rows could be one
        sums = sorted(sum(lengths[i] for i in row) for row in rows)
        assert len(sums) == 1 or sums[0] + sums[1] > 30


def test_a_batch_asks_for_the_learned_tokens_alone():
    first = Conversation([5, 6, 7, 8], [False, False, True, True])
    second = Conversation([9, 10, 11], [False, False, True])
    batch = make_batch([[first, second], [second]], 8, pad_id=0)
    assert batch.tokens.tolist() == [[5, 6, 7, 8, 9, 10, 11, 0], [9, 10, 11, 0, 0, 0, 0, 0]]
    assert batch.starts.nonzero().tolist() == [[0, 0], [0, 4], [0, 7], [1, 0], [1, 3]]
    assert batch.trunk_rows.tolist() == [1, 2, 5, 9]
    assert batch.trunk_targets.tolist() == [7, 8, 11, 11]
    assert batch.draft_rows.tolist() == [0, 1, 4, 8]
    assert batch.draft_targets.tolist() == [7, 8, 11, 11]
    with pytest.raises(ValueError, match="a row of 6 tokens cannot hold 7"):
        make_batch([[first, second]], 6, pad_id=0)


def test_batches_are_full_and_the_same_whenever_they_are_drawn(tokenizer: Tokenizer):
    mixture, again = (Mixture(tokenizer, 2, 512, "test") for _ in range(2))
    batches = [mixture.batch(step) for step in (0, 1, 40)]
    assert batches[2].tokens.equal(again.batch(40).tokens)
    assert batches[0].tokens.equal(again.batch(0).tokens)
    assert not batches[0].tokens.equal(batches[1].tokens)
    pad = (mixture.batch(3).tokens == tokenizer.token_to_id("<|endoftext|>")).double().mean()
    assert pad < 0.05


def test_tables_teach_right_sums_that_are_not_held_out(tokenizer: Tokenizer):
    rng = random.Random(0)
    for _ in range(20):
        found = table(tokenizer, rng)
        for line in tokenizer.decode(found.ids).splitlines():
            a, b, total = map(int, re.findall(r"\d+", line))
            assert a + b == total
            assert not arithmetic.sum_example("sum", a, b, "").held_out
        learned = tokenizer.decode([i for i, is_learned in zip(found.ids, found.learned, strict=True) if is_learned])
        assert len(learned.split()) == TABLE_ROWS


def test_every_lessons_shares_are_one():
    assert all(abs(sum(lesson.shares.values()) - 1) < 1e-9 for lesson in LESSONS)
