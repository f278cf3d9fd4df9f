"""Templates of unknown origin: whatever they try ends in TemplateError or in harmless text, and soon.

The limit on time is the process's own (`RENDER_SECONDS`); pytest's timeout catches what would escape it.
"""

import contextlib
from collections.abc import Iterator

import pytest

from qwick.errors import TemplateError
from qwick.text.quoting import Json
from qwick.text.template_process import RENDER_SECONDS, TemplateProcess

VARIABLES: dict[str, Json] = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    started = TemplateProcess()
    yield started
    started.close()


def still_renders(process: TemplateProcess) -> bool:
    return process.render("{{ messages[0].content }}", VARIABLES) == "Hi"


def test_the_limit_keeps_the_whole_below_two_seconds() -> None:
    assert RENDER_SECONDS < 2


# Each of these would run for minutes or for ever.
ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops in a call block": "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endcall %}",
    "fifteen short loops": "{% for i in range(10) %}" * 15 + "{% endfor %}" * 15,
    "a macro that branches": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(100) }}",
    "a list copied at each step": "{% set n = namespace(l=[]) %}"
    "{% for i in range(99999) %}{% set n.l = n.l + [i] %}{% endfor %}",
    "a sum of 200,000": "{{ 1" + "+1" * 200_000 + " }}",
}

TOO_MUCH = {
    "multiplied text": "{{ 'a' * 10 ** 10 }}",
    "64 MB of text": "{{ 'a' * 64 * 10 ** 6 }}",
    "a multiplied list": "{{ [0] * 10 ** 9 }}",
    "doubled text": "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a huge range": "{{ range(10 ** 9)|list }}",
    "center": "{{ 'a'|center(10 ** 9) }}",
    "indent": "{{ 'a\n'|indent(10 ** 9, true) }}",
    "printf": "{{ '%1000000000d' % 1 }}",
    "the format filter": "{{ '%1000000000d'|format(1) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "ljust": "{{ 'a'.ljust(10 ** 10) }}",
    "replace": "{{ ('a' * 10 ** 5).replace('a', 'b' * 10 ** 5) }}",
    "tojson": "{{ messages|tojson(indent=10 ** 9) }}",
    "a number": "{{ (10 ** 1000000)|string }}",
    "a message of an error": "{{ raise_exception('x' * 10 ** 8) }}",
}

TOO_DEEP = {
    "a macro": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "two macros": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a recursive loop": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "signs": "{{ " + "-" * 500_000 + "1 }}",
    "blocks": "{% if 1 %}" * 5_000 + "{% endif %}" * 5_000,
    "a list in lists": "{% set n = namespace(l=[]) %}"
    "{% for i in range(50000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l|tojson }}",
}

FORBIDDEN = {
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'x' %}",
    "changing a list": "{{ messages.append(1) }}",
    "changing a message": "{{ messages[0].update({'role': 'system'}) }}",
    "globals of a function": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "init of a class": "{{ cycler.__init__.__globals__ }}",
    "a dunder on a namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "a dunder of a name": "{{ namespace(__class__=1) }}",
    "the mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
    "syntax": "{{ x",
    "an undefined name": "{{ nothing.there }}",
    "an unknown tag": "{% do messages %}",
    "break outside a loop": "{% break %}",
}


@pytest.mark.parametrize("source", [*ENDLESS.values()], ids=[*ENDLESS])
def test_what_never_ends_is_ended(process: TemplateProcess, source: str) -> None:
    with pytest.raises(TemplateError, match="did not end"):
        process.render(source, VARIABLES)
    assert still_renders(process)


@pytest.mark.parametrize("source", [*TOO_MUCH.values()], ids=[*TOO_MUCH])
def test_what_needs_too_much_is_refused(process: TemplateProcess, source: str) -> None:
    with pytest.raises(TemplateError):
        process.render(source, VARIABLES)
    assert still_renders(process)


@pytest.mark.parametrize("source", [*TOO_DEEP.values()], ids=[*TOO_DEEP])
def test_what_recurses_is_refused(process: TemplateProcess, source: str) -> None:
    with pytest.raises(TemplateError):
        process.render(source, VARIABLES)
    assert still_renders(process)


@pytest.mark.parametrize("source", [*FORBIDDEN.values()], ids=[*FORBIDDEN])
def test_what_is_forbidden_is_refused(process: TemplateProcess, source: str) -> None:
    with pytest.raises(TemplateError):
        process.render(source, VARIABLES)
    assert still_renders(process)


@pytest.mark.parametrize(
    "path",
    [
        "''.__class__",
        "''|attr('__class__')|attr('__mro__')",
        "messages['__class__']",
        "messages|map(attribute='__class__')|list",
        "(messages|map('upper')).gi_frame",
        "self._TemplateReference__context",
        "raise_exception.__globals__",
        "raise_exception.__code__",
        "namespace.__init__",
        "'{x.__class__}'.format_map({'x': 1})",
        "''.format.__self__.__class__",
        "loop",
        "joiner.__call__.__globals__",
        "tojson.__globals__",
    ],
)
def test_nothing_of_python_shows_through(process: TemplateProcess, path: str) -> None:
    """Refused, or rendered as if it were not there."""
    with contextlib.suppress(TemplateError):
        assert process.render(f"{{{{ {path} }}}}", VARIABLES) in ("", "[Undefined]")
