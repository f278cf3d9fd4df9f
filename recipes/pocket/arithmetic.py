"""Sums and differences to 9,999. The thought goes digit by digit from the right, so that no step is hard."""

import random
import re

from recipes.pocket.example import Example, exchange
from recipes.pocket.phrases import DIFFERENCE_QUESTIONS, SUM_QUESTIONS

MAX_NUMBER = 9999
MAX_EASY_SUM = 99


def sum_thought(a: int, b: int) -> str:
    """4821 + 77 -> lines `1+7+0=08`: digits, carry in; carry out and digit. The answer is the last digits upwards."""
    lines: list[str] = []
    carry = 0
    for x, y in _columns(a, b):
        carry_out, digit = divmod(x + y + carry, 10)
        lines.append(f"{x}+{y}+{carry}={carry_out}{digit}")
        carry = carry_out
    return "\n".join(lines)


def difference_thought(a: int, b: int) -> str:
    """The same with borrows; a >= b."""
    lines: list[str] = []
    borrow = 0
    for x, y in _columns(a, b):
        digit = x - y - borrow
        lines.append(f"{x}-{y}-{borrow}={int(digit < 0)}{digit % 10}")
        borrow = int(digit < 0)
    return "\n".join(lines)


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    width = max(len(str(a)), len(str(b)))
    return [(int(x), int(y)) for x, y in zip(f"{a:0{width}}"[::-1], f"{b:0{width}}"[::-1], strict=True)]


def draw_sum(rng: random.Random) -> Example:
    """Numbers of one to four digits, more often long ones; the sum has at most four."""
    while True:
        a, b = _number(rng), _number(rng)
        if a + b <= MAX_NUMBER:
            return sum_example("sum4", a, b, rng.choice(SUM_QUESTIONS))


def draw_difference(rng: random.Random) -> Example:
    a, b = sorted((_number(rng), _number(rng)), reverse=True)
    question = rng.choice(DIFFERENCE_QUESTIONS).format(a=a, b=b)
    return exchange("difference", f"{a} {b}", question, str(a - b), difference_thought(a, b))


def draw_easy_sum(rng: random.Random) -> Example:
    """To 99, which the model is to know without thinking."""
    a = rng.randint(0, MAX_EASY_SUM)
    b = rng.randint(0, MAX_EASY_SUM - a)
    if rng.random() < 0.5:
        a, b = b, a
    return sum_example("sum", a, b, rng.choice(SUM_QUESTIONS))


def sum_example(task: str, a: int, b: int, question: str) -> Example:
    """One key for a + b and b + a, and for both tasks."""
    found = exchange(task, "", question.format(a=a, b=b), str(a + b), sum_thought(a, b))
    return Example(task, f"sum {min(a, b)} {max(a, b)}", found.messages)


def summands(example: Example) -> tuple[int, int]:
    """Of a sum, as asked."""
    a, b = re.findall(r"\d+", example.question)
    return int(a), int(b)


def _number(rng: random.Random) -> int:
    digits = rng.choices((1, 2, 3, 4), (1, 2, 3, 6))[0]
    return rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)
