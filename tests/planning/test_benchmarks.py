"""The benchmarks of speed run at small size, and write what `urae plan` and readers need."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from urae.planning import Gpu
from urae.planning.efficiency import efficiency_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(name: str, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    monkeypatch.chdir(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark(name).main()


def test_the_gpu_benchmark_runs_small_on_a_cpu(tmp_path, monkeypatch):
    out = tmp_path / "gpu.json"
    run("gpu", monkeypatch, "--tiny", "--device", "cpu", "--out", out)
    rows = json.loads(out.read_text())["rows"]
    done = {(row["what"], row["way"], row["size"]) for row in rows}
    assert {("train step", way, size) for way in ("plain", "urae") for size in (32, 64)} <= done
    assert {(what, way, 128) for what in ("call", "encode", "decode") for way in ("plain", "urae")} <= done
    assert all(row["times_faster_than_plain"] > 0 for row in rows if row["way"] == "urae")
    table = out.with_suffix(".md").read_text()
    assert table.count("\n| ") == len(rows) + 1
    step = next(row for row in rows if row["what"] == "train step" and row["way"] == "urae")
    found = efficiency_of(Gpu(name="cpu", memory=1, tflops=1), step["size"], measured=out)
    assert found.share == step["efficiency"]


@pytest.mark.parametrize("size", [64])
def test_the_cpu_benchmark_runs_small(tmp_path, monkeypatch, size):
    out = tmp_path / "cpu.json"
    run("cpu", monkeypatch, "--sizes", size, "--batch", 1, "--repeats", 1, "--out", out)
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["training step"]["times_faster"] > 0
    assert rows["decompose and attach"]["num_matrices"] > 0
    assert all("share_of_a_run" in rows[what] for what in ("write a checkpoint", "export the adapter"))
