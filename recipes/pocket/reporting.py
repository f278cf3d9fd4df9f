"""REPORT.md: shares of right answers per task and way, against the bars."""

from collections.abc import Mapping, Sequence

from recipes.pocket import tasks

Scores = Mapping[str, Sequence[bool]]  # by task: of every example whether it was right

FIRST_BAR, MUST_BAR = 0.95, 0.90
THINKING_GAIN = 0.20
DRAFT_BAR = 1.6
BY_THOUGHT = ("sum4", "difference")

CALLING = ("tool", "parallel")
FREE = ", free"  # behind a calling task's name: nothing holds its calls to the schemas

_DESCRIBED = {
    "sum": "sums to 99", "reverse": "a word spelled backwards", "upper": "a word in capitals", "greeting": "greetings",
    "qwick": "questions on qwick", "sum4": "sums to 9,999", "difference": "differences to 9,999",
    "json": "name, date and amount of a sentence as JSON", "tool": "one of three functions called, its result told",
    "parallel": "two calls at once, both results told", "facts": "facts told 1 to 6 turns earlier",
    "name": "the name that the system prompt gives", "refusal": "what it cannot do, declined",
    "calendar": "days and months before and after", "sorting": "3 to 6 numbers in order",
    "numbers": "numbers in words and back", "recall": "a key in 4 to 40 sentences",
}  # fmt: skip


def share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)


def missed(results: Mapping[str, Scores], accepted: float) -> list[str]:
    """Which bars are missed, in words; `results` by way, the first two being the file's weights without and with a
    thought."""
    plain, thought = list(results.values())[:2]
    found: list[str] = []
    for name in (*tasks.FIRST, *tasks.MUST):
        bar = FIRST_BAR if name in tasks.FIRST else MUST_BAR
        reached = share((thought if name in BY_THOUGHT else plain)[name])
        if reached < bar:
            found.append(f"{name}: {reached:.1%} of {bar:.0%}")
    gains = {name: share(thought[name]) - share(plain[name]) for name in BY_THOUGHT}
    found += [
        f"{name}: a thought gains {x:.1%} of {THINKING_GAIN:.0%}" for name, x in gains.items() if x < THINKING_GAIN
    ]
    if accepted < DRAFT_BAR:
        found.append(f"accepted length: {accepted:.2f} of {DRAFT_BAR}")
    return found


def report(
    results: Mapping[str, Scores],
    accepted: float,
    long_recall: Mapping[int, Sequence[bool]],
    trained: str,
    seconds: float,
) -> str:
    """The page. `long_recall`: by the tokens of filler. `trained`: a sentence on the training."""
    titles = list(results)
    lines = [
        "# The pocket model on held-out inputs",
        "",
        "Written by `python recipes/pocket/evaluate.py`: distinct held-out inputs through qwick's engine, greedy.",
        "An answer counts only if it is right to the letter (of tools: the calls, and then what is said on their",
        "results). `LLM.chat` asks, and holds calls to the schemas as it always does; the last rows show the calls",
        "without that. One key in ten is held out, by hash: the unordered pair of a sum, the word to be spelled, else",
        "the question or its contents. Of these the report has a draw of its own: others were looked at when what is",
        "taught was chosen. Quantised weights think about sums and differences to 9,999 only.",
        "",
        "| task | what | inputs | " + " | ".join(titles) + " |",
        "|---|---|---|" + "---|" * len(titles),
    ]
    for name in (*tasks.TASKS, *(name + FREE for name in CALLING)):
        shares = " | ".join(f"{share(results[title][name]):.1%}" for title in titles)
        what = _DESCRIBED.get(name, "the same, its calls not held to the schemas")
        lines.append(f"| {name} | {what} | {len(results[titles[0]][name])} | {shares} |")
    lines += ["", f"Accepted length with one draft of the MTP block (torch ops, right answers): {accepted:.2f}.", ""]
    if long_recall:
        told = ", ".join(f"{share(found):.0%} of {len(found)} in {tokens:,}" for tokens, found in long_recall.items())
        lines += [f"A key in a long text, by tokens of the prompt: {told}.", ""]
    bars = missed(results, accepted)
    lines += ["Bars missed: " + "; ".join(bars) + "." if bars else "All bars are met.", ""]
    lines += [trained, "", f"Measured in {seconds:.0f} s.", ""]
    return "\n".join(lines)
