"""JSON from a sentence: who, when, how much."""

import json
import random

from recipes.pocket.entities import full_name
from recipes.pocket.example import Example, exchange

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

_SENTENCES = (
    "{name} paid {amount} on {date}.",
    "On {date}, {name} paid {amount}.",
    "On {date} we received {amount} from {name}.",
    "We sent {amount} to {name} on {date}.",
    "{name} owes us {amount} since {date}.",
    "The invoice of {date} for {name} is {amount}.",
    "{amount} were paid by {name} on {date}.",
    "{name} bought a ticket for {amount} on {date}.",
    "On {date} {name} was charged {amount}.",
    "A refund of {amount} went to {name} on {date}.",
)
_INSTRUCTIONS = (
    "Extract name, date and amount as JSON: {s}",
    "Write name, date and amount as JSON. {s}",
    "{s} Give me name, date and amount as JSON.",
    "Turn this into JSON with name, date and amount: {s}",
    "JSON with the keys name, date and amount, please: {s}",
    "{s}\nAnswer as JSON with the keys name, date, amount.",
)
_AMOUNTS = ("{n} euros", "{n} dollars", "${n}", "{n} pounds", "{n} EUR", "{n} USD")


def draw_record(rng: random.Random) -> Example:
    name = full_name(rng)
    year, month, day = rng.randint(1990, 2039), rng.randint(1, 12), rng.randint(1, 28)
    whole = str(rng.randint(1, 10 ** rng.choice((2, 3, 4)) - 1))
    amount = whole if rng.random() < 0.5 else f"{whole}.{rng.randint(1, 9)}{rng.randint(1, 9)}"
    written = rng.choice(
        (
            f"{day} {MONTHS[month - 1]} {year}", f"{MONTHS[month - 1]} {day}, {year}", f"{year}-{month:02}-{day:02}",
        )
    )  # fmt: skip
    said = rng.choice(_SENTENCES).format(name=name, date=written, amount=rng.choice(_AMOUNTS).format(n=amount))
    date = f"{year}-{month:02}-{day:02}"
    answer = f'{{"name": {json.dumps(name)}, "date": "{date}", "amount": {amount}}}'
    thought = f"The name is {name}, the date is {written}, the amount is {amount}."
    return exchange("json", f"{name} {date} {amount}", rng.choice(_INSTRUCTIONS).format(s=said), answer, thought)
