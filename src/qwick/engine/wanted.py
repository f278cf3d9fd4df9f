"""Which rows of a step want logits, what for, and what comes of them: tokens drawn, tokens of a prompt scored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from qwick.engine.request import Sequence
from qwick.engine.scheduler import PlannedRun
from qwick.ops.contract import Result
from qwick.sampling.logprobs import Scored, edited, score
from qwick.sampling.penalties import Penalties
from qwick.sampling.sampler import Allowed, sample, sample_allowed

SCORED_ROWS = 16  # tokens of prompts that one step scores: each takes all logits, 1 MB for the released vocabulary


@dataclass(frozen=True, slots=True)
class WantedRow:
    """row: of the batch; it predicts the token at `place` of the sequence, which is known, or to be drawn."""

    sequence: Sequence
    row: int
    place: int

    @property
    def is_drawn(self) -> bool:
        return self.place == len(self.sequence.token_ids)

    @property
    def is_scored(self) -> bool:
        return not self.is_drawn or self.sequence.request.top_logprobs is not None

    @property
    def allowed(self) -> Allowed | None:
        """Which tokens may be drawn; None: all."""
        guidance = self.sequence.guidance
        return guidance.allowed if guidance and self.is_drawn else None

    @property
    def needs_all(self) -> bool:
        """Whether all logits are wanted, as they are."""
        return self.is_scored or self.allowed is not None

    @property
    def penalties(self) -> Penalties | None:
        """Those that the head applies. Where scores are wanted it must not: they are of the logits as they are."""
        return None if self.needs_all else self.sequence.penalties


@dataclass(frozen=True, slots=True)
class Choice:
    """A token drawn, and its score if one was asked for."""

    token_id: int
    scored: Scored | None = None


def wanted_rows(plan: Iterable[PlannedRun]) -> list[WantedRow]:
    """In the order of the batch."""
    found: list[WantedRow] = []
    first = 0
    for run in plan:
        before = run.sequence.num_cached + 1  # the place that the run's first row predicts
        places = [*_scored(run)] + [len(run.sequence.token_ids)] * run.is_last
        found += [WantedRow(run.sequence, first + place - before, place) for place in places]
        first += run.num_tokens
    return found


def within_scores(plan: Iterable[PlannedRun]) -> Iterator[PlannedRun]:
    """The plan, cut so that no more than SCORED_ROWS tokens are scored. What is cut off comes in the next steps."""
    left = SCORED_ROWS
    for run in plan:
        scored, num_tokens = _scored(run), run.num_tokens
        if len(scored) > left:
            num_tokens = scored.start + left - 1 - run.sequence.num_cached
        left -= min(len(scored), left)
        if num_tokens:
            yield replace(run, num_tokens=num_tokens)


def choose(rows: Iterable[WantedRow], result: Result) -> dict[int, Choice]:
    """What was drawn, by sequence id; the scores of prompts' tokens are noted in their sequences.

    Raises CheckpointError when logits are not numbers.
    """
    choices: dict[int, Choice] = {}
    for index, wanted in enumerate(rows):
        sequence = wanted.sequence
        if wanted.is_drawn:
            choices[sequence.sequence_id] = _draw(wanted, result, index)
        else:
            assert result.logits is not None, "scores are of all logits"
            token_id = sequence.token_ids[wanted.place]
            scored = score(result.logits[index], token_id, sequence.request.top_logprobs or 0)
            sequence.prompt_scores[wanted.place] = scored
    return choices


def _draw(wanted: WantedRow, result: Result, index: int) -> Choice:
    sequence = wanted.sequence
    guidance, top = sequence.guidance, sequence.request.top_logprobs
    if guidance is not None and guidance.forced is not None:
        token_id = guidance.forced
    else:
        token_id = _drawn_token(wanted, result, index)
        token_id = guidance.instead(token_id) if guidance else token_id
    if top is None:
        return Choice(token_id)
    assert result.logits is not None, "scores are of all logits"
    return Choice(token_id, score(result.logits[index], token_id, top))


def _drawn_token(wanted: WantedRow, result: Result, index: int) -> int:
    sequence, allowed = wanted.sequence, wanted.allowed
    params = sequence.request.sampling
    if not wanted.needs_all:  # the head has edited them
        return sample(result, index, params, wanted.place)
    assert result.logits is not None, "all logits were wanted"
    logits = plain = result.logits[index]
    if sequence.penalties:
        logits = edited(logits, *sequence.penalties.entries())
    if allowed is None:
        return sample(Result(logits=logits[None]), 0, params, wanted.place)
    return sample_allowed(logits, plain, allowed, params, wanted.place)


def _scored(run: PlannedRun) -> range:
    """Places of the prompt whose tokens this run predicts and whose scores are wanted."""
    sequence = run.sequence
    if sequence.scored_from is None:
        return range(0)
    begin = sequence.num_cached + 1
    return range(max(begin, sequence.scored_from), min(begin + run.num_tokens, sequence.prompt_len))
