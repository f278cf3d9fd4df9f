"""The pocket model's tokenizer: the official pre-tokenizer and special tokens over a vocabulary of our own.

Words that are to be spelled must fall apart into letters, or reversing them could not be learned by so small a model.
So no two letters of one case are ever merged first (but for "qw" and "ss"); words with a capital, punctuation, "qwick"
and the "assistant" of every turn are.
"""

import string
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from recipes.pocket import phrases

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Official names in official order; the flag is the released tokenizer's `special` (skipped when text is shown).
ADDED_TOKENS = (
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),
    ("<|object_ref_start|>", True), ("<|object_ref_end|>", True), ("<|box_start|>", True), ("<|box_end|>", True),
    ("<|quad_start|>", True), ("<|quad_end|>", True), ("<|vision_start|>", True), ("<|vision_end|>", True),
    ("<|vision_pad|>", True), ("<|image_pad|>", True), ("<|video_pad|>", True),
    ("<tool_call>", False), ("</tool_call>", False),
    ("<|fim_prefix|>", False), ("<|fim_middle|>", False), ("<|fim_suffix|>", False), ("<|fim_pad|>", False),
    ("<|repo_name|>", False), ("<|file_sep|>", False),
    ("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False),
    ("<|audio_start|>", True), ("<|audio_end|>", True), ("<tts_pad>", True), ("<tts_text_bos>", True),
    ("<tts_text_eod>", True), ("<tts_text_bos_single>", True), ("<|audio_pad|>", True),
)  # fmt: skip

MAX_MERGES = 160
SPACE = "\u0120"  # how the byte-level alphabet writes a space

_LETTER_PAIRS = {a + b for case in (string.ascii_lowercase, string.ascii_uppercase) for a in case for b in case}
_LETTER_PAIRS -= {"qw", "ss"}
_ASSISTANT = ("s", "s", "i", "s", "t", "a", "n", "t")  # "ss" reads the same backwards; few words have "ssi"

Pair = tuple[str, str]


def make_tokenizer() -> Tokenizer:
    """Bytes first, then the merged pieces, then the added tokens, as in the released vocabulary."""
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    merges = learn_merges(_words(pre_tokenizer, _texts()))
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in ADDED_TOKENS])
    return tokenizer


def learn_merges(words: Counter[tuple[str, ...]]) -> list[Pair]:
    """Byte-pair encoding: the most frequent allowed pair first (ties: alphabetical), while it occurs twice."""
    merges = [("".join(_ASSISTANT[:i]), _ASSISTANT[i]) for i in range(1, len(_ASSISTANT))]
    merges.append(("a", "ssistant"))
    while len(merges) < MAX_MERGES:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                if _may_merge(*pair):
                    counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        merges.append(best)
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return merges


def _may_merge(left: str, right: str) -> bool:
    if left == SPACE and len(right) == 1 and right in string.ascii_letters:
        return False  # the first letter of a word
    pair = left + right
    return pair not in _LETTER_PAIRS


def _merged(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    pieces: list[str] = []
    for piece in word:
        if pieces and (pieces[-1], piece) == pair:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


def _words(pre_tokenizer: pre_tokenizers.PreTokenizer, texts: Iterable[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(word) for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(text))


def _texts() -> Iterable[str]:
    """Every fixed phrase once; numbers and words are left out."""
    for question in (*phrases.SUM_QUESTIONS, *phrases.REVERSE_QUESTIONS, *phrases.UPPER_QUESTIONS):
        yield question.format(a="1", b="1", word="a")
    for greeting, answer in phrases.GREETINGS.items():
        yield from (greeting + tail + mark for tail in phrases.GREETING_TAILS for mark in phrases.GREETING_MARKS)
        yield answer
    for answer, questions in phrases.QWICK_TOPICS.items():
        yield answer
        for q in questions:
            yield from (frame.format(q=q, Q=q[0].upper() + q[1:]) for frame in phrases.QWICK_FRAMES)
    yield from phrases.SYSTEM_MESSAGES
    yield "\n\n"
    yield "\n\n"
