"""Requests that wait for their grammars, and nobody else for them."""

from threading import Event
from time import sleep

from qwick.engine.preparing import Preparing
from qwick.engine.protocol import Submit
from qwick.engine.request import Request
from qwick.sampling.params import SamplingParams


class Slow:
    """An engine whose grammars take as long as the test wants; one of them fails."""

    def __init__(self):
        self.gates = {i: Event() for i in range(5)}
        self.prepared = []

    def prepare(self, request):
        number = request.token_ids[0]
        assert self.gates[number].wait(60)
        self.prepared.append(number)
        if number == 1:
            raise ValueError("a bug")


def submit(number):
    return Submit(number, Request((number,), SamplingParams()))


def some(preparing):
    """What is done, at least one."""
    while not (found := [each.request_id for each in preparing.done()]):
        sleep(0.001)
    return found


def test_they_come_back_in_their_order_and_nobody_waits():
    """A failure of one is no end of the others: adding it to the engine tells what is wrong."""
    engine = Slow()
    preparing = Preparing(engine)
    assert not preparing.has_work
    for number in range(3):
        preparing.add(submit(number))
    assert not list(preparing.done())
    assert preparing.has_work
    for number in (2, 0):
        engine.gates[number].set()
    assert some(preparing) == [0]
    engine.gates[1].set()
    assert some(preparing)[0] == 1
    assert not preparing.has_work or some(preparing) == [2]
    assert not preparing.has_work
    assert engine.prepared == [0, 1, 2]


def test_what_nobody_wants_any_more_is_dropped():
    engine = Slow()
    preparing = Preparing(engine)
    for number in (0, 3, 4):
        preparing.add(submit(number))
    preparing.drop(0)
    preparing.drop(3)
    preparing.drop(77)
    for number in (0, 4):
        engine.gates[number].set()
    assert some(preparing) == [4]
    assert not preparing.has_work
    assert 3 not in engine.prepared  # its grammar was never begun
