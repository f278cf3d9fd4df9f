"""Plans: within the budget, nobody twice, decoding sequences before prompts, and everybody finishes."""

from hypothesis import given
from hypothesis import strategies as st

from qwick.cache.kept import Held
from qwick.engine.request import Request, Sequence
from qwick.engine.scheduler import plan
from qwick.ops.contract import Role
from qwick.sampling.params import SamplingParams


@st.composite
def sequences(draw):
    """Some in their prompt, some decoding; each at least one token behind."""
    made = []
    for i in range(draw(st.integers(0, 8))):
        prompt = draw(st.integers(1, 200))
        generated = draw(st.integers(0, 5))
        known = prompt + generated
        cached = known - 1 if generated else draw(st.integers(0, prompt - 1))
        request = Request(tuple(range(prompt)), SamplingParams())
        made.append(Sequence(i, request, list(range(known)), Held(i, []), num_cached=cached))
    return draw(st.permutations(made))


@given(sequences(), st.integers(1, 300))
def test_a_plan_is_within_the_budget_and_fair(waiting, budget):
    runs = plan(waiting, budget)
    ids = [run.sequence.sequence_id for run in runs]
    assert len(set(ids)) == len(ids)
    total = sum(run.num_tokens for run in runs)
    assert total == min(budget, sum(s.num_behind for s in waiting))  # no row is wasted
    assert all(1 <= run.num_tokens <= run.sequence.num_behind for run in runs)
    assert all(run.is_last == (run.num_tokens == run.sequence.num_behind) for run in runs)
    # At most one run is cut short, the last; whoever is one token behind goes before longer ones.
    assert all(run.is_last for run in runs[:-1])
    behind = [run.sequence.num_behind > 1 for run in runs]
    assert behind == sorted(behind)
    left_out = [s for s in waiting if s.sequence_id not in ids]
    if left_out and any(s.num_behind == 1 for s in left_out):
        assert not any(behind)


@given(sequences(), st.integers(1, 64))
def test_older_prompts_go_first(waiting, budget):
    prompts = [run.sequence.sequence_id for run in plan(waiting, budget) if run.sequence.num_behind > 1]
    assert prompts == sorted(prompts)


@given(sequences(), st.integers(1, 64))
def test_plans_bring_every_prompt_to_its_end(waiting, budget):
    steps = 0
    todo = list(waiting)
    while todo:
        for run in plan(todo, budget):
            run.sequence.num_cached += run.num_tokens
        todo = [s for s in todo if s.num_behind]
        steps += 1
        assert steps <= sum(len(s.token_ids) for s in waiting)


@given(sequences())
def test_the_role_is_that_of_the_next_token(waiting):
    for sequence in waiting:
        in_prompt = sequence.num_cached < len(sequence.request.token_ids)
        assert sequence.role is (Role.PROMPT if in_prompt else Role.DECODE)
