"""What does numba's complaint mean to the author of the kernel?

Numba's messages run to thirty lines, of which one says what is wrong and one says where. The error we raise
has those two, and numba's own as its cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from shmarray.errors import KernelCompileError

__all__ = ["compile_error"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_NOISE = re.compile(
    r"^(Failed in \w+ mode pipeline.*|During: .*|File \".*|<source .*|- (Resolution|argument).*|-+|\.\.\."
    r"|There are \d+ candidate.*|.*candidate implementations?:?|This error may have been caused.*|\[\d+\].*"
    r"|For more information visit.*|If you think your code.*|This is not usually a problem.*|Overload .*|- Of which .*"
    r"|Enable logging at debug level.*|Unknown attribute rejected|Unsupported functionality was found.*)$"
)


def compile_error(error: BaseException, function: Callable[..., Any]) -> KernelCompileError:
    """Return the error to raise (from `error`) when `function` does not compile.

    Its facts are `kernel` (the function's name), `filename` and `lineno` (of the offending line where numba
    names one in the user's code, else of the function).
    """
    python = getattr(function, "py_func", function)
    code = getattr(python, "__code__", None)
    kernel = getattr(python, "__qualname__", repr(python))
    text = _COLOUR.sub("", str(error))
    filename, lineno = _place(error, text, code)
    reason = _reason(text) or type(error).__name__
    message = (
        f"numba cannot compile {kernel} ({filename}:{lineno}): {reason}. jit=False runs it as plain Python."
    )
    return KernelCompileError(message, kernel=kernel, filename=filename, lineno=lineno)


def _place(error: BaseException, text: str, code: Any) -> tuple[str, int]:
    filename = getattr(code, "co_filename", "<unknown>")
    lineno = int(getattr(code, "co_firstlineno", 0))
    # The innermost place comes last. Places in numba itself are where it gave up, not where the user is
    # wrong.
    places = [(match["file"], int(match["line"])) for match in _PLACE.finditer(text)]
    location = getattr(error, "loc", None)
    if location is not None and isinstance(getattr(location, "line", None), int):
        places.insert(0, (str(location.filename), location.line))
    for name, line in reversed(places):
        # numba prints paths relative to the working directory
        if filename == name or filename.endswith("/" + name.lstrip("./")):
            return filename, line
    return filename, lineno


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not _NOISE.match(line)]
    if not kept:
        return ""
    reason = kept[0]
    if reason.endswith(":") and len(kept) > 1:  # "No implementation of function ... found for signature:"
        reason = f"{reason} {kept[1].removeprefix('>>>').strip()}"
    return reason.rstrip(".")
