"""What a script says next, whatever was written before."""

import json

import pytest

from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.scripted.script import MARK, NO_SCRIPT, Favoured, Scripts, scripted
from tests.scripted.words import Words
from tests.text.tokenizer_folder import make_backend

WORDS = Words(Tokenizer(WholeVocabulary(make_backend())), 512)
SCRIPTS = Scripts(WORDS)


def likeliest(favoured: Favoured) -> int:
    return max(favoured, key=lambda token_id: (favoured[token_id], -token_id))


def goes_on(prompt: str, written: str = "", most: int = 200) -> str:
    """What follows a prompt, and what is written of the answer already."""
    prompt_ids, ids = WORDS.encode(prompt), WORDS.encode(written)
    found: list[int] = []
    while len(found) < most:
        token_id = likeliest(SCRIPTS.favoured((*prompt_ids, *ids, *found), len(prompt_ids)))
        if token_id == WORDS.end:
            return WORDS.text(found)
        found.append(token_id)
    return WORDS.text(found)


def chat(message: str, begun: str) -> str:
    return f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n{begun}"


def test_a_script_is_said_as_it_is() -> None:
    for text in ("hello", "", "hellohello <tool_call>\n", "grüße 🙂\n\n", 'a "quoted" text'):
        assert goes_on(scripted(text)) == text
        assert goes_on(chat(scripted(text), "")) == text
    assert goes_on("nothing of that kind") == NO_SCRIPT
    assert goes_on(f"{MARK}[1") == NO_SCRIPT


def test_its_tokens_are_those_of_the_text() -> None:
    prompt = WORDS.encode(scripted("hello"))
    token_id = likeliest(SCRIPTS.favoured(tuple(prompt), len(prompt)))
    assert [token_id] == WORDS.encode("hello")


def test_the_last_turn_has_the_script() -> None:
    first, second = chat(scripted("first"), "first<|im_end|>\n"), chat(scripted("second"), "")
    assert goes_on(first + second) == "second"
    assert goes_on(first + chat("and now?", "")) == NO_SCRIPT
    assert goes_on(chat(f"{scripted('no')} {scripted('yes', before='but ')} thanks", "")) == "yes"


@pytest.mark.parametrize(
    ("begun", "rest"),
    [
        ("<think>\n", "hm</think>\n\n<tool_call>\nab"),
        ("<think>\n\n</think>\n\n", "<tool_call>\nab"),
        ("<think>\n\n</think>\n\n<tool_call>\n", "ab"),
        ("<think>\nh", "m</think>\n\n<tool_call>\nab"),
        ("<think>\nh. That is all.\n</think>\n\n", "<tool_call>\nab"),  # a thought that was ended
    ],
)
def test_what_was_written_for_it_is_behind_it(begun: str, rest: str) -> None:
    assert goes_on(chat(scripted("hm</think>\n\n<tool_call>\nab"), begun)) == rest


def test_what_the_script_does_not_say_is_passed_over() -> None:
    assert goes_on(scripted('{"a":12}'), '{"a": ') == "12}"
    assert goes_on(scripted('{"a":12}'), '{"a": 1') == "2}"
    assert goes_on(scripted('{ "a" : 12 }'), '{"a": ') == "12 }"
    assert goes_on(scripted("hello"), "he") == "llo"  # within one of its tokens
    assert goes_on(scripted("grüße"), "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}") == "ße"


def test_texts_that_fit_alike_are_as_likely() -> None:
    prompt = WORDS.encode(scripted("yes, sir", "no, sir"))

    def two(written: str) -> list[str]:
        favoured = SCRIPTS.favoured((*prompt, *WORDS.encode(written)), len(prompt))
        best = max(favoured.values())
        return sorted(WORDS.text([token_id]) for token_id, logit in favoured.items() if logit == best)

    assert two("") == ["n", "y"]
    assert two("n") == ["o"]
    assert two("y") == ["e"]


def test_where_its_token_may_not_come_others_stand_in_order() -> None:
    prompt = WORDS.encode(scripted("hello"))
    favoured = SCRIPTS.favoured(tuple(prompt), len(prompt))
    order = sorted(favoured, key=favoured.__getitem__, reverse=True)
    assert [WORDS.text([token_id]) for token_id in order[:4]] == ["hello", "hell", "he", "h"]
    assert order[4] == WORDS.end
    assert WORDS.text(order[5:8]) == '"}]'


def test_the_message_of_a_script_reads_as_json() -> None:
    assert json.loads(scripted("a\n", "b").removeprefix(MARK)) == ["a\n", "b"]
    assert scripted("a", before="Hello. ") == f'Hello. {MARK}"a"'
