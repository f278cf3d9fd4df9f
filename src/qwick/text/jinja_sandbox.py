"""Chat templates, rendered as transformers does (`utils/chat_template_utils.py`), in Jinja's immutable sandbox.

This file also runs as a program: a child process that renders the templates nobody vouches for (see
template_process.py). It therefore imports the standard library and Jinja only.
"""

import datetime as dt
import functools
import json
import sys
from typing import Any, NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

MEMORY_BYTES = 512 << 20  # of a child process


class Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}` marks what to train on; here it is just its content."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class PlainNamespace(jinja2.utils.Namespace):
    """`namespace(...)` without names that begin with an underscore: Python's own live there."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # as Jinja's, so that namespace(self=1) works
        for name in dict(*args[1:], **kwargs):
            _check_name(name)
        jinja2.utils.Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"the template sets {name!r} on a namespace")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML; models were trained without.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)


@functools.lru_cache(maxsize=8)
def compile_template(source: str) -> jinja2.Template:
    """`source` ready to render. Raises jinja2.TemplateSyntaxError."""
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    filters: dict[str, Any] = {"tojson": _tojson}
    names: dict[str, Any] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": PlainNamespace,
    }
    cast("Any", sandbox).filters |= filters
    cast("Any", sandbox).globals |= names
    return sandbox.from_string(source)


def describe(error: BaseException) -> str:
    """What went wrong, in one line."""
    match error:
        case jinja2.TemplateSyntaxError():
            return f"line {error.lineno}: {error.message}"
        case jinja2.TemplateError():
            return str(error.message or error)
        case RecursionError():
            return "it recurses too deeply"
        case MemoryError():
            return f"it needs more than {MEMORY_BYTES >> 20} MiB of memory"
        case _:
            return f"{type(error).__name__}: {error}"


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": compile_template(request["source"]).render(request["variables"])}
    except Exception as error:  # noqa: BLE001 (a template may raise anything)
        return {"error": describe(error)}


def serve() -> None:
    """Answer requests, one JSON object a line, until standard input ends."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
