"""Plans: within the budget, nobody twice, decoding sequences before prompts, and everybody finishes."""

from hypothesis import given
from hypothesis import strategies as st

from qwick.engine.pace import LEAST_ROWS, MOST_DELAY, Pace
from qwick.engine.request import Request, Sequence
from qwick.engine.scheduler import plan
from qwick.ops.contract import Role
from qwick.sampling.params import SamplingParams


@st.composite
def sequences(draw):
    """Some in their prompt, some decoding, some reading what they had generated again; each a token behind at least."""
    made = []
    for i in range(draw(st.integers(0, 8))):
        prompt = draw(st.integers(1, 200))
        generated = draw(st.integers(0, 5))
        known = prompt + generated
        cached = draw(st.integers(0, known - 1))
        sequence = Sequence(i, Request(tuple(range(prompt)), SamplingParams()), num_cached=cached)
        sequence.token_ids = list(range(known))
        made.append(sequence)
    return draw(st.permutations(made))


@given(sequences(), st.integers(1, 300), st.integers(1, 300))
def test_a_plan_is_within_the_budget_and_fair(waiting, budget, long_budget):
    runs = plan(waiting, budget, long_budget)
    ids = [run.sequence.sequence_id for run in runs]
    assert len(set(ids)) == len(ids)
    assert all(1 <= run.num_tokens <= run.sequence.num_alike for run in runs)
    assert all(run.is_last == (run.num_tokens == run.sequence.num_behind) for run in runs)
    short = [s for s in waiting if s.is_short]
    long = [s for s in waiting if not s.is_short]
    counts = {run.sequence: run.num_tokens for run in runs}
    # Whoever decodes comes first, a row each and then what was forced; then no row is wasted.
    assert sum(s in counts for s in short) == min(len(short), budget)
    used = sum(counts.get(s, 0) for s in short)
    assert used == min(sum(s.num_behind for s in short), budget)
    left = min(budget - used, long_budget)
    assert sum(counts.get(s, 0) for s in long) == min(left, sum(s.num_alike for s in long))
    if long and left:
        oldest = min(long, key=lambda s: s.sequence_id)
        assert counts[oldest] >= min(oldest.num_alike, (left + 1) // 2)


@given(sequences(), st.integers(1, 64))
def test_nobody_longer_goes_before_a_shorter_younger_one(waiting, budget):
    """But for the oldest, who has half of the rows: a short question need not wait for a long one."""
    counts = {run.sequence: run.num_tokens for run in plan(waiting, budget, budget)}
    long = sorted((s for s in waiting if not s.is_short), key=lambda s: s.sequence_id)
    for sequence in long[1:]:
        if counts.get(sequence, 0) < sequence.num_alike:
            longer = [other for other in long[1:] if other.num_alike > sequence.num_alike]
            assert not any(other in counts for other in longer)


@given(sequences(), st.integers(1, 64), st.integers(1, 64))
def test_plans_bring_every_prompt_to_its_end(waiting, budget, long_budget):
    steps = 0
    todo = list(waiting)
    while todo:
        for run in plan(todo, budget, long_budget):
            run.sequence.num_cached += run.num_tokens
        todo = [s for s in todo if s.num_behind]
        steps += 1
        assert steps <= sum(len(s.token_ids) for s in waiting)


@given(sequences())
def test_the_role_is_that_of_the_next_token(waiting):
    for sequence in waiting:
        in_prompt = sequence.num_cached < sequence.prompt_len
        assert sequence.role is (Role.PROMPT if in_prompt else Role.DECODE)
        end = sequence.num_cached + sequence.num_alike
        assert end == (sequence.prompt_len if in_prompt else len(sequence.token_ids))


def test_who_only_reads_is_never_sampled():
    sequence = Sequence(0, Request((1, 2, 3), SamplingParams()), reads_only=True)
    (run,) = plan([sequence], 8, 8)
    assert run.num_tokens == 3
    assert not run.is_last


@given(
    alone=st.floats(0.001, 0.5), row=st.floats(0.0001, 0.2), short=st.integers(1, 16), step_tokens=st.integers(32, 600)
)
def test_prompts_do_not_hold_answers_up_for_long(alone, row, short, step_tokens):
    """Where a step takes `alone` and each prompt row `row` more."""
    pace = Pace(step_tokens)
    pace.note(0, step_tokens, row * step_tokens)
    assert pace.long_tokens(0) == step_tokens
    assert pace.long_tokens(short) == LEAST_ROWS
    for _ in range(60):
        pace.note(short, 0, alone)
        rows = pace.long_tokens(short)
        assert LEAST_ROWS <= rows <= step_tokens
        pace.note(short, rows, alone + rows * row)
    assert rows == LEAST_ROWS or alone + rows * row <= MOST_DELAY * alone
    assert rows == step_tokens or alone + 2 * max(rows, LEAST_ROWS) * row > MOST_DELAY * alone  # and not too timid


@given(
    weights=st.floats(0.001, 0.5),
    each=st.floats(0, 0.1),
    row=st.floats(0.0001, 0.2),
    first=st.floats(0, 0.1),
    before=st.integers(1, 16),
    now=st.integers(1, 16),
)
def test_what_many_answers_took_is_no_measure_for_few(weights, each, row, first, before, now):
    """A step reads the weights, and takes `each` more an answer; prompt rows have a price for the first one, too."""

    def seconds(short, long):
        return weights * (short > 0) + each * short + (first + row * long) * (long > 0)

    pace = Pace(512)
    pace.note(0, 512, seconds(0, 512))
    for _ in range(30):
        pace.note(before, 0, seconds(before, 0))
    for _ in range(60):
        rows = pace.long_tokens(now)
        pace.note(now, rows, seconds(now, rows))
    assert rows == LEAST_ROWS or seconds(now, rows) <= MOST_DELAY * seconds(now, 0)


@given(row=st.floats(1e-5, 0.2), seconds=st.floats(0.01, 1))
def test_what_is_read_at_leisure_takes_about_the_time_it_may(row, seconds):
    pace = Pace(512)
    assert pace.rows_within(seconds) == LEAST_ROWS
    pace.note(0, 100, 100 * row)
    rows = pace.rows_within(seconds)
    assert rows == LEAST_ROWS or rows * row <= seconds * 1.001
    assert rows == 512 or (rows + 1) * row >= seconds * 0.999
