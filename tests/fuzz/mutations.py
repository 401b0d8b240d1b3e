"""Ways in which a file goes wrong: on a disk, over a network, in an editor, in another tool, in bad faith."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"99999999999999999999999", b"0.5", b"1e-400", b"-0.0")
VALUES = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[[]]",
    b'""',
    b'"a"',
    b'{"a": {}}',
    b"~",
    b"2026-11-30",
    b"!!python/none",
)
TEXTS = (
    *(
        "\u2028",
        "\x00",
        "\x1b[2J",
        "[red]",
        "\u202e",
        "\r",
        "\t",
        "\ud7ff\U0010ffff",
        "\\ud800",
        "\u0301" * 99,
    ),
    *("..", "../../etc/passwd", "/etc/passwd", "C:\\\\", "a" * 70_000, "%s%n", "${HOME}", "`id`", "=1+1"),
    *("&a", "*a", "<<: *a", "'"),
)


def _place(content: bytes, rng: random.Random) -> int:
    return rng.randrange(len(content) + 1)


def cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def cut_in_front(content: bytes, rng: random.Random) -> bytes:
    return content[_place(content, rng) :]


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 4, 32])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_header_bits(content: bytes, rng: random.Random) -> bytes:
    return flip_bits(content[:64], rng) + content[64:]


def noise_inside(content: bytes, rng: random.Random) -> bytes:
    place = _place(content, rng)
    return content[:place] + rng.randbytes(rng.choice([1, 7, 300])) + content[place:]


def hole(content: bytes, rng: random.Random) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + rng.choice([1, 5, 60]) :]


def zeros(content: bytes, rng: random.Random) -> bytes:
    place, length = _place(content, rng), rng.choice([4, 64, 4096])
    return content[:place] + bytes(length) + content[place + length :]


def repeated_span(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_place(content, rng), _place(content, rng)))
    return content[:end] + content[start:end] + content[end:]


def swapped_halves(content: bytes, rng: random.Random) -> bytes:
    place = _place(content, rng)
    return content[place:] + content[:place]


def twice(content: bytes, rng: random.Random) -> bytes:
    return content + content


def other_number(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb"-?\b\d+(\.\d+)?\b", rng.choice(NUMBERS), content, rng)


def other_value(content: bytes, rng: random.Random) -> bytes:
    return _replaced(
        rb'"[^"\n]*"|: *[^"\s,}\]]+', rng.choice([b": ", b""]) + rng.choice(VALUES), content, rng
    )


def other_text(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb"[A-Za-z_]{2,}", rng.choice(TEXTS).encode("utf-8", "surrogatepass"), content, rng)


def doubled_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    return b"".join([*lines[:place], lines[place], *lines[place:]])


def lost_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    return b"".join([*lines[:place], *lines[place + 1 :]])


def lost_mark(content: bytes, rng: random.Random) -> bytes:
    return _replaced(rb"[\[\]{}:,\"-]", b"", content, rng)


def other_mark(content: bytes, rng: random.Random) -> bytes:
    return _replaced(
        rb"[\[\]{}:,\"-]", rng.choice([b"[", b"{", b"}", b"]", b":", b",", b'"', b"#"]), content, rng
    )


def nested(content: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([50, 5_000, 200_000])
    opening = rng.choice([b"[", b'{"a":', b"- ", b"? "])
    return _replaced(rb"[A-Za-z_]{2,}", opening * depth, content, rng)


def other_encoding(content: bytes, rng: random.Random) -> bytes:
    encoding = rng.choice(["utf-16", "utf-32", "utf-7", "utf-8-sig", "latin-1"])
    return content.decode("latin-1").encode(encoding)


def other_line_ends(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\x0b", b"\n\n", b""]))


def nothing(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        [b"", b"\n", b"\x00", b" ", b"null", b"{}", b"[]", b"PK\x03\x04", b"%!PS-Adobe-3.0 EPSF"]
    )


def only_noise(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice([0, 2, 8])] + rng.randbytes(rng.choice([9, 500]))


def _replaced(pattern: bytes, by: bytes, content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(pattern, content))
    if not found:
        return noise_inside(content, rng)
    one = rng.choice(found)
    return content[: one.start()] + by + content[one.end() :]


MUTATIONS: tuple[Mutation, ...] = (
    cut_off, cut_in_front, flip_bits, flip_header_bits, noise_inside, hole, zeros, repeated_span, swapped_halves, twice,
    other_number, other_value, other_text, doubled_line, lost_line, lost_mark, other_mark, nested, other_encoding,
    other_line_ends, nothing, only_noise,
)  # fmt: skip
