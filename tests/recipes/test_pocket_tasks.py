"""The pocket model's task generators: right answers, a clean split, the same examples for the same seed."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.pocket import phrases, tasks

seeds = st.integers(0, 2**32)
task_names = st.sampled_from(sorted(tasks.TASKS))


@given(seeds, task_names)
def test_every_answer_is_right(seed: int, task: str):
    example = tasks.draw(task, random.Random(seed))
    assert example.task == task
    match task:
        case "sum":
            a, b = map(int, re.findall(r"\d+", example.question))
            assert int(example.answer) == a + b <= tasks.MAX_SUM
        case "reverse":
            assert example.answer[::-1] in example.question
            assert 3 <= len(example.answer) <= 8
        case "upper":
            assert example.answer.isupper()
            assert example.answer.lower() in example.question
        case "greeting":
            assert example.answer in phrases.GREETINGS.values()
        case _:
            assert example.answer in phrases.QWICK_TOPICS


@given(seeds)
def test_training_never_draws_what_is_held_out(seed: int):
    rng = random.Random(seed)
    assert not any(tasks.draw_training(rng).held_out for _ in range(20))


@given(seeds)
def test_the_same_seed_draws_the_same_examples(seed: int):
    first, second = ([tasks.draw_training(rng) for _ in range(5)] for rng in (random.Random(seed), random.Random(seed)))
    assert first == second


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_sum_and_its_mirror_are_on_one_side(a: int, b: int):
    question = phrases.SUM_QUESTIONS[0]
    assert tasks.sum_example(a, b, question).held_out == tasks.sum_example(b, a, question).held_out


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=8))
def test_a_word_is_on_one_side_in_both_tasks(word: str):
    reverse = tasks.reverse_example(word, phrases.REVERSE_QUESTIONS[0])
    assert reverse.held_out == tasks.upper_example(word, phrases.UPPER_QUESTIONS[0]).held_out


@pytest.mark.parametrize(
    ("task", "least"), [("sum", 400), ("reverse", 400), ("upper", 400), ("greeting", 40), ("qwick", 40)]
)
def test_the_held_out_part_is_large_distinct_and_fixed(task: str, least: int):
    examples = tasks.held_out(task)
    assert all(example.held_out for example in examples)
    assert len({example.question for example in examples}) == len(examples) >= least
    assert tasks.held_out(task) == examples


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="unknown task 'poetry'"):
        tasks.held_out("poetry")


def test_one_question_has_one_answer():
    answers: dict[str, set[str]] = {}
    for example in (*tasks.greeting_examples(), *tasks.qwick_examples()):
        answers.setdefault(example.question.lower(), set()).add(example.answer)
    assert all(len(found) == 1 for found in answers.values())
