"""What is printed: strangers' text without terminal sequences, and errors as one sentence."""

from __future__ import annotations

import dis
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from urae.errors import UraeError
from urae.io.files import CAUSES, OF_THE_DISK

__all__ = ["plain", "sentence_of"]

LONGEST = 1_500
"""Characters of a sentence on the screen."""

SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
)
CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""All but tab and newline; also those that turn the direction of writing, so that "gpj.exe" reads "exe.jpg"."""
UNDECODED = re.compile("[\ud800-\udfff]")
PACKAGE = Path(__file__).parents[1]
FOREIGN = {
    "json": ("JSONDecodeError", "JSON"),
    "yaml": ("YAMLError", "YAML"),
    "safetensors": ("SafetensorError", "safetensors"),
    "PIL": ("UnidentifiedImageError", "an image"),
    "PIL.Image": ("DecompressionBombError", "an image"),
    "zlib": ("error", "compressed data"),
    "pyarrow": ("ArrowInvalid", "a table"),
    "builtins": ("UnicodeError", "text"),
}
"""Module -> its error for what cannot be read, and what it cannot be read as. None of them is imported for this."""


def plain(text: object) -> str:
    """A stranger's text without terminal sequences and control characters but tab and newline; bytes of a file name
    that are no text show as \\xff."""
    cleared = CONTROLS.sub("", SEQUENCES.sub("", str(text)))
    return UNDECODED.sub(_as_byte, cleared)


def sentence_of(error: BaseException) -> str | None:
    """The sentence to print for an error of the user's or the world's; None for a bug, whose traceback is needed.

    A ValueError is a sentence where a line of ours raised it, and a bug where it came out of a call. Of a long one,
    which holds what a stranger wrote, `LONGEST` characters are left.
    """
    said = _sentence(error)
    if said is None or len(said) <= LONGEST:
        return said
    return f"{said[: LONGEST // 2]} [...] {said[-LONGEST // 2 :]}"


def _sentence(error: BaseException) -> str | None:
    if (cause := _cause(error)) is not None:
        return plain(f"{_file_of(error)} cannot be written: {cause}")
    if isinstance(error, UraeError) or (type(error) is ValueError and _is_raised_by_us(error)):
        return plain(error)
    if (kind := _foreign(error)) is not None:
        return plain(f"{_file_of(error)} cannot be read as {kind} ({_first_line(error)})")
    if isinstance(error, OSError):
        return plain(f"{_file_of(error)}: {error.strerror or _first_line(error) or type(error).__name__}")
    return None


def _as_byte(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _cause(error: BaseException) -> str | None:
    """Of a full disk and its like, in a library's words too."""
    number = error.errno if isinstance(error, OSError) else None
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    return CAUSES[number] if number in OF_THE_DISK else None


def _foreign(error: BaseException) -> str | None:
    for module, (name, kind) in FOREIGN.items():
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return kind
    return None


def _is_raised_by_us(error: BaseException) -> bool:
    """Whether the error's last line is a `raise` in this package. What crossed processes has no lines of its own."""
    if error.__cause__ is not None and type(error.__cause__).__name__ == "_RemoteTraceback":
        return True
    last = _last(error.__traceback__)
    if last is None:
        return True
    code = last.tb_frame.f_code
    return (
        Path(code.co_filename).is_relative_to(PACKAGE)
        and code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    )


def _last(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _file_of(error: BaseException) -> str:
    """The file that the error names, or that a function on its way was called with as `path`."""
    if isinstance(error, OSError) and error.filename is not None:
        names = [error.filename, error.filename2]
        return " -> ".join(_name(name) for name in names if name is not None)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = (frame.f_locals.get("path") for frame in reversed(frames))
    return next((str(path) for path in found if isinstance(path, str | Path)), "a file")


def _name(name: object) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
