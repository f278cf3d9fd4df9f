"""The tags of a tool call as patterns, for text that comes in pieces.

Each pattern but the last is searched in text that is not yet decided. Its leftmost match says what is certain before
it; the group `held` matches what may become something else, if only the empty end. More text never changes what was
certain, so what is found does not depend on the pieces.
"""

import re
from functools import cache

NAME = r"[^\s<>]{1,128}"  # of a function
KEY = r"[^\n<>]{1,256}"  # of a parameter


def _begun(*tags: str) -> str:
    """A pattern of every beginning of a tag, but for the whole of it, and of nothing; only fit before an end."""
    return "(?:" + "|".join(re.escape(tag[:n]) for tag in tags for n in range(len(tag) - 1, -1, -1)) + ")"


# Blanks between tags are bounded, so that a flood of them is neither kept nor read again and again.
_S = r"\s{0,64}"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_NAMED = rf"{_FUNCTION}(?P<name>{NAME})>"
_OBJECT = rf"(?={{{_S}[\"}}])"
_BODY_BEGUN = rf"(?:{_FUNCTION}[^\s<>]{{0,128}}|{{{_S}|{_begun(_FUNCTION)})"

# Compiled when tools are first offered: it takes some milliseconds, which no start without them should wait for.


@cache
def outside() -> "re.Pattern[str]":
    """A call begins: a function with its `name`, or an object in the call's tag."""
    return re.compile(
        rf"{_S}{_CALL}{_S}(?:{_NAMED}|{_OBJECT})|(?P<held>{_S}(?:{_CALL}{_S}{_BODY_BEGUN}|{_begun(_CALL)})\Z)"
    )


@cache
def after_call() -> "re.Pattern[str]":
    """To be matched behind a call: its tag is closed, or another one begins."""
    return re.compile(
        rf"{_S}(?:(?P<close>{_CALL_END})|{_NAMED}|{_OBJECT})|(?P<held>{_S}(?:{_BODY_BEGUN}|{_begun(_CALL_END)})\Z)"
    )


@cache
def in_function() -> "re.Pattern[str]":
    """A parameter begins, with its `key`, or the function ends."""
    return re.compile(
        rf"{_PARAMETER}(?P<key>{KEY})>|(?P<close>{_FUNCTION_END}|(?={_CALL_END}))"
        rf"|(?P<held>(?:{_PARAMETER}[^\n<>]{{0,256}}|{_begun(_PARAMETER, _FUNCTION_END, _CALL_END)})\Z)"
    )


@cache
def in_value() -> "re.Pattern[str]":
    """A value ends: its closer is followed by what may follow it in a call, or by closers only, to the answer's end.

    So it may hold such tags itself.
    """
    return re.compile(
        rf"\n?{_PARAMETER_END}{_S}(?={_PARAMETER}|{_FUNCTION_END}|{_CALL_END})"
        rf"|(?P<held>\n?(?:{_PARAMETER_END}{_S}{_begun(_PARAMETER, _FUNCTION_END, _CALL_END)}|{_begun(_PARAMETER_END)}"
        rf"|{_FUNCTION_END}{_S}(?:{_CALL_END}{_S}|{_begun(_CALL_END)})|{_begun(_FUNCTION_END)}"
        rf"|{_CALL_END}{_S}|{_begun(_CALL_END)})\Z)"
    )


@cache
def value_at_end() -> "re.Pattern[str]":
    """What closes a value where no more text comes."""
    return re.compile(rf"\n?(?:{_PARAMETER_END}{_S})?(?:{_FUNCTION_END}{_S})?(?:{_CALL_END}{_S})?\Z")
