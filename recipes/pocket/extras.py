"""What is reported as reached: days and months, sorting, numbers in words, a key in a long text."""

import random

from recipes.pocket.entities import english_words
from recipes.pocket.example import Example, exchange
from recipes.pocket.records import MONTHS

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()  # fmt: skip
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def draw_calendar(rng: random.Random) -> Example:
    """A day or month some steps before or after another one."""
    names, unit, asked = rng.choice(((DAYS, "day", "Which day is"), (MONTHS, "month", "Which month is")))
    begin, steps = rng.randrange(len(names)), rng.randint(1, 30)
    back = rng.random() < 0.5
    way, units = "before" if back else "after", unit if steps == 1 else f"{unit}s"
    question = f"{asked} {steps} {units} {way} {names[begin]}?"
    left = steps % len(names)
    walked = [names[(begin + (-i if back else i)) % len(names)] for i in range(left + 1)]
    thought = f"{steps} {units} are like {left}: {', '.join(walked)}."
    return exchange("calendar", question, question, walked[-1], thought)


def draw_sorting(rng: random.Random) -> Example:
    numbers = rng.sample(range(100), rng.randint(3, 6))
    given, answer = (", ".join(map(str, x)) for x in (numbers, sorted(numbers)))
    question = rng.choice(("Sort {x}.", "Sort these numbers: {x}", "Put {x} in order.")).format(x=given)
    return exchange("sorting", given, question, answer, "I take the smallest first.")


def in_words(n: int) -> str:
    """0 to 9,999, without `and`."""
    if n < 20:
        return _SMALL[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_SMALL[n % 10]}" if n % 10 else "")
    unit, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    return f"{in_words(n // unit)} {name}" + (f" {in_words(n % unit)}" if n % unit else "")


def draw_number(rng: random.Random) -> Example:
    n = rng.randint(0, 10 ** rng.choice((2, 3, 4, 4)) - 1)
    if rng.random() < 0.5:
        question, answer = rng.choice(("Write {n} in words.", "Spell out {n}.", "{n} in words?")), in_words(n)
        return exchange("numbers", f"{n}", question.format(n=n), answer, f"I read {n} from the left.")
    question = rng.choice(("Write {n} in digits.", "{n} in digits?", "Which number is {n}?")).format(n=in_words(n))
    return exchange("numbers", f"{n}", question, str(n), "I write one digit after the other.")


_FILLER = (
    "The {a} is near the {b}.", "Nobody saw the {a}.", "A {a} came with the {b}.", "We like the {a} and the {b}.",
    "The {a} was on the table.", "There is no {a} in the {b}.", "They took the {a} to the {b}.",
)  # fmt: skip


def draw_recall(rng: random.Random, sentences: int | None = None) -> Example:
    """A key among filler sentences (four to forty when drawn for training)."""
    num = sentences or rng.randint(4, 40)
    key = str(rng.randint(1000, 99999))
    text = [
        rng.choice(_FILLER).format(a=rng.choice(english_words()), b=rng.choice(english_words())) for _ in range(num)
    ]
    text.insert(rng.randint(0, num), f"The key is {key}.")
    question = f"{' '.join(text)}\nWhat is the key?"
    return exchange("recall", f"{num} {key}", question, f"The key is {key}.", f"I read that it is {key}.")
