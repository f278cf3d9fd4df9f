"""What a scripted model says, and how it goes on where its answer was made to say something else.

The script stands in the prompt: JSON behind the last `SCRIPT: ` of the last turn (the user's message, a tool's result;
of a prompt without turns, anywhere). A text is the answer, as the model would write it behind the generation prompt:
`thought</think>\n\nanswer`, `<tool_call>…`. A list of texts: each is as likely as the others.

An answer follows its script token by token. What the script did not say (a budget's closing sentence, a grammar's
names, the beginning of a call in the prompt) is read against it like this: an added token, such as `</think>`, leads
behind its next occurrence, if there is one; of other tokens each byte that comes next in the script, perhaps behind
blanks, is ticked off, the others are passed over. So a script with a thought serves a prompt whose thought is empty:
it goes on behind `</think>`.
"""

import json
from collections.abc import Iterable
from functools import lru_cache

from tests.scripted.words import Words

MARK = "SCRIPT: "
NO_SCRIPT = "There is no script in the last turn."
# Logits. A forbidding bias (-100) takes the script's own token below all others, temperature 2 does not.
SAID, BEGINS, ENDS, CLOSES = 60.0, 20.0, 10.0, 5.0
CLOSERS = ('"', "}", "]", "0")  # what ends a form that the script knows nothing of, the likeliest first
_MOST_KNOWN = 64  # answers under way with one text
Favoured = dict[int, float]
"""The logits of the tokens that stand out, by id; of the others the lower id is likelier (`network.py`)."""


class Text:
    """One text that may be said."""

    def __init__(self, text: str, words: Words) -> None:
        self._words = words
        self._bytes = text.encode()
        self._own: dict[int, int] = {}  # the token that begins at each border of the script's own tokens
        at = 0
        for token_id in words.encode(text):
            self._own[at] = token_id
            at += len(words.spelled[token_id])
        self._own[at] = words.end
        self._known: dict[tuple[int, ...], tuple[int, int]] = {(): (0, 0)}  # what `followed` found of late

    def followed(self, written: tuple[int, ...]) -> tuple[int, int]:
        """How many bytes of the script are behind `written`, and how many of its bytes are none of the script's."""
        if written in self._known:
            return self._known[written]
        before = self._known.pop(written[:-1], None)
        found = self._further(written, 0, 0) if before is None else self._further(written[-1:], *before)
        self._known[written] = found
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return found

    def _further(self, written: Iterable[int], at: int, strange: int) -> tuple[int, int]:
        for token_id in written:
            spelled = self._words.spelled[token_id]
            if token_id in self._words.added:
                found = self._bytes.find(spelled, at)
                at, strange = (found + len(spelled), strange) if found >= 0 else (at, strange + len(spelled))
                continue
            for byte in spelled:
                place = self._next(byte, at)
                at, strange = (at, strange + 1) if place is None else (place + 1, strange)
        return at, strange

    def _next(self, byte: int, at: int) -> int | None:
        """Where `byte` is, if it comes next, or behind blanks."""
        rest = self._bytes[at:]
        if rest[:1] == bytes([byte]):
            return at
        bare = rest.lstrip()
        return at + len(rest) - len(bare) if bare[:1] == bytes([byte]) else None

    def favoured(self, at: int) -> Favoured:
        """At a border the script's own token; inside one what leads to its end; then other ways to go on."""
        rest = self._bytes[at:]
        begins = [*self._words.beginning(rest.lstrip()), *self._words.beginning(rest)]
        found = {token_id: BEGINS + place / len(begins) for place, token_id in enumerate(begins)}
        own = self._own.get(at)
        if own is None:
            border = min(border for border in self._own if border > at)
            own = list(self._words.beginning(self._bytes[at:border]))[-1]
        return found | {own: SAID}


class Scripts:
    """Of one vocabulary: a function of the token ids so far and nothing else, as a model is."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._start, self._end, self._think = (words.named(name) for name in ("<|im_start|>", "<|im_end|>", "<think>"))
        self._read = lru_cache(maxsize=64)(self._texts)
        self._divide = lru_cache(maxsize=64)(self._divided)
        self._forms = {words.end: ENDS}
        for place, closer in enumerate(CLOSERS):
            (token_id,) = words.encode(closer)
            self._forms[token_id] = CLOSES - place

    def favoured(self, token_ids: tuple[int, ...], prompt_len: int) -> Favoured:
        """What may follow `token_ids`, of which `prompt_len` are the prompt."""
        turn, begun = self._divide(token_ids[:prompt_len])
        written = begun + token_ids[prompt_len:]
        texts = self._read(turn)
        followed = [text.followed(written) for text in texts]
        least = min(strange for _, strange in followed)
        found = dict(self._forms)
        for text, (at, strange) in zip(texts, followed, strict=True):
            if strange == least:
                for token_id, logit in text.favoured(at).items():
                    found[token_id] = max(logit, found.get(token_id, logit))
        return found

    def _divided(self, prompt: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The turn that the answer answers, and what of the answer is in the prompt already."""
        starts = [place for place, token_id in enumerate(prompt) if token_id == self._start]
        if not starts:
            return prompt, ()
        turn = prompt[starts[-2] if len(starts) > 1 else 0 : starts[-1]]
        begun = self._behind_break(prompt[starts[-1] :])  # `<|im_start|>assistant\n`
        if begun[:1] == (self._think,):  # the template's own: no script says it
            begun = self._behind_break(begun)
        return turn, begun

    def _behind_break(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """What follows the first token that is made of line breaks; nothing where there is none."""
        breaks = (place for place, token_id in enumerate(token_ids) if not self._words.spelled[token_id].strip(b"\n"))
        return token_ids[next(breaks, len(token_ids)) + 1 :]

    def _texts(self, turn: tuple[int, ...]) -> list[Text]:
        _, mark, script = self._words.text(list(turn)).rpartition(MARK)
        try:
            said = json.JSONDecoder().raw_decode(script)[0] if mark else NO_SCRIPT
        except ValueError:  # in the middle of a prompt that is scored
            said = NO_SCRIPT
        return [Text(text, self._words) for text in ([said] if isinstance(said, str) else said)]


def scripted(*texts: str, before: str = "") -> str:
    """A message that makes a scripted model answer with this text, or with one of these."""
    return f"{before}{MARK}{json.dumps(texts[0] if len(texts) == 1 else texts, ensure_ascii=False)}"
