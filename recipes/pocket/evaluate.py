"""Measure the pocket model on held-out inputs, through qwick's engine, greedy: `python recipes/pocket/evaluate.py`.

Writes recipes/pocket/REPORT.md. Fails when a task misses its bar.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]  # run as a script: make `recipes.pocket` importable

from qwick import LLM  # noqa: E402
from qwick.model.source import open_source  # noqa: E402
from qwick.quantize.convert import convert  # noqa: E402
from qwick.quantize.recipes import recipe_named  # noqa: E402
from qwick.store import find_model  # noqa: E402
from qwick.streams import Completion, Stream  # noqa: E402
from recipes.pocket import extras, tasks  # noqa: E402
from recipes.pocket.drafting import accepted_length  # noqa: E402
from recipes.pocket.example import Example, Message  # noqa: E402
from recipes.pocket.rendering import END, prompt, written  # noqa: E402
from recipes.pocket.reporting import BY_THOUGHT, CALLING, FREE, Scores, missed, report, share  # noqa: E402

REPORT = Path(__file__).parent / "REPORT.md"
SEED = "report"  # of the inputs: not the ones that training checks and that tasks are mended by
SUMMARY = Path(__file__).parent / "runs/summary.json"
AT_ONCE = 16  # answers generated together
MAX_TOKENS = 400
CONTEXT_LEN = 2048
LONG_CONTEXT_LEN = 10240
NUM_LONG, NUM_DRAFTED = 40, 60
FILLER_SENTENCES = (200, 400, 600)  # of some 11 tokens, of the long recall


@dataclass(frozen=True, slots=True)
class Way:
    """Weights as the file has them, or converted to the GGUF `recipe`. `think` None: where a thought is what helps."""

    title: str
    think: bool | None
    recipe: str | None = None


WAYS = (
    Way("bf16", think=False),
    Way("bf16, thinking", think=True),
    Way("Q8_0", think=None, recipe="Q8_0"),
    Way("Q4_K_M", think=None, recipe="Q4_K_M"),
)


def asked_by_chat(llm: LLM, example: Example, num: int, *, think: bool) -> Stream:
    """The answer to the first `num` messages, as a user gets it: calls are held to the functions' schemas."""
    messages = [{k: v for k, v in m.items() if think or k != "reasoning_content"} for m in example.messages[:num]]
    return llm.chat(messages, tools=example.tools, think=think, max_tokens=MAX_TOKENS, temperature=0, stream=True)


def asked_by_text(llm: LLM, example: Example, num: int, *, think: bool) -> Stream:
    """The same without anything that holds it."""
    return llm.stream(prompt(example, num, think=think), max_tokens=MAX_TOKENS, temperature=0)


def right(llm: LLM, examples: Sequence[Example], *, think: bool, held: bool = True) -> list[bool]:
    """An example is right when all that the model is to write after the last question is, to the letter: a call and,
    given its result, the answer."""
    ask, is_right = (asked_by_chat, _is_said) if held else (asked_by_text, _is_written)
    found = [True] * len(examples)
    turns = [(i, n) for i, example in enumerate(examples) for n in _turns(example)]
    for begin in range(0, len(turns), AT_ONCE):
        some = turns[begin : begin + AT_ONCE]
        streams = [ask(llm, examples[i], n, think=think) for i, n in some]
        for (i, n), stream in zip(some, streams, strict=True):
            found[i] &= is_right(stream.completion, examples[i].messages[n])
    return found


def _is_said(completion: Completion, message: Message) -> bool:
    """The text to the letter, and the calls with the values that their schemas make of the letters."""
    try:
        calls = [(call.name, json.loads(call.arguments)) for call in completion.tool_calls]
    except ValueError:  # cut off
        return False
    functions = [call["function"] for call in message.get("tool_calls", ())]
    found = [(name, {key: str(value) for key, value in values.items()}) for name, values in calls]
    return completion.text == message["content"] and found == [(f["name"], f["arguments"]) for f in functions]


def _is_written(completion: Completion, message: Message) -> bool:
    return completion.text.rpartition("</think>\n\n")[2] == written(message, think=False).removesuffix(END)


