"""A request's Guidance: what its thought, its grammar, its calls and its loop guard make of the answer."""

from qwick.engine.calls import CallsConstraint, Unheld
from qwick.engine.constraint import Constraint, Constraints, Grammar
from qwick.engine.guidance import Guidance
from qwick.engine.request import Request
from qwick.errors import UsageError


def guidance_of(request: Request, room: int, constraints: Constraints | None, vocab_size: int) -> Guidance | None:
    """None where it has nothing to say. `room`: most tokens of the answer. `constraints` None: no grammars are taken.

    Raises UsageError for a grammar that makes no sense.
    """
    has_budget = request.thought is not None and request.thought.budget is not None
    if not (request.grammars or has_budget or request.loop_guard):
        return None
    calls, stops = request.calls, request.sampling.stop_token_ids
    must_call = calls is not None and (calls.required or request.grammar is not None)
    found = Guidance(
        _constraint(request, constraints, vocab_size),
        request.thought,
        stops | {calls.begin} if calls is not None and must_call else stops,
        room=room,
        loop_guard=request.loop_guard,
        must_follow=must_call or request.grammar is not None,
    )
    if found.cut and request.grammars:
        raise UsageError(f"the {request.grammars[0].kind} allows no answer at all, or takes too long to follow")
    return found


def _constraint(request: Request, constraints: Constraints | None, vocab_size: int) -> Constraint | None:
    """What holds the answer to its grammars."""
    grammar, calls = request.grammar, request.calls
    text = None if grammar is None else _start(grammar, constraints)
    if calls is None:
        return text
    try:
        return CallsConstraint(calls, _start(calls.grammar, constraints), vocab_size, text)
    except UsageError as error:
        if calls.required or text is not None:
            raise
        return Unheld(f"the calls: {error}")


def _start(grammar: Grammar, constraints: Constraints | None) -> Constraint:
    if constraints is None:
        raise UsageError("this engine takes no grammars")
    return constraints.start(grammar)
