"""Tool calls: three functions are offered under names that vary, one or two are called, and the results are told."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recipes.pocket.entities import city, english_words, first_name
from recipes.pocket.example import Example, Message, Tool, assistant, user

Draw = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Skill:
    """What a function can do. `{name}` in a text is an argument or a result.

    names        what the function may be called
    parameters   by slot: what the parameter may be called, its JSON type, how a value is drawn
    questions    of one slot or more; `result` draws what the function returns, `told` says it
    """

    names: tuple[str, ...]
    description: str
    parameters: Mapping[str, tuple[tuple[str, ...], str, Draw]]
    questions: tuple[str, ...]
    result: Mapping[str, Draw]
    told: str


def _number(low: int, high: int) -> Draw:
    return lambda rng: str(rng.randint(low, high))


def _one_of(text: str) -> Draw:
    return lambda rng: rng.choice(text.split())


def _amount(rng: random.Random) -> str:
    return f"{rng.randint(1, 999)}.{rng.randint(1, 9)}"


_CITY = (("city", "place", "town", "location"), "string", city)
_PERSON = (("name", "person", "contact"), "string", first_name)
_CURRENCY = _one_of("EUR USD GBP CHF JPY SEK")

SKILLS = (
    Skill(("get_weather", "weather", "weather_report", "current_weather"), "Get the weather of a city.",
          {"x": _CITY},
          ("What is the weather in {x}?", "How is the weather in {x}?", "Tell me the weather in {x}.",
           "Is it warm in {x}?"),
          {"degrees": _number(-9, 39), "sky": _one_of("sunny cloudy rainy windy clear")},
          "It is {sky} in {x}, at {degrees} degrees."),
    Skill(("get_time", "time", "local_time", "clock"), "Get the time in a city.",
          {"x": _CITY},
          ("What time is it in {x}?", "Tell me the time in {x}.", "How late is it in {x}?"),
          {"time": lambda rng: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"},
          "It is {time} in {x}."),
    Skill(("find_phone", "phone_number", "contacts", "search_phone"), "Find the phone number of a person.",
          {"x": _PERSON},
          ("What is the phone number of {x}?", "Find the phone number of {x}.", "How can I call {x}?"),
          {"phone": _number(100000, 999999)},
          "The phone number of {x} is {phone}."),
    Skill(("convert", "convert_money", "exchange", "currency"), "Convert money to another currency.",
          {"n": (("amount", "value", "money"), "number", _number(1, 999)),
           "c": (("from", "source"), "string", _CURRENCY), "d": (("to", "target"), "string", _CURRENCY)},
          ("How much are {n} {c} in {d}?", "Convert {n} {c} to {d}.", "What are {n} {c} in {d}?"),
          {"result": _amount},
          "{n} {c} are {result} {d}."),
    Skill(("multiply", "times", "product", "calculate_product"), "Multiply two numbers.",
          {"n": (("a", "x", "first"), "integer", _number(2, 999)),
           "m": (("b", "y", "second"), "integer", _number(2, 999))},
          ("What is {n} times {m}?", "Multiply {n} by {m}.", "How much is {n} times {m}?"),
          {"result": _number(10, 99999)},
          "{n} times {m} is {result}."),
    Skill(("set_timer", "timer", "start_timer", "alarm"), "Start a timer.",
          {"n": (("minutes", "duration", "length"), "integer", _number(1, 99))},
          ("Set a timer to {n} minutes.", "Start a timer of {n} minutes.", "Wake me in {n} minutes."),
          {"state": lambda rng: "ok"},
          "The timer is set to {n} minutes."),
    Skill(("switch_light", "light", "set_light", "lamp"), "Switch a light on or off.",
          {"r": (("room", "where", "light"), "string", _one_of("kitchen bathroom bedroom garden hall office garage")),
           "s": (("state", "switch", "mode"), "string", _one_of("on off"))},
          ("Switch the light in the {r} {s}.", "Turn the light in the {r} {s}.", "Light in the {r} {s}, please."),
          {"state": lambda rng: "ok"},
          "The light in the {r} is {s}."),
    Skill(("send_message", "message", "send_text", "write_message"), "Send a message to a person.",
          {"x": _PERSON, "t": (("text", "message", "content"), "string",
                               lambda rng: " ".join(rng.sample(english_words(), rng.randint(1, 2))))},
          ("Send {x} the message: {t}", "Tell {x} this: {t}", "Write to {x}: {t}"),
          {"state": lambda rng: "sent"},
          "The message to {x} is sent."),
    Skill(("get_price", "price", "stock_price", "quote"), "Get the price of a share.",
          {"x": (("symbol", "share", "stock"), "string",
                 lambda rng: "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(2, 4))))},
          ("What is the price of {x}?", "How much is a share of {x}?", "Get me the price of {x}."),
          {"price": _amount},
          "A share of {x} costs {price}."),
    Skill(("get_distance", "distance", "route", "measure_distance"), "Get the distance between two cities.",
          {"x": (("from", "start", "origin"), "string", city), "y": (("to", "end", "destination"), "string", city)},
          ("How far is it from {x} to {y}?", "What is the distance from {x} to {y}?", "How far is {y} from {x}?"),
          {"km": _number(10, 9999)},
          "From {x} to {y} it is {km} km."),
    Skill(("translate", "translate_word", "dictionary", "translator"), "Translate a word.",
          {"x": (("word", "text"), "string", lambda rng: rng.choice(english_words())),
           "l": (("language", "target", "to"), "string", _one_of("French German Spanish Italian Polish Dutch"))},
          ("Translate {x} into {l}.", "What is {x} in {l}?", "How do you say {x} in {l}?"),
          {"word": lambda rng: first_name(rng).lower()},
          "In {l} it is {word}."),
    Skill(("count_people", "population", "get_population", "inhabitants"), "Count the people of a city.",
          {"x": _CITY},
          ("How many people live in {x}?", "What is the population of {x}?", "How large is {x}?"),
          {"people": _number(1000, 9999999)},
          "{people} people live in {x}."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offered:
    """A skill under the names it has in one conversation."""

    skill: Skill
    name: str
    names: Mapping[str, str]  # slot -> parameter

    @classmethod
    def draw(cls, skill: Skill, rng: random.Random) -> "Offered":
        names = {slot: rng.choice(choices) for slot, (choices, _, _) in skill.parameters.items()}
        return cls(skill, rng.choice(skill.names), names)

    @property
    def schema(self) -> Tool:
        properties = {self.names[slot]: {"type": kind} for slot, (_, kind, _) in self.skill.parameters.items()}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        described = {"name": self.name, "description": self.skill.description, "parameters": parameters}
        return {"type": "function", "function": described}


@dataclass(frozen=True, slots=True)
class Use:
    """A question that one call answers."""

    question: str
    call: Mapping[str, Any]
    result: str
    told: str

    @classmethod
    def draw(cls, offered: Offered, rng: random.Random, question: str | None = None) -> "Use":
        skill = offered.skill
        while True:
            slots = {slot: make(rng) for slot, (_, _, make) in skill.parameters.items()}
            if len(set(slots.values())) == len(slots):
                break
        results = {name: make(rng) for name, make in skill.result.items()}
        arguments = {offered.names[slot]: value for slot, value in slots.items()}
        call = {"type": "function", "function": {"name": offered.name, "arguments": arguments}}
        values = {name: int(x) if x.lstrip("-").isdigit() else x for name, x in results.items()}
        asked = (question or rng.choice(skill.questions)).format(**slots)
        return cls(asked, call, json.dumps(values), skill.told.format(**slots, **results))


def draw_tools(rng: random.Random, alike: float = 0.0) -> tuple[Offered, ...]:
    """Three skills, no two under the same name; so often, `alike` ones, whose parameters are easily taken for one
    another's."""
    while True:
        skills = _alike(rng) if alike and rng.random() < alike else rng.sample(SKILLS, 3)
        offered = tuple(Offered.draw(skill, rng) for skill in skills)
        if len({o.name for o in offered}) == 3:
            return offered


