"""The pocket model's task generators: right answers, a clean split, the same examples for the same seed."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.pocket import arithmetic, dialogs, extras, phrases, records, tasks, tools
from recipes.pocket.example import is_held_out

seeds = st.integers(0, 2**32)
task_names = st.sampled_from(sorted(tasks.TASKS))


def numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


@given(seeds)
def test_sums_and_differences_are_right_and_so_is_the_way_there(seed: int):
    for task, sign in (("sum", 1), ("sum4", 1), ("difference", -1)):
        example = tasks.TASKS[task](random.Random(seed))
        first, second = numbers(example.question)
        if example.question.startswith("Subtract"):
            first, second = second, first
        result = first + sign * second
        assert 0 <= result <= (arithmetic.MAX_EASY_SUM if task == "sum" else arithmetic.MAX_NUMBER)
        assert example.answer == str(result)
        lines = str(example.messages[-1]["reasoning_content"]).split("\n")
        assert int("".join(line[-1] for line in reversed(lines))) == result % 10 ** len(lines)
        for line in lines:  # each is true by itself
            x, y, carried, out = map(int, re.fullmatch(r"(\d)[+-](\d)[+-](\d)=(\d\d)", line).groups())  # type: ignore[union-attr]
            assert (x + y + carried == out) if sign > 0 else (x - y - carried == out % 10 - 10 * (out // 10))


@given(seeds)
def test_words_are_spelled_rightly(seed: int):
    backwards, capitals = (tasks.TASKS[task](random.Random(seed)) for task in ("reverse", "upper"))
    assert backwards.answer[::-1] in backwards.question
    assert capitals.answer.isupper()
    assert capitals.answer.lower() in capitals.question


@given(seeds)
def test_a_record_holds_what_the_sentence_says(seed: int):
    example = records.draw_record(random.Random(seed))
    record = json.loads(example.answer)
    assert list(record) == ["name", "date", "amount"]
    assert record["name"] in example.question
    year, month, day = record["date"].split("-")
    written = (record["date"], f"{int(day)} {records.MONTHS[int(month) - 1]} {year}",
               f"{records.MONTHS[int(month) - 1]} {int(day)}, {year}")  # fmt: skip
    assert any(form in example.question for form in written)
    assert re.search(rf"(?<![\d.]){re.escape(example.answer.split()[-1][:-1])}(?!\d)", example.question)


@given(seeds, st.sampled_from([tools.draw_call, tools.draw_parallel]), st.integers(1, 3))
def test_calls_fit_the_functions_and_answers_the_results(seed: int, draw, rounds: int):
    example = draw(random.Random(seed), rounds=rounds)
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
    assert len(offered) == 3
    for i, message in enumerate(example.messages):
        calls = message.get("tool_calls", ())
        for j, call in enumerate(calls):
            function = call["function"]
            assert list(function["arguments"]) == offered[function["name"]]["required"]
            question, result = example.messages[i - 1]["content"], example.messages[i + 1 + j]
            assert all(value in question for value in function["arguments"].values())
            assert result["role"] == "tool"
            told = example.messages[i + 1 + len(calls)]["content"]
            found = [str(x) for x in json.loads(result["content"]).values() if x not in ("ok", "sent")]
            assert all(x in told for x in found)
    assert sum(len(m.get("tool_calls", ())) for m in example.messages) == rounds * (
        2 if example.task == "parallel" else 1
    )


@given(seeds)
def test_a_fact_was_told_within_six_turns_and_nothing_contradicts_it(seed: int):
    example = tasks.TASKS["facts"](random.Random(seed))
    assert len(example.messages) <= 2 * (dialogs.MAX_TURNS_BACK + 1)
    value = str(example.messages[-1]["reasoning_content"]).removeprefix("I was told: ").removesuffix(".")
    assert value in example.answer
    assert any(value in m["content"] for m in example.messages[:-2] if m["role"] == "user")


@given(seeds)
def test_the_name_is_the_system_prompts(seed: int):
    example = dialogs.draw_name(random.Random(seed))
    assert example.answer.removeprefix("I am ").removesuffix(".") in example.messages[0]["content"]


@given(seeds)
def test_extras_are_right(seed: int):
    rng = random.Random(seed)
    calendar, sorting, recall = extras.draw_calendar(rng), extras.draw_sorting(rng), extras.draw_recall(rng)
    names = extras.DAYS if calendar.answer in extras.DAYS else records.MONTHS
    begin = next(i for i, name in enumerate(names) if calendar.question.endswith(f"{name}?"))
    steps = numbers(calendar.question)[0] * (-1 if "before" in calendar.question else 1)
    assert names[(begin + steps) % len(names)] == calendar.answer
    assert numbers(sorting.answer) == sorted(numbers(sorting.question))
    assert recall.answer.rstrip(".") in recall.question.replace("The key", "The key")


def test_numbers_in_words():
    expected = {0: "zero", 13: "thirteen", 40: "forty", 99: "ninety-nine", 300: "three hundred",
                4021: "four thousand twenty-one", 9999: "nine thousand nine hundred ninety-nine"}  # fmt: skip
    assert {n: extras.in_words(n) for n in expected} == expected
    assert len({extras.in_words(n) for n in range(10_000)}) == 10_000


@settings(max_examples=20)
@given(seeds, task_names)
def test_training_never_draws_what_is_held_out(seed: int, task: str):
    assert not tasks.draw_training(task, random.Random(seed)).held_out


@settings(max_examples=20)
@given(seeds, task_names)
def test_the_same_seed_draws_the_same_examples(seed: int, task: str):
    first, second = (tasks.draw_training(task, random.Random(seed)) for _ in range(2))
    assert first == second


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_sum_and_its_mirror_are_on_one_side_in_both_tasks(a: int, b: int):
    question = phrases.SUM_QUESTIONS[0]
    sides = {
        arithmetic.sum_example(task, x, y, question).held_out for task in ("sum", "sum4") for x, y in ((a, b), (b, a))
    }
    assert len(sides) == 1


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=8))
def test_a_word_is_on_one_side_in_both_tasks(word: str):
    reverse = tasks.reverse_example(word, phrases.REVERSE_QUESTIONS[0])
    assert reverse.held_out == tasks.upper_example(word, phrases.UPPER_QUESTIONS[0]).held_out


def test_of_several_questions_none_may_be_held_out():
    rng = random.Random(0)
    examples = [tools.draw_call(rng, rounds=3) for _ in range(100)]
    for example in examples:
        asked = [m["content"] for m in example.messages if m["role"] == "user"]
        assert example.held_out == any(is_held_out(f"tool {question}") for question in asked)
    assert {example.held_out for example in examples} == {False, True}


# Where fewer than 300 can be asked at all: days and months have 1,140 questions.
@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_the_held_out_part_is_large_distinct_and_fixed(task: str):
    examples = tasks.held_out(task)
    assert all(example.held_out for example in examples)
    prompts = {json.dumps([example.tools, example.messages[:-1]]) for example in examples}
    assert len(prompts) == len(examples) >= (100 if task == "calendar" else 300)
    assert tasks.held_out(task) == examples


def test_one_question_has_one_answer():
    answers: dict[str, set[str]] = {}
    for example in (*tasks.greeting_examples(), *tasks.qwick_examples()):
        answers.setdefault(example.question.lower(), set()).add(example.answer)
    assert all(len(found) == 1 for found in answers.values())
