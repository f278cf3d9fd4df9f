"""Whatever is sent, there is no 500: schemathesis, over the server's own description of itself."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from tests.server.running import Running

PATHS = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/v1/models", "/v1/models/{name}")


@pytest.fixture(scope="module")
def described(server: Running) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_500(case: schemathesis.Case) -> None:
    if isinstance(case.body, dict) and "max_tokens" in case.body:
        case.body["max_tokens"] = 2  # so that answers end soon
    answer = case.call(timeout=60)
    assert answer.status_code < 500, answer.text
