"""The benchmark of the guided methods: what its rows depend on, and what it says of itself."""

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest

from urae.generation import Direct, Way

pytestmark = pytest.mark.thorough

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("--prompts", "1", "--size", "128", "--steps", "1", "--methods", "direct")


@pytest.fixture
def guided(monkeypatch):
    monkeypatch.chdir(BENCHMARKS.parent)
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("guided")


@pytest.fixture
def measure(guided, tmp_path, monkeypatch):
    """Run the benchmark in a folder of the test's: its result, its page, and the rows that are kept."""

    def run(*arguments):
        out = tmp_path / "guided.json"
        monkeypatch.setattr(guided, "CACHE", tmp_path / "cache")
        monkeypatch.setattr(sys, "argv", ["guided.py", *SMALL, *arguments, "--out", str(out)])
        guided.main()
        rows = [json.loads(row) for row in (tmp_path / "cache/guided/rows.jsonl").read_text().splitlines()]
        return json.loads(out.read_text()), out.with_suffix(".md").read_text(), rows

    return run


def test_a_row_is_of_its_precision(measure):
    exact, page, rows = measure()
    assert (exact["dtype"], len(rows)) == ("fp32", 1)
    assert "--dtype" not in page
    rounded, page, rows = measure("--dtype", "bf16")
    assert (rounded["dtype"], len(rows)) == ("bf16", 2)
    assert (
        "python benchmarks/guided.py --prompts 1 --size 128 --methods direct --dtype bf16 --steps 1" in page
    )
    assert rows[0]["identity"] != rows[1]["identity"]
    assert measure("--dtype", "bf16")[2] == rows  # nothing is drawn again


def test_what_is_compiled_is_said(guided):
    settings = {"prompts": 1, "size": 128, "dtype": "fp32", "adapter": None, "start": None}
    options = argparse.Namespace(methods=["direct"], native_steps=None, steps=None, compile=True, **settings)
    (way,) = guided.ways_of(options, None)
    assert way.compile is True
    assert (
        guided.command(options)
        == "python benchmarks/guided.py --prompts 1 --size 128 --methods direct --compile"
    )
    options.compile = False
    (way,) = guided.ways_of(options, None)
    assert way.compile == "auto"
    assert "--compile" not in guided.command(options)


def test_compiling_is_not_counted(guided, monkeypatch, tmp_path):
    pictures, drawn = importlib.import_module("pictures"), []
    monkeypatch.setattr(pictures, "drawn", lambda *arguments, **settings: drawn.append(settings["seed"]))
    monkeypatch.setattr(pictures, "plan_memory", lambda *arguments: None)
    compiled: set[str] = set()
    for compile, number in [(True, 0), (True, 1), ("auto", 2)]:
        way = Way(label=str(compile), method=Direct(), compile=compile)
        with pytest.raises(AttributeError):  # there is no picture to judge
            pictures.row_of(
                None,
                way,
                number=number,
                side=128,
                judge=None,
                folder=tmp_path,
                draw=pictures.mini.familiar_scene,
                compiled=compiled,
            )
    assert drawn == [0, 0, 1, 2]
