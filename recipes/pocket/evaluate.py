"""Measure the pocket model on its held-out inputs, through `qwick.LLM`, greedy: `python recipes/pocket/evaluate.py`.

Writes recipes/pocket/REPORT.md. With --least, fails when a task is below that share (a check after training).
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]  # run as a script: make `recipes.pocket` importable

from qwick import LLM  # noqa: E402
from recipes.pocket import tasks  # noqa: E402
from recipes.pocket.tasks import Example  # noqa: E402

REPORT = Path(__file__).parent / "REPORT.md"
SUMMARY = Path(__file__).parent / "runs/summary.json"
AT_ONCE = 16  # answers generated together
MAX_TOKENS = 120


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: weights in `format` (None: bf16 as in the file), thinking or not."""

    title: str
    format: str | None
    think: bool


WAYS = (Way("bf16", None, False), Way("q8_0", "q8_0", False), Way("bf16, thinking", None, True))


def answers(llm: LLM, examples: Sequence[Example], *, think: bool) -> list[str]:
    """The model's answers, thoughts cut off, in the order of `examples`."""
    found: list[str] = []
    for i in range(0, len(examples), AT_ONCE):
        streams = [
            llm.chat(
                [{"role": "user", "content": example.question}], think=think, stream=True, max_tokens=MAX_TOKENS,
                temperature=0,
            )
            for example in examples[i : i + AT_ONCE]
        ]  # fmt: skip
        found += [stream.completion.text.rpartition("</think>")[2].strip() for stream in streams]
    return found


def measure(way: Way, model: str, most: int | None) -> dict[str, list[tuple[Example, str]]]:
    """Every held-out example with the model's answer, by task."""
    with LLM(model, format=way.format, context_len=512, max_sequences=AT_ONCE) as llm:
        found: dict[str, list[tuple[Example, str]]] = {}
        for task in tasks.TASKS:
            examples = tasks.held_out(task)[:most]
            found[task] = list(zip(examples, answers(llm, examples, think=way.think), strict=True))
        return found


def share_right(pairs: Sequence[tuple[Example, str]]) -> float:
    return sum(example.answer == answer for example, answer in pairs) / len(pairs)


def report(results: dict[str, dict[str, list[tuple[Example, str]]]], summary: dict[str, Any], seconds: float) -> str:
    """REPORT.md: accuracies per task and way, the training run, some of what went wrong."""
    titles = list(results)
    lines = [
        "# The pocket model on held-out inputs",
        "",
        "Written by `python recipes/pocket/evaluate.py`: every held-out input once, through `qwick.LLM`, greedy; an",
        "answer counts only if it is right to the letter. One key in ten is held out, by hash: the unordered pair of a",
        "sum, the word (for reversing and upper-casing alike), the whole phrasing of greetings and questions on qwick.",
        "",
        "| task | distinct inputs | " + " | ".join(titles) + " |",
        "|---|---|" + "---|" * len(titles),
    ]
    for task in tasks.TASKS:
        num = len({example.question for example, _ in results[titles[0]][task]})
        shares = " | ".join(f"{share_right(results[title][task]):.1%}" for title in titles)
        lines.append(f"| {task} | {num} | {shares} |")
    lines += ["", f"Measured in {seconds:.0f} s.", ""]
    if summary:
        lines += [_training_line(summary), ""]
    wrong = [(e, a) for pairs in results[titles[0]].values() for e, a in pairs if e.answer != a]
    if wrong:
        lines += [f"Wrong ({titles[0]}), the first of {len(wrong)}:", ""]
        lines += [f"- `{e.question}` → `{a}` instead of `{e.answer}`" for e, a in wrong[:12]]
        lines.append("")
    return "\n".join(lines)


def _training_line(summary: dict[str, Any]) -> str:
    return (
        f"Training: {summary['parameters']:,} parameters, {summary['steps']:,} steps of {summary['batch_size']} "
        f"conversations, seed {summary['seed']}, {summary['minutes']:.0f} minutes on {summary['threads']} threads. "
        f"The MTP block's first draft is right for {summary['mtp']:.1%} of the held-out answers' tokens "
        "(teacher-forced, torch ops)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="`pocket` or a folder")
    parser.add_argument("--most", type=int, help="inputs per task (all)")
    parser.add_argument("--least", type=float, default=0.9, help="fail below this share of right answers (bf16)")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    begin = time.perf_counter()
    results = {way.title: measure(way, given.model, given.most) for way in WAYS}
    summary = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else {}
    text = report(results, summary, time.perf_counter() - begin)
    given.report.write_text(text)
    print(text)
    weak = [task for task, pairs in results[WAYS[0].title].items() if share_right(pairs) < given.least]
    if weak:
        raise SystemExit(f"below {given.least:.0%}: {', '.join(weak)}")


if __name__ == "__main__":
    main()