def _alike(rng: random.Random) -> list[Skill]:
    """Skills that all want a city, or a person's name, as far as there are three."""
    shared = rng.choice((_CITY, _PERSON))
    group = [skill for skill in SKILLS if shared in skill.parameters.values()]
    others = [skill for skill in SKILLS if skill not in group]
    return [*rng.sample(group, min(3, len(group))), *rng.sample(others, max(0, 3 - len(group)))]


def draw_call(rng: random.Random, *, rounds: int = 1, alike: float = 0.0) -> Example:
    """A question, a call, its result, an answer; `rounds` of them."""
    offered = draw_tools(rng, alike)
    messages: list[Message] = []
    for _ in range(rounds):
        use = Use.draw(rng.choice(offered), rng)
        messages += _round([use], use.question)
    return _example("tool", offered, messages)


def draw_parallel(rng: random.Random, *, rounds: int = 1, alike: float = 0.0, one_function: float = 0.5) -> Example:
    """The same with two calls at once: of one function (so often), or of two."""
    offered = draw_tools(rng, alike)
    messages: list[Message] = []
    for _ in range(rounds):
        two = [rng.choice(offered)] * 2 if rng.random() < one_function else rng.sample(offered, 2)
        pair = [Use.draw(o, rng) for o in two]
        joined = rng.choice(("{a} {b}", "{a} And {b}", "Two things: {a} {b}", "{a} Also: {b}"))
        messages += _round(pair, joined.format(a=pair[0].question, b=pair[1].question))
    return _example("parallel", offered, messages)


def _round(uses: list[Use], question: str) -> list[Message]:
    names = " and ".join(use.call["function"]["name"] for use in uses)
    calling = {**assistant("", f"I need {names}."), "tool_calls": [use.call for use in uses]}
    results: list[Message] = [{"role": "tool", "content": use.result} for use in uses]
    told = assistant(" ".join(use.told for use in uses), "I have the result.")
    return [user(question), calling, *results, told]


def _example(task: str, offered: tuple[Offered, ...], messages: list[Message]) -> Example:
    key = "\n".join(f"{task} {message['content']}" for message in messages if message["role"] == "user")
    return Example(task, key, tuple(messages), tuple(o.schema for o in offered))
