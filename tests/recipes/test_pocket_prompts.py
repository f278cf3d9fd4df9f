"""What qwick makes of messages for the pocket model is what it was trained on, token by token."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from recipes.pocket import folder, tasks
from recipes.pocket.rendering import conversation, prompt
from recipes.pocket.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("pocket")
    make_tokenizer().save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(folder.tokenizer_config_json(make_tokenizer())))
    (path / "generation_config.json").write_text(json.dumps(folder.generation_config_json(make_tokenizer())))
    return Tokenizer.open(path)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(tasks.TASKS)), st.booleans())
def test_prompts_are_the_trained_ones(tokenizer: Tokenizer, seed: int, task: str, think: bool):
    example = tasks.TASKS[task](random.Random(seed))
    last = len(example.messages) - 1
    messages = [{k: v for k, v in m.items() if think or k != "reasoning_content"} for m in example.messages[:last]]
    template = ChatTemplate(folder.TEMPLATE_FILE.read_text())
    pieces = template.render(messages, think=think, control_tokens=tokenizer.added_tokens, tools=example.tools)
    ids = tokenizer.encode_pieces(pieces)
    assert list(ids) == list(tokenizer.encode(prompt(example, last, think=think), allow_special=True))
    trained = conversation(make_tokenizer(), example, think=think)
    assert list(ids) == trained.ids[: len(ids)]
    assert trained.learned[len(ids)]
    assert not trained.learned[len(ids) - 1]
