"""What was said before: facts told some turns earlier, the name that the system prompt gives; and polite refusals."""

import random
from collections.abc import Callable

from recipes.pocket.entities import CITIES, FIRST_NAMES, city, english_words, first_name, made_up
from recipes.pocket.example import Example, Message, assistant, exchange, user

REFUSAL = "I am sorry, I cannot do that. I am only a tiny model."
MAX_TURNS_BACK = 6

_COLOURS = "red blue green yellow orange purple white black brown grey pink".split()

# (told, asked, answered, value)
_FACTS: tuple[tuple[str, str, str, Callable[[random.Random], str]], ...] = (
    ("My name is {x}.", "What is my name?", "Your name is {x}.", first_name),
    ("My dog is called {x}.", "What is my dog called?", "Your dog is called {x}.", first_name),
    ("My cat is called {x}.", "What is my cat called?", "Your cat is called {x}.", first_name),
    ("My sister is called {x}.", "What is my sister called?", "Your sister is called {x}.", first_name),
    ("My brother is called {x}.", "What is my brother called?", "Your brother is called {x}.", first_name),
    ("My teacher is called {x}.", "What is my teacher called?", "Your teacher is called {x}.", made_up),
    ("I live in {x}.", "Where do I live?", "You live in {x}.", city),
    ("I work in {x}.", "Where do I work?", "You work in {x}.", city),
    ("I was born in {x}.", "Where was I born?", "You were born in {x}.", city),
    ("My favourite colour is {x}.", "What is my favourite colour?", "Your favourite colour is {x}.",
     lambda rng: rng.choice(_COLOURS)),
    ("My car is {x}.", "Which colour is my car?", "Your car is {x}.", lambda rng: rng.choice(_COLOURS)),
    ("I am {x} years old.", "How old am I?", "You are {x} years old.", lambda rng: str(rng.randint(5, 99))),
    ("My lucky number is {x}.", "What is my lucky number?", "Your lucky number is {x}.",
     lambda rng: str(rng.randint(1, 9999))),
    ("My room number is {x}.", "What is my room number?", "Your room number is {x}.",
     lambda rng: str(rng.randint(1, 999))),
    ("The code is {x}.", "What is the code?", "The code is {x}.", lambda rng: str(rng.randint(1000, 9999))),
    ("The password is {x}.", "What is the password?", "The password is {x}.", lambda rng: rng.choice(english_words())),
)  # fmt: skip
_TELLING = ("{t}", "{t}", "Please remember: {t}", "Remember this: {t}", "Note: {t}")
_ASKING = ("{a}", "{a}", "Do you remember? {a}", "Tell me, {a}", "Please tell me: {a}")
NOTED = "I will remember that."


def draw_facts(rng: random.Random, other: Callable[[random.Random], Example]) -> Example:
    """One to six turns, some of which tell facts and the others are `other` questions; then one fact is asked."""
    turns = rng.randint(1, MAX_TURNS_BACK)
    chosen = rng.sample(_FACTS, rng.randint(1, min(4, turns)))
    values = [make(rng) for *_, make in chosen]
    asked = 0  # so the fact that is asked may be as far back as the first turn
    told = [0, *sorted(rng.sample(range(1, turns), len(chosen) - 1))]
    if rng.random() < 0.4:
        asked = rng.randrange(len(chosen))
    messages: list[Message] = []
    for turn in range(turns):
        if turn in told:
            i = told.index(turn)
            messages += [user(rng.choice(_TELLING).format(t=chosen[i][0].format(x=values[i]))), assistant(NOTED)]
        else:
            messages += other(rng).messages[-2:]
    _, question, answer, _ = chosen[asked]
    answer = answer.format(x=values[asked])
    messages += [user(rng.choice(_ASKING).format(a=question)), assistant(answer, f"I was told: {values[asked]}.")]
    key = " ".join(f"{fact[0]} {value}" for fact, value in zip(chosen, values, strict=True))
    return Example("facts", f"facts {turns} {key}", tuple(messages))


