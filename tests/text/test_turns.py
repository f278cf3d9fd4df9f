"""Where the next turn parts from this one: in the official templates, ours, and templates nobody has seen."""

from pathlib import Path

import pytest

from qwick import pocket
from qwick.text.chat_template import CHATML, ChatTemplate
from qwick.text.tokenizer import Tokenizer
from qwick.text.turns import next_turn, unshared_len
from qwick.text.vocabulary import WholeVocabulary
from tests.text.tokenizer_folder import make_backend

TOKENIZER = Tokenizer(WholeVocabulary(make_backend()))
TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent / "templates").glob("*.jinja")}
TEMPLATES |= {"pocket": (pocket.FOLDER / "chat_template.jinja").read_text(), "chatml": CHATML}
QUESTION = {"role": "user", "content": "hello"}
TALKS = {
    "one": [QUESTION],
    "system": [{"role": "system", "content": "be brief"}, QUESTION],
    "three": [QUESTION, {"role": "assistant", "content": "an answer"}, {"role": "user", "content": "and <|im_end|>?"}],
}
UNUSUAL = {
    "writes the last question only": "{{ messages[-1].content }} {{ enable_thinking }}",
    "counts the messages": "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "writes backwards": "{% for m in messages | reverse %}{{ m.content }}<|im_end|>{% endfor %}",
}


def render(source: str, messages: list[dict[str, str]], think: bool):
    template = ChatTemplate(source, is_own=True)
    return template.render(messages, think=think and template.can_think, control_tokens=TOKENIZER.added_tokens)


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_next_turn_begins_with_what_is_shared(name: str, talk: str, think: bool) -> None:
    """Whatever is answered and asked then; and the turn after the next writes no more of this turn than that."""
    pieces = render(TEMPLATES[name], TALKS[talk], think)
    later = render(TEMPLATES[name], next_turn(TALKS[talk]), think)
    ids = TOKENIZER.encode_pieces(pieces)
    shared = len(ids) - unshared_len(pieces, later, TOKENIZER.encode_pieces)
    for answer in ("42", "  12 <think>", "été\n\n- a\n- b"):
        messages = [*TALKS[talk], {"role": "assistant", "content": answer}, {"role": "user", "content": "so?"}]
        turn = TOKENIZER.encode_pieces(render(TEMPLATES[name], messages, think))
        assert turn[:shared] == ids[:shared]
    thinks = name != "chatml"
    left = TOKENIZER.decode(ids[shared:])
    assert left == ("" if not thinks else "<think>\n" if think else "<think>\n\n</think>\n\n")
    assert TOKENIZER.decode(ids[:shared]).endswith("assistant\n")


@pytest.mark.parametrize("name", UNUSUAL)
def test_any_template_gives_a_number_that_is_true(name: str) -> None:
    pieces, later = (render(UNUSUAL[name], messages, False) for messages in (TALKS["one"], next_turn(TALKS["one"])))
    ids, later_ids = (TOKENIZER.encode_pieces(rendered) for rendered in (pieces, later))
    shared = len(ids) - unshared_len(pieces, later, TOKENIZER.encode_pieces)
    assert 0 <= shared <= len(ids)
    assert ids[:shared] == later_ids[:shared]
    assert ids[: shared + 1] != later_ids[: shared + 1] or shared == min(len(ids), len(later_ids))
