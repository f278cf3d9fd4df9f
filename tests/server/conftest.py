from collections.abc import Iterator

import openai
import pytest

from tests.server.running import Running, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The embedded model, for everything that leaves the server as it was."""
    with serving(tmp_path_factory.mktemp("server"), "--alias", "gpt-4o") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with server.client() as found:
        yield found
