"""What is said of answers that did not end by themselves."""

from qwick.api.endings import interventions, warnings_of
from qwick.engine.guidance import Cut, ThoughtEnd
from qwick.engine.request import Stats
from qwick.streams import Completion


def ended(cut: Cut | None = None, thought: ThoughtEnd | None = None) -> Completion:
    return Completion("x", (1,), "length", Stats(1, cut=cut, thought_ended=thought))


def test_every_way_to_end_has_a_word_and_a_sentence() -> None:
    words = set[str]()
    for cut in Cut:
        for thought in ThoughtEnd:
            completion = ended(cut, thought)
            assert len(warnings_of(completion)) == len(interventions([completion])) == 2
            words.update(interventions([completion]))
    assert words == {"thought_budget", "thought_loop", "answer_loop", "answer_grammar"}
    assert warnings_of(ended()) == interventions([ended(), ended()]) == []


def test_of_several_choices_it_is_said_which() -> None:
    assert warnings_of(ended(Cut.LOOP), 3)[0].startswith("choice 3: ")
