"""Whether a request makes sense to a model of so many tokens; what does not fit in memory is the engine's to say."""

from collections.abc import Sequence

from qwick.engine.request import Request
from qwick.errors import UsageError
from qwick.sampling.logprobs import MOST_TOP


def check_request(request: Request, vocab_size: int) -> None:
    """Raises UsageError naming what is wrong: a token id, a place in the prompt, a number."""
    ids = request.token_ids
    if not ids:
        raise UsageError("the prompt is empty")
    _check_ids(ids, vocab_size)
    request.sampling.check_ids(vocab_size)
    for place in request.boundaries:
        if not 1 <= place <= len(ids):
            raise UsageError(f"a boundary is at {place}; it must be from 1 to the prompt's {len(ids):,} tokens")
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= MOST_TOP:
        raise UsageError(f"top_logprobs is {request.top_logprobs}; it must be from 0 to {MOST_TOP}")
    begin = request.prompt_logprobs_from
    if begin is not None and not 1 <= begin <= len(ids):
        raise UsageError(f"prompt_logprobs_from is {begin}; it must be from 1 to the prompt's {len(ids):,} tokens")
    if (thought := request.thought) is not None:
        _check_ids((thought.end, *thought.lead, *thought.closing), vocab_size)
    if (calls := request.calls) is not None:
        _check_ids((calls.begin, *calls.between, calls.stop), vocab_size)


def _check_ids(ids: Sequence[int], vocab_size: int) -> None:
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise UsageError(f"token ids must be from 0 to {vocab_size - 1}")
