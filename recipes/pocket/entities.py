"""People, towns and made-up words. Half of what is drawn is made up, so that names must be copied, not known."""

import random
import string
from functools import cache
from pathlib import Path

FIRST_NAMES = (
    "Anna Ben Carla David Emma Felix Greta Hugo Ida Jonas Karin Leo Maria Nils Olga Paul Rosa Sam Tina Viktor Wanda "
    "Yara Zoe Adam Bella Clara Daniel Elena Frank Gina Henry Irene Jack Kate Lucas Mila Noah Oscar Petra Robert Sofia "
    "Thomas Ursula Vera William Alice Bruno Diana Ella George Helen Ivan Julia Kevin Laura Martin Nora Peter Rita Simon"
).split()  # fmt: skip
SURNAMES = (
    "Bell Stone Fisher Miller Baker Young Hill Wood Carter Brown Keller Novak Rossi Silva Meyer Lange Berg Costa Dunn "
    "Ellis Ford Grant Hale Irving Jensen King Lopez Moreno Nash Owens Price Quinn Reed Shaw Turner Vance Webb York"
).split()  # fmt: skip
CITIES = (
    "Paris Rome Berlin Madrid London Oslo Vienna Lisbon Dublin Prague Warsaw Athens Cairo Tokyo Lima Quito Boston "
    "Chicago Denver Toronto Sydney Mumbai Delhi Seoul Bangkok Nairobi Lagos Havana Bogota Helsinki Stockholm Hamburg "
    "Munich Zurich Geneva Milan Naples Turin Porto Seville"
).split()  # fmt: skip
WORD_LENGTHS = range(3, 9)

_ONSETS = "b c d f g h j k l m n p r s t v w z br dr gr kr pl st tr".split()
_VOWELS = "a e i o u a e i o".split()
_CODAS = ("", "", "n", "r", "l", "s", "m")


@cache
def english_words() -> tuple[str, ...]:
    """2,048 common English words of 3 to 8 letters: the BIP-39 list (MIT licence)."""
    return tuple((Path(__file__).parent / "words.txt").read_text().split())


def letter_string(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=rng.choice(WORD_LENGTHS)))


def word(rng: random.Random) -> str:
    """To be spelled: English, or random letters."""
    return rng.choice(english_words()) if rng.random() < 0.5 else letter_string(rng)


def made_up(rng: random.Random) -> str:
    """A pronounceable name, as Tavoren."""
    parts = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((2, 2, 3))))
    return "".join(parts).capitalize()


def first_name(rng: random.Random) -> str:
    return rng.choice(FIRST_NAMES) if rng.random() < 0.5 else made_up(rng)


def full_name(rng: random.Random) -> str:
    return f"{first_name(rng)} {rng.choice(SURNAMES) if rng.random() < 0.5 else made_up(rng)}"


def city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.5 else made_up(rng)
