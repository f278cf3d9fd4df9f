"""A scripted model in a real engine: the script comes out whatever the engine does with its memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.request import Finish, Request, Stats
from qwick.errors import KernelError
from qwick.model.config import load_config
from qwick.ops.contract import Role, Run
from qwick.sampling.params import SamplingParams
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.scripted.folder import write_hollow_checkpoint
from tests.scripted.network import scripted_model
from tests.scripted.script import scripted
from tests.scripted.words import Words
from tests.text.tokenizer_folder import make_backend

WORDS = Words(Tokenizer(WholeVocabulary(make_backend())), 512)
GREEDY = SamplingParams(temperature=0, stop_token_ids=frozenset({WORDS.end}), max_tokens=400)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_config(write_hollow_checkpoint(tmp_path_factory.mktemp("hollow"), 512))


def engine_of(config: Any, **options: Any) -> Engine:
    return Engine(scripted_model(config, WORDS), EngineConfig(**{"context_len": 1024, **options}))


def request(*texts: str, before: str = "", sampling: SamplingParams = GREEDY, **more: Any) -> Request:
    ids = tuple(WORDS.encode(scripted(*texts, before=before)))
    return Request(ids, sampling, boundaries=(len(ids),), **more)


def answers(engine: Engine, requests: list[Request]) -> list[tuple[str, Stats]]:
    """All at once; the memory's invariants hold after every step."""
    order = {engine.add(each): place for place, each in enumerate(requests)}
    ids: list[list[int]] = [[] for _ in requests]
    stats: dict[int, Stats] = {}
    while engine.has_work:
        for event in engine.step():
            place = order[event.sequence_id]
            ids[place] += [event.token_id] * (event.finish is not Finish.STOP)
            stats[place] = event.stats
        engine.check()
    return [(WORDS.text(each), stats[place]) for place, each in enumerate(ids)]


def test_several_at_once_say_their_own(config: Any) -> None:
    texts = [f"text number {i} " * (i + 1) for i in range(6)]
    found = answers(engine_of(config, max_sequences=4), [request(text) for text in texts])
    assert [text for text, _ in found] == texts


@pytest.mark.parametrize("more", [{"temperature": 1.0, "seed": 3}, {"temperature": 1.0, "top_k": 0, "seed": 3}])
def test_a_draw_gives_the_script_too(config: Any, more: Any) -> None:
    sampling = SamplingParams(**{"stop_token_ids": GREEDY.stop_token_ids, "presence_penalty": 1.5, **more})
    ((text, _),) = answers(engine_of(config), [request("a text to be drawn", sampling=sampling)])
    assert text == "a text to be drawn"


def test_after_a_preemption_it_goes_on(config: Any) -> None:
    engine = engine_of(config, max_sequences=3, num_pages=17)
    texts = [f"{i} is a text of some length. " * 14 for i in range(3)]
    found = answers(engine, [request(text) for text in texts])
    assert [text for text, _ in found] == texts
    assert max(stats.preemptions for _, stats in found) > 0


def test_from_what_is_remembered_it_goes_on(config: Any) -> None:
    engine = engine_of(config, cache_memory=1 << 22)
    before = "The same beginning for two of them, to be read once. " * 4
    first = request("first", before=before)
    ((text, _),) = answers(engine, [first])
    assert text == "first"
    ((text, stats),) = answers(engine, [Request((*first.token_ids, *WORDS.encode(scripted("second"))), GREEDY)])
    assert text == "second"
    assert stats.cached_tokens == len(first.token_ids)


def test_the_same_whatever_else_happens(config: Any) -> None:
    """Prompts in pieces, beside others, read again, from memory."""
    rng = np.random.default_rng(0)
    shared = "A beginning that many of them share, long enough to be remembered. " * 3
    requests = [
        request(f"{i}: " + "la " * int(rng.integers(1, 60)), before=shared[: int(rng.integers(0, len(shared)))])
        for i in range(24)
    ]
    alone = [answers(engine_of(config), [each])[0][0] for each in requests]
    crowded = engine_of(config, max_sequences=5, step_tokens=48, num_pages=40, cache_memory=1 << 20)
    together = answers(crowded, requests)
    assert [text for text, _ in together] == alone
    assert any(stats.cached_tokens for _, stats in together)


def test_a_forbidden_token_leaves_the_next_best(config: Any) -> None:
    (whole,) = WORDS.encode("hello")
    sampling = SamplingParams(
        temperature=0, max_tokens=20, stop_token_ids=GREEDY.stop_token_ids, logit_bias={whole: -100.0}
    )
    engine = engine_of(config)
    ((text, _),) = answers(engine, [request("hello", sampling=sampling)])
    assert text == "hello"  # of other tokens


def test_scores_are_of_the_script(config: Any) -> None:
    engine = engine_of(config)
    events: list[Any] = []
    engine.add(request("yes", "no", top_logprobs=2))
    while engine.has_work:
        events += engine.step()
    logprob, top = events[0].scored
    assert logprob == pytest.approx(-np.log(2))
    assert {WORDS.text([token_id]) for token_id, _ in top} == {"y", "n"}
    assert events[1].scored[0] == pytest.approx(0)


def test_memory_that_is_not_the_sequences_own_is_noticed(config: Any) -> None:
    model = scripted_model(config, WORDS)
    model.open(num_pages=8, num_slots=2, max_tokens=64)
    backend: Any = model.backend
    ids = list(range(100, 110))
    backend.read(Run(10, Role.PROMPT, 0, 0, [3]), ids)
    backend.read(Run(1, Role.DECODE, 10, 0, [3]), [7])
    with pytest.raises(KernelError, match="has seen 11"):
        backend.read(Run(1, Role.DECODE, 10, 0, [3]), [7])
    with pytest.raises(KernelError, match="other tokens"):
        backend.read(Run(1, Role.DECODE, 11, 0, [4]), [7])
    backend.save_state(0, [5, 6])
    backend.load_state([5, 6], 1)
    backend.read(Run(1, Role.DECODE, 11, 1, [3]), [8])
    backend.read(Run(1, Role.PROMPT, 0, 0, [6]), [9])
    with pytest.raises(KernelError, match="no state"):
        backend.load_state([5, 6], 1)


def test_a_hollow_file_takes_no_room(tmp_path: Path) -> None:
    folder = write_hollow_checkpoint(tmp_path, 248_320)
    status = (folder / "model.safetensors").stat()
    assert status.st_size > 30 << 20
    assert status.st_blocks * 512 < 1 << 20
