"""Prompts from files, and our own."""

import json
import re
from itertools import combinations

import pyarrow
import pytest
from pyarrow import parquet

from urae.collecting import read_prompts, shipped_prompts
from urae.errors import BadFile

PROMPTS = ["a cat", "une chaise à l'ombre", "一隻貓"]


def write(path, prompts, column="prompt"):
    if path.suffix == ".txt":
        path.write_text("\n\n".join(prompts) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"number": 1, column: p}) + "\n" for p in prompts))
    else:
        parquet.write_table(pyarrow.table({"number": list(range(len(prompts))), column: prompts}), path)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, suffix):
    assert read_prompts(write(tmp_path / f"p{suffix}", PROMPTS)) == PROMPTS


@pytest.mark.parametrize("name", ["p.txt", "anime.json", "shipped"])
def test_a_column_where_there_are_none_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "anime.json").write_text('["a cat"]')
    with pytest.raises(ValueError, match="column has no effect on .*: leave it out"):
        read_prompts(name, column="caption")


def test_a_comment_in_a_text_file_is_no_prompt(tmp_path):
    (tmp_path / "p.txt").write_text("# animals\na cat\n\n  # a dog\nroom #4 with a view\n")
    assert read_prompts(tmp_path / "p.txt") == ["a cat", "room #4 with a view"]


def test_lists_that_benchmarks_publish_are_read_with_their_ids(tmp_path):
    (tmp_path / "anime.json").write_text('["a cat", "an owl"]')
    assert read_prompts(tmp_path / "anime.json") == {"anime-00000": "a cat", "anime-00001": "an owl"}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_another_column_can_be_named(tmp_path, suffix):
    assert read_prompts(write(tmp_path / f"p{suffix}", PROMPTS, "caption"), column="caption") == PROMPTS


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("p.csv", "", ValueError, r"p.csv: expected a .txt, .jsonl, .parquet or .json file"),
        ("p.txt", "\n \n", BadFile, "holds no prompts"),
        ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', BadFile, "p.jsonl, line 2 holds no prompt"),
        ("p.jsonl", '{"prompt": 3}\n', BadFile, "p.jsonl, line 1 holds no prompt: expected a text, got 3"),
        ("p.parquet", "PAR1 no table", BadFile, "cannot be read as a parquet table"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path, name, content, error, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_prompts_come_by_their_ids_where_a_file_has_them(tmp_path, suffix):
    rows = {"id": [17, 4, 9] if suffix == ".parquet" else ["a-1", "b.2", "c 3"], "prompt": PROMPTS}
    path = tmp_path / f"p{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pyarrow.table(rows), path)
    else:
        lines = ({"id": i, "prompt": p} for i, p in zip(*rows.values(), strict=True))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_prompts(path) == dict(zip(map(str, rows["id"]), PROMPTS, strict=True))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"id": "a", "prompt": "x"}', r"line 2 has the id 'a' again"),
        ('{"prompt": "x"}', "line 2 has the id None: expected a text or a whole number"),
        ('{"id": 1.0, "prompt": "x"}', "line 2 has the id 1.0: expected a text or a whole number"),
        ('{"id": "../b", "prompt": "x"}', r"line 2: the id '\.\./b' cannot be a file's name"),
        ('{"id": "b/c", "prompt": "x"}', r"line 2: the id 'b/c' cannot be a file's name"),
        ('{"id": "%s", "prompt": "x"}' % ("b" * 201), r"cannot be a file's name: expected at most 200 bytes"),
    ],
)
def test_ids_that_cannot_name_pictures_are_refused_with_their_place(tmp_path, second, message):
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "one"}\n' + second + "\n")
    with pytest.raises(BadFile, match=message):
        read_prompts(tmp_path / "p.jsonl")


def test_a_table_says_which_columns_it_has(tmp_path):
    with pytest.raises(ValueError, match="no column 'text': it has number, prompt"):
        read_prompts(write(tmp_path / "p.parquet", PROMPTS), column="text")
    with pytest.raises(BadFile, match=r"p.parquet, row 2 holds no prompt: expected a text, got None"):
        read_prompts(write(tmp_path / "p.parquet", ["a", None]))


def test_our_own_prompts_are_many_and_all_different():
    """No two share most of their words, and each says enough to be drawn in one way."""
    prompts = read_prompts("shipped")
    assert prompts == shipped_prompts()
    assert len(prompts) == 331
    words = [frozenset(re.findall(r"[a-z]{4,}", prompt.lower())) for prompt in prompts]
    assert min(map(len, words)) >= 5
    assert max(len(a & b) / len(a | b) for a, b in combinations(words, 2)) < 0.4
