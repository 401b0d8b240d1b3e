"""What is malformed is refused by name and place; what is odd and right is read right."""

import json
import os
import random
from contextlib import suppress

import pytest

from urae.errors import BadFile
from urae.io.texts import (
    field_of,
    json_line,
    lines_of,
    parse_json,
    parse_yaml,
    read_json_lines,
    read_json_object,
    read_lines,
    read_text,
    read_yaml,
    typed,
)

SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"]
"""What `str.splitlines` ends a line at, beside the newline."""


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_line_ends_at_a_newline_alone(tmp_path, separator):
    caption = f"a cat{separator}on a mat"
    path = tmp_path / "prompts.txt"
    path.write_bytes(f"{caption}\nsecond\r\n".encode())
    assert list(read_lines(path)) == [(f"{path}, line 1", caption), (f"{path}, line 2", "second")]
    assert lines_of(read_text(path)) == [caption, "second"]


@pytest.mark.parametrize("separator", [*SEPARATORS, "\n", "é", "猫", "😀", "\x7f", "\ufeff", '"', "\\"])
def test_a_line_of_json_is_one_line_to_every_reader(tmp_path, separator):
    value = {f"k{separator}": [f"a{separator}b", separator]}
    line = json_line(value)
    assert line.splitlines() == [line.removesuffix("\n")]
    assert json.loads(line) == value
    (tmp_path / "x.jsonl").write_bytes((line * 2).encode())
    assert [found for _, found in read_json_lines(tmp_path / "x.jsonl")] == [value] * 2


def test_other_languages_stay_readable():
    assert json_line({"caption": "Zürich 猫 😀"}) == '{"caption": "Zürich 猫 😀"}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\udcff.png"])
def test_what_no_reader_takes_is_not_written(value):
    with pytest.raises(ValueError):
        json_line({"x": value})


def test_lines_of_texts_without_end_or_content():
    assert [lines_of(text) for text in ("", "a", "a\n", "\n", "a\n\nb")] == [
        [],
        ["a"],
        ["a"],
        [""],
        ["a", "", "b"],
    ]


@pytest.mark.parametrize("text", ["prompt", '{"a": 1}', "é"])
def test_a_byte_order_mark_is_passed_over(tmp_path, text):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_text(tmp_path / "x") == text
    assert [line for _, line in read_lines(tmp_path / "x")] == [text]


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "latin").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "utf16").write_bytes("prompt".encode("utf-16"))
    (tmp_path / "long").write_bytes(b"x" * 101)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "latin": "is not UTF-8 text .* at byte 3",
        "utf16": "is not UTF-8 text",
        "long": "has more than 100 bytes",
        "folder": "is not a plain file",
        "pipe": "is not a plain file",
        "absent": "cannot be opened .No such file",
        "zero\0byte": "cannot be opened",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadFile, match=f"{name} {reason}"):
            read_text(tmp_path / name, limit=100)


def test_a_bad_line_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\n{"a": \xff}\n')
    with pytest.raises(BadFile, match=r"x\.jsonl, line 3 is not UTF-8"):
        list(read_json_lines(tmp_path / "x.jsonl"))
    (tmp_path / "x.jsonl").write_bytes(b"{}\n[1]\n")
    with pytest.raises(BadFile, match=r"x\.jsonl, line 2 is \[1\]: expected an object"):
        list(read_json_lines(tmp_path / "x.jsonl"))


MALFORMED = {
    "nan": ('{"cost": NaN}', "NaN is not a number"),
    "infinity": ("[-Infinity]", "-Infinity is not a number"),
    "overflow": ("[1e999]", "'1e999' is too large a number"),
    "twice": ('{"seed": 1, "b": 2, "seed": 3}', "the key 'seed' is there twice"),
    "twice, spelt otherwise": ('{"a": 1, "\\u0061": 2}', "the key 'a' is there twice"),
    "twice, deep": ('[{"x": {"a": 1, "a": 1}}]', "the key 'a' is there twice"),
    "deep list": ("[" * 101 + "1" + "]" * 101, "nested more than 100"),
    "very deep list": ("[" * 200_000, "nested more than 100"),
    "deep object": ('{"a":' * 101 + "1" + "}" * 101, "nested more than 100"),
    "digits": ("[" + "9" * 5000 + "]", "is not JSON"),
    "half": ('"\\ud800"', "half of a surrogate pair"),
    "other half": ('{"\\udc00": 1}', "half of a surrogate pair"),
    "cut": ('{"a": ', "is not JSON"),
    "empty": ("", "is not JSON"),
    "two": ("{} {}", "is not JSON"),
    "latin": (b'"\xe9"', "is not UTF-8"),
}


