"""The tags of a tool call as patterns, for text that comes in pieces.

Each pattern but the last is searched in text that is not yet decided. Its leftmost match says what is certain before
it; the group `held` matches what may become something else, if only the empty end. More text never changes what was
certain, so what is found does not depend on the pieces.
"""

import re


def _begun(*tags: str) -> str:
    """A pattern of every beginning of a tag, but for the whole of it, and of nothing; only fit before an end."""
    return "(?:" + "|".join(re.escape(tag[:n]) for tag in tags for n in range(len(tag) - 1, -1, -1)) + ")"


# Blanks between tags are bounded, so that a flood of them is neither kept nor read again and again.
_S = r"\s{0,64}"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_NAMED = rf"{_FUNCTION}(?P<name>[^\s<>]{{1,128}})>"
_OBJECT = rf"(?={{{_S}[\"}}])"
_BODY_BEGUN = rf"(?:{_FUNCTION}[^\s<>]{{0,128}}|{{{_S}|{_begun(_FUNCTION)})"

OUTSIDE = re.compile(
    rf"{_S}{_CALL}{_S}(?:{_NAMED}|{_OBJECT})|(?P<held>{_S}(?:{_CALL}{_S}{_BODY_BEGUN}|{_begun(_CALL)})\Z)"
)
AFTER_CALL = re.compile(
    rf"{_S}(?:(?P<close>{_CALL_END})|{_NAMED}|{_OBJECT})|(?P<held>{_S}(?:{_BODY_BEGUN}|{_begun(_CALL_END)})\Z)"
)
IN_FUNCTION = re.compile(
    rf"{_PARAMETER}(?P<key>[^\n<>]{{1,256}})>|(?P<close>{_FUNCTION_END}|(?={_CALL_END}))"
    rf"|(?P<held>(?:{_PARAMETER}[^\n<>]{{0,256}}|{_begun(_PARAMETER, _FUNCTION_END, _CALL_END)})\Z)"
)
# A value ends where its closer is followed by what may follow it in a call, or where only closers follow to the end of
# the answer; so it may hold such tags itself.
IN_VALUE = re.compile(
    rf"\n?{_PARAMETER_END}{_S}(?={_PARAMETER}|{_FUNCTION_END}|{_CALL_END})"
    rf"|(?P<held>\n?(?:{_PARAMETER_END}{_S}{_begun(_PARAMETER, _FUNCTION_END, _CALL_END)}|{_begun(_PARAMETER_END)}"
    rf"|{_FUNCTION_END}{_S}(?:{_CALL_END}{_S}|{_begun(_CALL_END)})|{_begun(_FUNCTION_END)}"
    rf"|{_CALL_END}{_S}|{_begun(_CALL_END)})\Z)"
)
VALUE_AT_END = re.compile(rf"\n?(?:{_PARAMETER_END}{_S})?(?:{_FUNCTION_END}{_S})?(?:{_CALL_END}{_S})?\Z")