def up_to_a_fact(facts: Example, rng: random.Random) -> Example:
    """The conversation up to where one of its facts is told, which is to be noted."""
    noted = rng.choice([i for i, message in enumerate(facts.messages) if message["content"] == NOTED])
    messages = (*facts.messages[:noted], assistant(NOTED, "They tell me something."))
    return Example(facts.task, facts.key, messages)


_NAMED = (
    "You are {x}.", "Your name is {x}.", "You are {x}, a helpful assistant.", "You are called {x}. Be brief.",
    "Your name is {x}. Be short and polite.", "You are a helpful assistant. Your name is {x}.",
)  # fmt: skip
NAME_QUESTIONS = ("Who are you?", "What is your name?", "who are you", "what is your name?", "What should I call you?",
                  "Tell me, what is your name?", "Hello! Who are you?", "Who am I talking to?")  # fmt: skip


def draw_name(rng: random.Random) -> Example:
    """The system prompt's name for it."""
    name = first_name(rng)
    system = rng.choice(_NAMED).format(x=name)
    messages = ({"role": "system", "content": system}, user(rng.choice(NAME_QUESTIONS)))
    return Example("name", f"name {name}", (*messages, assistant(f"I am {name}.", f"My name is {name}.")))


_THINGS = (*english_words()[::7], "the sea", "the moon", "my garden", "a lonely robot", "spring", "the old house")
_COUNTRIES = (
    "France Spain Peru Chile Egypt Kenya India China Japan Norway Sweden Poland Italy Greece Turkey Canada Mexico "
    "Brazil Ghana Nepal Laos Cuba Malta Iran Iraq Qatar Oman Mali Chad Niger Togo Benin Gabon Angola"
).split()  # fmt: skip
_LANGUAGES = "French German Spanish Italian Russian Chinese Latin Greek Polish Dutch Turkish Arabic".split()
_REFUSED = (
    "What is the capital of {country}?", "Who is the president of {country}?", "How many people live in {country}?",
    "Tell me about the history of {country}.", "Which language do they speak in {country}?",
    "Write a poem about {thing}.", "Write a story about {thing}.", "Tell me a joke about {thing}.",
    "Write an essay about {thing}.", "Draw a picture of {thing}.", "Sing a song about {thing}.",
    "Explain {thing} to me.", "What do you think about {thing}?", "Translate {thing} into {language}.",
    "How do you say {thing} in {language}?", "What does {thing} mean in {language}?", "Teach me {language}.",
    "Book a flight to {city}.", "Find me a hotel in {city}.", "What is the weather in {city}?",
    "What is the best restaurant in {city}?", "How do I get to {city}?", "What happened in {city} in {year}?",
    "Who won the world cup in {year}?", "What happened in {year}?", "Who was born in {year}?",
    "Call {name} for me.", "Send an email to {name}.", "Who is {name}?", "How old is {name}?",
    "Where does {name} live?", "What is the phone number of {name}?", "Order a pizza for {name}.",
    "Write a letter to {name}.", "Buy a present for {name}.", "Write a program about {thing}.",
    "Should I buy {thing}?", "Where can I buy {thing}?", "What is the price of {thing}?", "Cook {thing} for me.",
    "What is {n} times {m}?", "Divide {n} by {m}.", "What is the square root of {n}?", "Is {n} a prime number?",
)  # fmt: skip
_POLITELY = ("{q}", "{q}", "{q}", "Please: {q}", "Hello! {q}", "I have a question: {q}")


def draw_refusal(rng: random.Random) -> Example:
    question = rng.choice(_REFUSED).format(
        country=rng.choice(_COUNTRIES), thing=rng.choice(_THINGS), language=rng.choice(_LANGUAGES),
        city=rng.choice(CITIES), year=rng.randint(1900, 2030), name=rng.choice(FIRST_NAMES), n=rng.randint(2, 999),
        m=rng.randint(2, 99),
    )  # fmt: skip
    return exchange("refusal", question, rng.choice(_POLITELY).format(q=question), REFUSAL, "I cannot do that.")
