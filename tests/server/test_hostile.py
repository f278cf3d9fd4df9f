"""Whatever is sent, there is no 500: schemathesis, over the server's own description of itself."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.server.running import Running

ASKED = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
)


@pytest.mark.parametrize(("method", "path"), ASKED)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_500(server: Running, method: str, path: str, mode: schemathesis.GenerationMode) -> None:
    operation = schemathesis.openapi.from_url(f"{server.url}/openapi.json")[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and "max_tokens" in case.body:
            case.body["max_tokens"] = 2  # so that answers end soon
        answer = case.call(timeout=60)
        assert answer.status_code < 500, answer.text

    run()