@pytest.mark.parametrize(("text", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_refused_by_name(text, reason):
    with pytest.raises(BadFile, match=f"^settings .*{reason}") as raised:
        parse_json(text, name="settings")
    assert len(str(raised.value)) < 200


def test_what_is_json_is_read():
    assert parse_json("[" * 100 + "]" * 100, name="x")
    assert parse_json('\ufeff{"a": [1, 1.5, true, null, "\\ud83d\\ude00"]}', name="x") == {
        "a": [1, 1.5, True, None, "😀"]
    }
    wide = json.dumps([{"a": [1], "b": {}}] * 500)
    assert parse_json(wide, name="x") == json.loads(wide)


def test_an_object_is_asked_for(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(BadFile, match=r"x\.json is \[1\]: expected an object"):
        read_json_object(tmp_path / "x.json")


LAUGHS = "a0: &a0 [x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))
CHAIN = "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [[[[[[[[[[*a{i - 1}]]]]]]]]]]" for i in range(1, 40))

ODD_YAML = {
    "laughs": (LAUGHS, "unfold to too much"),
    "merges": (MERGES, "unfold to too much|nested more"),
    "chain": (CHAIN, "nested more than 100"),
    "itself": ("&a [*a, *a]", "nested more than 100"),
    "deep": ("[" * 150 + "]" * 150, "nested more than 100"),
    "very deep": ("[" * 50_000, "nested more than 100"),
    "twice": ("rank: 1\nseed: 2\nrank: 3", "the key 'rank' is there twice"),
    "twice, deep": ("a:\n  - {b: 1, b: 2}", "the key 'b' is there twice"),
    "python": ("!!python/object/apply:os.system [ls]", "not a type of settings"),
    "set": ("!!set {a, b}", "not a type of settings"),
    "binary": ("!!binary aGk=", "not a type of settings"),
    "inf": ("learning_rate: .inf", "not a finite number"),
    "nan": ("learning_rate: .NaN", "not a finite number"),
    "false bool": ("!!bool maybe", "cannot be read as YAML"),
    "empty int": ("!!int ''", "cannot be read as YAML"),
    "digits": ("9" * 5000, "cannot be read as YAML"),
    "two documents": ("a: 1\n---\nb: 2", "cannot be read as YAML"),
    "tab": ("a:\n\t- b", "cannot be read as YAML"),
    "unknown reference": ("a: *b", "cannot be read as YAML"),
    "a list as key": ("? [a]\n: b", "cannot be read as YAML"),
    "long": ("#" * 2**18 + "#", "more than 262144 characters"),
}


@pytest.mark.parametrize(("text", "reason"), ODD_YAML.values(), ids=ODD_YAML)
def test_odd_yaml_is_refused_by_name(text, reason):
    with pytest.raises(BadFile, match=f"^recipe .*({reason})") as raised:
        parse_yaml(text, name="recipe")
    assert len(str(raised.value)) < 500


def test_yaml_settings_are_read(tmp_path):
    text = (
        "defaults: &d {rank: 8, alpha: 1.5}\nmine:\n  <<: *d\n  rank: 16\ndate: 2024-01-31\nsign: =\nnone:\n"
    )
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = read_yaml(tmp_path / "x.yaml")
    assert found["mine"] == {"rank": 16, "alpha": 1.5}
    assert (found["date"], found["sign"], found["none"]) == ("2024-01-31", "=", None)
    assert parse_yaml("", name="x") is None


def test_damaged_yaml_and_json_are_only_ever_bad_files():
    rng = random.Random(0)
    bases = [
        LAUGHS[:200],
        'a: {b: [1, "x"], c: !!int 3}\nd: |\n  text\n',
        '{"a": [1, 2.5e3, "\\u00e9", null]}',
    ]
    letters = "[]{}:,-&*!|>'\"%@`#\n\t \\u\0\x85\ud800é9.e<=~"
    for number in range(600):
        text = list(bases[number % len(bases)])
        for _ in range(rng.randint(1, 6)):
            text[rng.randrange(len(text))] = rng.choice(letters)
        for parse in (parse_yaml, parse_json):
            with suppress(BadFile):
                parse("".join(text), name="x")


RIGHT = [("a", str), (1, int), (True, bool), ([1], list), ({}, dict), (1.5, float)]


@pytest.mark.parametrize(("value", "kind"), RIGHT)
def test_a_value_of_its_kind_is_itself_and_of_another_is_refused(value, kind):
    assert typed(value, kind, name="x") is value
    for other in {str, int, bool, list, dict} - {kind}:
        with pytest.raises(BadFile, match="^cost of an order is .*: expected "):
            typed(value, other, name="cost of an order")


def test_numbers_are_finite():
    assert typed(3, float, name="x") == 3.0
    assert type(typed(3, float, name="x")) is float
    for value in (float("nan"), float("inf"), True, "1", None, 10**400, 10**5000):
        with pytest.raises(BadFile, match="expected a finite number"):
            typed(value, float, name="x")


def test_a_missing_field_is_named_and_a_long_one_cut():
    assert field_of({"a": 1}, "a", int, name="x") == 1
    with pytest.raises(BadFile, match="x has no 'a': expected text"):
        field_of({}, "a", str, name="x")
    with pytest.raises(BadFile, match="^a of x is '99.*: expected a list$") as raised:
        field_of({"a": "9" * 10**6}, "a", list, name="x")
    assert len(str(raised.value)) < 120


@pytest.mark.parametrize("key", ["~", "1", "true", "0.5", "&a", "? [a]\n  "])
def test_keys_of_yaml_are_text(key):
    with pytest.raises(BadFile, match=r"recipe cannot be read as YAML \(.* is a key, and keys are text"):
        parse_yaml(f"a:\n  {key}: 2\n", name="recipe")
