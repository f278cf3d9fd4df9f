"""docs/cli.md is what the code says."""

from scripts.write_cli_docs import PAGE, page

from qwick.cli.failures import EXIT_CODES
from qwick.cli.main import ENVIRONMENT


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "the commands have changed: make docs"


def test_the_page_has_every_command_and_option() -> None:
    text = page()
    for word in ("## qwick run", "## qwick inspect", "## qwick doctor", "`--top-k N`", "`--think, --no-think`"):
        assert word in text
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text
    for variable in ENVIRONMENT:
        assert f"`{variable}`" in text
