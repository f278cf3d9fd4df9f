"""The pocket tokenizer: the official pre-tokenizer and special tokens over a small vocabulary of our own.

Words of the phrases are tokens, so that prompts are short. Words that are to be spelled fall apart into letters (but
for their beginnings, which they share with words of the phrases), or reversing them could not be learned by so small a
model: merges grow from a word's beginning only, and names and the words to be spelled are not merged at all.
"""

import random
import re
from collections import Counter
from collections.abc import Container, Iterable
from functools import cache
from itertools import pairwise

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from recipes.pocket import entities, phrases, tasks
from recipes.pocket.rendering import TOOLS_HEAD, TOOLS_TAIL, parts

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
    # Our own: what the official template says around the functions, 300 tokens otherwise.
    (TOOLS_HEAD, False), (TOOLS_TAIL, False),
)  # fmt: skip

VOCAB_SIZE = 1536  # rows of the embedding; the tokenizer may fill fewer, as the released one does
MAX_MERGES = VOCAB_SIZE - 256 - len(ADDED_TOKENS)
SAMPLE = 600  # examples of each task whose words are counted
LEAST_COUNT = 6

Pair = tuple[str, str]


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@cache
def make_tokenizer() -> Tokenizer:
    """Bytes first, then the merged pieces, then the added tokens, as in the released vocabulary. Takes seconds."""
    pre_tokenizer = _pre_tokenizer()
    merges = learn_merges(_words(pre_tokenizer, _texts()))
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in ADDED_TOKENS])
    return tokenizer


def learn_merges(words: Counter[tuple[str, ...]]) -> list[Pair]:
    """The most frequent pair at a word's beginning first (ties: alphabetical)."""
    merges: list[Pair] = []
    while len(merges) < MAX_MERGES:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            if len(word) > 1:
                counts[word[0], word[1]] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return merges


def _merged(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    if pair not in pairwise(word):
        return word
    pieces: list[str] = []
    i = 0
    while i < len(word):
        both = word[i : i + 2] == pair
        pieces.append(word[i] + word[i + 1] if both else word[i])
        i += 2 if both else 1
    return tuple(pieces)


def _words(pre_tokenizer: pre_tokenizers.PreTokenizer, texts: Iterable[str]) -> Counter[tuple[str, ...]]:
    """Frequent words. Not those that are only ever spelled or copied."""
    names = {*entities.FIRST_NAMES, *entities.SURNAMES, *entities.CITIES}
    spelled = {word.lower() for word in (*names, *entities.english_words())} - _phrase_words()
    counts = Counter(word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(text))
    return Counter(
        {
            tuple(word): count
            for word, count in counts.items()
            if count >= LEAST_COUNT and re.sub(r"\W|Ġ", "", word).lower() not in spelled
        }
    )


@cache
def _phrase_words() -> frozenset[str]:
    """Words of the English list that the phrases and schemas themselves use."""
    texts = _texts(except_tasks=("recall", "reverse", "upper"))
    counts = Counter(w.lower() for text in texts for w in re.findall(r"[A-Za-z]+", text))
    names = {word.lower() for word in (*entities.FIRST_NAMES, *entities.SURNAMES, *entities.CITIES)}
    asked = " ".join((*phrases.REVERSE_QUESTIONS, *phrases.UPPER_QUESTIONS)).lower()
    often = {word for word, count in counts.items() if count >= 25}
    return frozenset((often | set(re.findall(r"[a-z]+", asked))) - names)


def _texts(except_tasks: Container[str] = ()) -> Iterable[str]:
    rng = random.Random("tokenizer")
    for task, draw in tasks.TASKS.items():
        for i in range(0 if task in except_tasks else SAMPLE):
            text = "".join(text for text, _ in parts(draw(rng), think=i % 4 == 0, learn_history=False))
            for token, _ in ADDED_TOKENS:
                text = text.replace(token, "\n")
            yield text
