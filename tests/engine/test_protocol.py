"""Messages between an engine and its parent: what crosses, and what does not."""

import math
import os
import pickle
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.engine.protocol import Failure, Frames, Loading, ProtocolError, Stepped, Submit, decode, encode
from qwick.engine.request import Event, Finish, Request, Stats
from qwick.errors import CapacityError, CheckpointError, EngineError, QwickError, TemplateError, UsageError
from qwick.sampling.params import SamplingParams

SAMPLING = SamplingParams(logit_bias={3: -math.inf, 4: 1.5}, stop_token_ids=frozenset({7}), seed=2**64 - 1)
MESSAGES = [
    Submit(5, Request((1, 2, 3), SAMPLING)),
    Stepped.of([(5, Event(0, 17, Stats(3, 1, 0.25), Finish.STOP))], (6,)),
    Loading(1, 2),
    Stepped(),
]


@given(st.data())
def test_messages_cross_however_the_bytes_are_cut(data):
    stream = b"".join(map(encode, MESSAGES))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, found = Frames(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.push(stream[begin:end])
    assert found == MESSAGES


def test_events_cross_as_they_were():
    events = [
        (3, Event(7, 1, Stats(5, 2, 0.5, 0.25, 4))),
        (4, Event(8, 2, Stats(6), finish=Finish.LENGTH)),
    ]
    (crossed,) = Frames().push(encode(Stepped.of(iter(events), (9,))))
    assert list(crossed.events) == events
    assert crossed.began == (9,)


def test_numbers_of_numpy_cross_as_plain_ones():
    request = Request(tuple(np.arange(3)), SamplingParams(temperature=np.float32(0.5), seed=np.int64(3)))
    (crossed,) = Frames().push(encode(Submit(1, request)))
    assert crossed.request == request
    assert {type(i) for i in crossed.request.token_ids} == {int}
    assert type(crossed.request.sampling.temperature) is float


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Hostile(os.system, "true"),
        Hostile(eval, "1"),
        Hostile(getattr, "", "x"),
        Hostile(os.getpid),
        EngineError("x"),
        len,
    ],
)
def test_nothing_but_messages_is_made(value):
    with pytest.raises(ProtocolError):
        decode(pickle.dumps(value))


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage):
    with suppress(ProtocolError):
        decode(garbage)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_message_is_refused_or_another_message(at, byte):
    frame = bytearray(encode(MESSAGES[0])[4:])
    frame[at % len(frame)] = byte
    with suppress(ProtocolError):
        decode(bytes(frame))


def test_a_frame_too_long_is_refused():
    with pytest.raises(ProtocolError, match="bytes"):
        list(Frames().push(struct.pack("<I", 1 << 31)))


@pytest.mark.parametrize("kind", [UsageError, CheckpointError, CapacityError, TemplateError, EngineError, QwickError])
def test_errors_of_ours_cross_as_they_are(kind):
    error = Failure.of(kind("what it said"), "here").error
    assert type(error) is kind
    assert str(error) == "what it said"


def test_other_errors_are_the_engine_s():
    class OwnError(UsageError):
        pass

    assert type(Failure.of(ZeroDivisionError("x"), "in a step").error) is EngineError
    assert type(Failure.of(MemoryError(), "in a step").error) is CapacityError
    assert type(Failure.of(OwnError("x"), "in a step").error) is EngineError
    assert type(Failure("__name__", "x").error) is type(Failure("Nothing", "x").error) is EngineError
