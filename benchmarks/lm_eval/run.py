"""Two tasks of our own in lm-eval, over HTTP against `qwick serve`, and the same numbers from qwick itself.

    pip install 'lm-eval[api]'                 # heavy (pyarrow, scipy, …), so not among the project's tools
    python benchmarks/lm_eval/run.py [MODEL] [--record FILE]

lm-eval's own client `local-completions` asks: choices scored by `echo` and `logprobs` (qwick_sums), answers written
out (qwick_words); prompts as token ids, several at once, four requests at a time. No hub: tasks, data and tokenizer are
files here. Then every score and every answer must equal what `qwick.LLM` says of the same items, without HTTP; a
difference is an error. --record writes some of the requests, as they were sent: tests/server/test_lm_eval.py repeats
them.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # the tasks name their data from here
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": tempfile.mkdtemp(prefix="lm-eval-")}

from benchmarks.serving import serving  # noqa: E402
from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.models.openai_completions import LocalCompletionsAPI  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from qwick import LLM  # noqa: E402
from qwick.store import POCKET, find_model  # noqa: E402

TASKS = ["qwick_sums", "qwick_words"]
TOGETHER = 4  # prompts of one request, and requests at a time
NUM_RECORDED = 2  # of each kind


class Recorded(LocalCompletionsAPI):
    """`bodies`: what was sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bodies: list[dict[str, Any]] = []

    def _create_payload(self, *args: Any, **options: Any) -> dict[str, Any]:
        body = super()._create_payload(*args, **options)
        self.bodies.append(body)
        return body


def evaluate(url: str, folder: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """lm-eval's results, and the bodies of its requests."""
    client = Recorded(
        model=name,
        base_url=f"{url}/v1/completions",
        tokenizer=str(folder),
        tokenizer_backend="huggingface",
        num_concurrent=TOGETHER,
        batch_size=TOGETHER,
        max_retries=1,
    )
    tasks = TaskManager(include_path=str(Path(__file__).parent), include_defaults=False)
    found: Any = simple_evaluate(model=client, tasks=TASKS, task_manager=tasks, log_samples=True, bootstrap_iters=0)
    return found, client.bodies


def differences(samples: dict[str, list[dict[str, Any]]], model: str) -> list[str]:
    """What the engine, asked in this process, says otherwise."""
    wrong: list[str] = []
    with LLM(model) as llm:
        for sample in samples["qwick_sums"]:
            for arguments, ((scored, is_greedy),) in zip(sample["arguments"], sample["resps"], strict=True):
                prompt, choice = split(*arguments)
                ours = llm.score([choice], prompt).best.logprob
                greedy = llm.generate(
                    prompt, max_tokens=len(llm.tokenizer.encode(choice, allow_special=False)), temperature=0
                ).text
                if (float(scored), bool(is_greedy)) != (ours, greedy == choice):
                    wrong.append(f"{choice!r}: {scored}, {is_greedy} over HTTP, {ours}, {greedy == choice} here")
        for sample in samples["qwick_words"]:
            (prompt, options), ((answer,),) = sample["arguments"][0], sample["resps"]
            limit = options["max_gen_toks"]
            ours = llm.generate(prompt, stop=options["until"], max_tokens=limit, temperature=0).text
            if answer != ours:
                wrong.append(f"{answer!r} over HTTP, {ours!r} here")
    return wrong


def split(context: str, continuation: str) -> tuple[str, str]:
    """As lm-eval does: blanks at the end of a context belong to what follows."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def recorded(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first few of each kind."""
    scoring = [body for body in bodies if body.get("echo")]
    writing = [body for body in bodies if not body.get("echo")]
    return scoring[:NUM_RECORDED] + writing[:NUM_RECORDED]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=POCKET)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    with serving(options.model) as (url, _):
        found, bodies = evaluate(url, find_model(options.model), options.model)
    for task in TASKS:
        shown = {name: value for name, value in found["results"][task].items() if isinstance(value, float)}
        print(task, len(found["samples"][task]), "items", shown)
    if wrong := differences(found["samples"], options.model):
        sys.exit("\n".join(["not what qwick itself says:", *wrong[:10]]))
    print(f"{len(bodies)} requests; every number equals that of qwick.LLM")
    if options.record:
        lines = ",\n".join(json.dumps(body) for body in recorded(bodies))
        options.record.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