def _turns(example: Example) -> Iterator[int]:
    last_question = max(i for i, message in enumerate(example.messages) if message["role"] == "user")
    return (i for i, m in enumerate(example.messages) if m["role"] == "assistant" and i > last_question)


def measure(way: Way, model: str, most: int) -> Scores:
    with tempfile.TemporaryDirectory() as folder:
        path = model if way.recipe is None else converted(model, way.recipe, Path(folder))
        with LLM(path, context_len=CONTEXT_LEN, max_sequences=AT_ONCE, threads=1) as llm:
            thinks = {name: name in BY_THOUGHT if way.think is None else way.think for name in tasks.TASKS}
            examples = {name: tasks.held_out(name, most, SEED) for name in tasks.TASKS}
            found = {name: right(llm, examples[name], think=thinks[name]) for name in tasks.TASKS}
            for name in CALLING:
                found[name + FREE] = right(llm, examples[name], think=thinks[name], held=False)
            return found


def measure_all(ways: Sequence[Way], model: str, most: int) -> dict[str, Scores]:
    """As many at once as there are processors, of one thread each: which is which does not change an answer."""
    results: dict[str, Scores] = {}
    with ProcessPoolExecutor(min(len(ways), os.cpu_count() or 1), get_context("spawn")) as pool:
        all_scores = pool.map(measure, ways, repeat(model), repeat(most))
        for way, scores in zip(ways, all_scores, strict=True):
            results[way.title] = scores
            told = ", ".join(f"{name} {share(found):.0%}" for name, found in scores.items())
            print(f"{way.title}: {told}", flush=True)
    return results


def converted(model: str, recipe: str, folder: Path) -> str:
    path = folder / "pocket.gguf"
    with open_source(find_model(model)) as source:
        convert(source, path, recipe_named(recipe))
    return str(path)


def long_recall(model: str, most: int) -> dict[int, list[bool]]:
    """By the mean tokens of the prompts: held-out keys in a long text."""
    found: dict[int, list[bool]] = {}
    with LLM(model, context_len=LONG_CONTEXT_LEN) as llm:
        for sentences in FILLER_SENTENCES:
            rng = random.Random(f"long recall {sentences}")
            drawn = (extras.draw_recall(rng, sentences) for _ in range(20 * most))
            examples = [example for example in drawn if example.held_out][:most]
            texts = [prompt(example, 1, think=False) for example in examples]
            tokens = sum(len(llm.tokenizer.encode(text, allow_special=True)) for text in texts) / len(texts)
            found[round(tokens)] = right(llm, examples, think=False)
    return found


def trained_line() -> str:
    """What the training run left about itself."""
    if not SUMMARY.exists():
        return "No training run is beside this page."
    told = json.loads(SUMMARY.read_text())
    return (
        f"Training: {told['parameters']:,} parameters, {told['steps']:,} steps of {told['tokens_a_step']:,} tokens, "
        f"seed {told['seed']}, {told['cpu_hours']:.1f} CPU hours."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="`pocket` or a folder")
    parser.add_argument("--most", type=int, default=tasks.NUM_HELD_OUT, help="inputs per task")
    parser.add_argument("--ways", type=int, default=len(WAYS), help="only the first so many columns")
    parser.add_argument("--no-long", action="store_true", help="without the long recall")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    begin = time.perf_counter()
    results = measure_all(WAYS[: max(2, given.ways)], given.model, given.most)
    drafted = [x for name in (*tasks.FIRST, *tasks.MUST) for x in tasks.held_out(name, given.most, SEED)[:NUM_DRAFTED]]
    accepted = accepted_length(given.model, drafted)
    long = {} if given.no_long else long_recall(given.model, min(given.most, NUM_LONG))
    text = report(results, accepted, long, trained_line(), time.perf_counter() - begin)
    given.report.write_text(text)
    print(text)
    if bars := missed(results, accepted):
        raise SystemExit("bars missed: " + "; ".join(bars))


if __name__ == "__main__":
    main()
