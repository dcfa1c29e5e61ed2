"""What does numba's complaint mean to the author of the kernel?

Numba's messages run to thirty lines and more, of which one says what is wrong and one says where. The error we raise
has those two. Its cause is numba's own, cut down to what is wrong and the lines of source that it shows, each once: how
numba searched is in the fact `numba_message`.
"""

from __future__ import annotations

import os
import re
from typing import Any

from shmarray.errors import KernelCompileError

__all__ = ["READ_ONLY", "compile_error"]

#: In the reason where the function writes to what it must not.
READ_ONLY = "an array that it may only read"

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: The three ways numba writes a place.
_PLACE = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+)'
    r"|(?: at|Raised from) (?P<file_at>\S[^()\n]*) \((?P<line_at>\d+)\)"
)
_NUMBA = os.sep + "numba" + os.sep
#: Lines that say how numba searched, not what is wrong.
_NOISE = re.compile(
    r"^(Failed in \w+ mode pipeline.*|During: .*|File \".*|<source .*|- (Resolution|argument).*|-+|\.\.\."
    r"|There are \d+ candidate.*|.*candidate implementations?:?|This error may have been caused.*|\[\d+\].*"
    r"|For more information visit.*|If you think your code.*|This is not usually a problem.*|Overload .*"
    r"|- Of which .*|Enable logging at debug level.*|Unsupported functionality was found.*)$"
)
#: What a function of numba's own, one of several that it tried, had against the arguments.
_REFUSED = re.compile(r"raised a specific error:\n\s*(.*)")
#: A place and the lines of source there, up to the mark under the last.
_SHOWN = re.compile(r'^File "([^"]+)", line \d+:\n(?:.+\n)*?[ \t]*\^', re.MULTILINE)
#: What plain Python would refuse as well.
_WRONG_IN_PYTHON = re.compile(r"is not defined|beyond the halo|a window onto an array|may only read|\bstr\b")
_CALLED = re.compile(r"Function\(<(?:built-in function|ufunc|function|class) '?([\w.]+)[^>]*>\)")


def compile_error(error: BaseException, function: object) -> KernelCompileError:
    """Return the error to raise (from `error`, whose text is shortened) when `function` does not compile.

    Its facts are `kernel` (the function's name), `filename` and `lineno`: of the offending line where numba
    names one outside itself, be it in a function that the kernel calls; else of the kernel; and `numba_message`.
    """
    python = getattr(function, "py_func", function)
    kernel = getattr(python, "__qualname__", repr(python))
    text = _COLOUR.sub("", str(error))
    filename, lineno = _place(error, text, getattr(python, "__code__", None))
    reason = _reason(text) or type(error).__name__
    if type(error).__module__.partition(".")[0] == "numba":
        error.args = (_in_short(text),)
    hint = "" if _WRONG_IN_PYTHON.search(reason) else "; jit=False runs it as plain Python"
    return KernelCompileError(
        f"numba cannot compile {kernel} ({filename}:{lineno}): {reason}{hint}",
        kernel=kernel,
        filename=filename,
        lineno=lineno,
        numba_message=text,
    )


def _in_short(text: str) -> str:
    """What is wrong, why the functions that numba tried refused, and the lines of source that it shows, each once."""
    parts = [_wrong(text)]
    parts += (match[1].strip() for match in _REFUSED.finditer(text))
    parts += (match[0].rstrip() for match in _SHOWN.finditer(text) if _NUMBA not in match[1])
    return "\n\n".join(dict.fromkeys(part for part in parts if part)) or text


def _place(error: BaseException, text: str, code: Any) -> tuple[str, int]:
    # The innermost place comes first. Those in numba itself tell where it gave up.
    for match in _PLACE.finditer(text):
        filename = match["file"] or match["file_at"]
        if _NUMBA not in filename:
            # numba shortens paths to the working directory's
            absolute = os.path.abspath(filename)
            found = absolute if os.path.exists(absolute) else filename
            return found, int(match["line"] or match["line_at"])
    location: Any = getattr(error, "loc", None)
    if isinstance(getattr(location, "line", None), int) and _NUMBA not in str(location.filename):
        return str(location.filename), int(location.line)
    return getattr(code, "co_filename", "<unknown>"), int(getattr(code, "co_firstlineno", 0))


def _reason(text: str) -> str:
    if "Cannot modify readonly array" in text:
        return (
            f"it writes to {READ_ONLY}: one of mode 'r', one broadcast from a smaller shape, or a global one, which is "
            "a constant in compiled code"
        )
    reason = re.sub(r"[.\s]*Raised from .*", "", _wrong(text))
    return _plain(_CALLED.sub(r"\1", reason).rstrip("."))


def _wrong(text: str) -> str:
    """The line that says what is wrong, in numba's words; empty where there is none."""
    lines = (line.strip() for line in text.splitlines())
    kept = [line for line in lines if line and not _NOISE.match(line)]
    if len(kept) > 1 and kept[0].endswith(":"):  # "No implementation of function ... found for signature:"
        return f"{kept[0]} {kept[1].removeprefix('>>>').strip()}"
    return kept[0] if kept else ""


#: numba's names of types, and what an author calls them.
_TYPE_NAMES = (
    (re.compile(r"Literal\[str\]\([^()]*(?:\([^()]*\)[^()]*)*\)|unicode_type|\[unichr x \d+\]"), "str"),
    (re.compile(r"Literal\[(\w+)\]\(([^()]*)\)"), r"\1 \2"),
    (re.compile(r"OptionalType\(([^()]*)\)"), r"\1 or None"),
    (re.compile(r"\bnone\b"), "None"),
    (re.compile(r"(?:readonly )?array\((\w+), (\d+)d, \w\)"), r"array of \1 (\2-d)"),
    (re.compile(r"UniTuple\((\w+) x (\d+)\)"), r"tuple of \2 \1"),
)
_UNIFY_RETURNED = re.compile(r"Can't unify return type from the following types: (.*)")
_UNIFY_VARIABLE = re.compile(r"Cannot unify (.*) and (.*) for '([\w$]+)(?:\.\d+)?', defined at .*")
_NO_IMPLEMENTATION = re.compile(r"No implementation of function [\w.]+ found for signature: (.*)")


def _plain(reason: str) -> str:
    """The same without numba's manner of speaking, where it is known."""
    for name, word in _TYPE_NAMES:
        reason = name.sub(word, reason)
    for pattern, replacement in (
        (
            _UNIFY_RETURNED,
            r"it returns different kinds of values on different paths (\1): return one kind",
        ),
        (_UNIFY_VARIABLE, r"\3 is of different kinds on different paths (\1, \2): give it one kind"),
        (_NO_IMPLEMENTATION, r"numba has no \1"),
    ):
        reason = pattern.sub(replacement, reason)
    return reason
