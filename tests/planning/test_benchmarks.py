"""The benchmarks of speed run at small size, and write what `urae plan` and readers need."""

import argparse
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

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
    result = json.loads(out.read_text())
    rows = result["rows"]
    assert not [row for row in rows if "failed" in row]
    done = {(row["what"], row["way"], row["size"]) for row in rows}
    assert {("train step", way, size) for way in ("plain", "urae") for size in (32, 64)} <= done
    assert {(what, way, 128) for what in ("call", "encode", "decode") for way in ("plain", "urae")} <= done
    assert {("decode", "tiles", 128), ("train step", "in fp8", 64)} <= done
    twins = [row for row in rows if row["way"] == "urae" and (row["what"], "plain", row["size"]) in done]
    assert len(twins) >= 8
    assert all(row["times_faster_than_plain"] > 0 for row in twins)
    table = out.with_suffix(".md").read_text()
    assert table.count("\n| ") == len(rows) + 1
    assert len(result["left_out"]) == 5
    assert all("on a CPU nothing is moved" in why and why in table for why in result["left_out"])
    step = next(row for row in rows if row["what"] == "train step" and row["way"] == "urae")
    shares = {row["what"] for row in rows if row.get("share_of_a_run", 0) > 0}
    assert {"decompose a matrix", "write a checkpoint", "encode"} <= shares
    assert "first step" in {row["what"] for row in rows}
    found = efficiency_of(Gpu(name="cpu", memory=1, tflops=1), step["size"], measured=out)
    assert found.share == step["efficiency"]


def test_rows_that_the_time_did_not_suffice_for_are_named(tmp_path, monkeypatch):
    out = tmp_path / "gpu.json"
    run("gpu", monkeypatch, "--tiny", "--device", "cpu", "--minutes", "0.0005", "--out", out)
    result = json.loads(out.read_text())
    assert [(row["what"], row["way"], row["size"]) for row in result["rows"]] == [("train step", "plain", 32)]
    late = [line for line in result["left_out"] if line.endswith("no time was left")]
    assert late[0].startswith("train step, urae, 32 px")
    assert "call, plain, 128 px: no time was left" in late
    assert set(late) <= set(
        out.with_suffix(".md").read_text().removesuffix(".\n").split("Left out: ")[1].split("; ")
    )


def test_a_size_that_no_settings_fit_is_a_row_that_says_so(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = benchmark("gpu")
    options = argparse.Namespace(device="cpu", tiny=True, no_compile=True)
    found = gpu.row(
        gpu.bench_of(options), "train step", "in 1e-06 GiB", 64, partial(gpu.step_within, memory=1e-6)
    )
    assert found["failed"] == "RuntimeError: by the plan no settings fit in 1e-06 GiB"


def test_steps_with_the_hosts_memory_run_small(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = benchmark("gpu")
    options = argparse.Namespace(device="cpu", tiny=True, no_compile=True)
    bench = gpu.bench_of(options)
    rows = [gpu.row(bench, "train step", way, 32, make) for way, make in gpu.HOST.items()]
    plain = {"what": "train step", "way": "plain", "size": 32, "seconds": 1.0}
    assert all(row["times_faster_than_plain"] > 0 for row in gpu.with_ratios([plain, *rows])[1:])
    assert [row["settings"] for row in rows] == [
        "checkpointing attention, eager, activations on the host",
        "checkpointing full, eager, weights of 57 blocks on the host",
        "checkpointing attention, eager, activations on the host, weights of 57 blocks on the host",
    ]
    assert gpu.host_sizes(torch.device("cuda"), small=False) == (2048, 4096)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [64])
def test_the_cpu_benchmark_runs_small(tmp_path, monkeypatch, size):
    out = tmp_path / "cpu.json"
    run("cpu", monkeypatch, "--sizes", size, "--batch", 1, "--repeats", 1, "--out", out)
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["training step"]["times_faster"] > 0
    assert rows["decompose and attach"]["num_matrices"] > 0
    seldom = {what for what, row in rows.items() if "share_of_a_run" in row}
    assert len(seldom) == 6
    assert all(rows[what]["share_of_a_run"] > 0 for what in seldom if rows[what].get("cpu_seconds", 1) > 0.01)
