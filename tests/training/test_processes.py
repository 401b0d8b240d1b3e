"""Several processes share each batch, and compute what one computes; killed, they go on in another number."""

import multiprocessing
import time
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from ranks import finish, start
from urae.training import load_recipe, read_metrics, save_recipe, train


def one_of(pipe_folder: Path, recipe_file: Path) -> None:
    """What each process does."""
    train(FluxPipeline.from_pretrained(pipe_folder), load_recipe(recipe_file))


def started(num: int, pipe_folder: Path, recipe) -> list[multiprocessing.Process]:
    """A run in this many processes, under way."""
    recipe_file = Path(recipe.out).with_suffix(".yaml")
    save_recipe(recipe, recipe_file)
    return start(num, one_of, pipe_folder, recipe_file)


def assert_same_run(first: Path, second: Path) -> None:
    """The same adapter to 1e-6, and the same metrics but for the seconds."""
    tensors, others = (load_file(out / "adapter.safetensors") for out in (first, second))
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, atol=1e-6, rtol=0)
    for one, two in zip(*(read_metrics(out / "metrics.jsonl") for out in (first, second)), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"seconds"}:
            assert one[name] == pytest.approx(two[name], rel=1e-5), name


@pytest.mark.slow
def test_two_and_four_processes_train_what_one_trains(pipe, recipe, pipe_folder, tmp_path):
    changes = {"steps": 6, "batch_size": 4, "num_validation": 3, "validate_every": 3, "checkpoint_every": 2}
    changes |= {"sample_every": 6, "sample_prompts": ("a",), "sample_steps": 1, "ema": 0.5}
    alone = recipe(**changes)
    train(pipe, alone)
    for num in (2, 4):
        shared = recipe(**changes, out=str(tmp_path / f"by-{num}"))
        finish(started(num, pipe_folder, shared))
        assert_same_run(Path(alone.out), Path(shared.out))


@pytest.mark.slow
def test_a_run_that_lost_a_process_goes_on_in_fewer(pipe, recipe, pipe_folder, tmp_path):
    changes = {"steps": 40, "batch_size": 4, "checkpoint_every": 1, "num_validation": 2, "validate_every": 4}
    whole = recipe(**changes, out=str(tmp_path / "whole"))
    train(pipe, whole)
    broken = recipe(**changes, out=str(tmp_path / "broken"))
    for num in (4, 2):
        lose_one(started(num, pipe_folder, broken), Path(broken.out))
    last = recipe(**changes, gradient_accumulation=2, out=broken.out)
    finish(started(1, pipe_folder, last))
    assert_same_run(Path(whole.out), Path(broken.out))


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_processes_that_share_the_tokens_of_an_image_train_what_one_trains(
    pipe, recipe, pipe_folder, tmp_path, num
):
    changes = {"steps": 6, "batch_size": 4, "num_validation": 3, "validate_every": 3, "checkpoint_every": 2}
    changes |= {"sample_every": 6, "sample_prompts": ("a",), "sample_steps": 1, "ema": 0.5}
    changes |= {"distill_weight": 0.5, "gradient_checkpointing": "attention"}
    alone = recipe(**changes)
    train(pipe, alone)
    shared = recipe(**changes, context_parallel=2, gradient_accumulation=2, out=str(tmp_path / "shared"))
    finish(started(num, pipe_folder, shared))
    assert_same_run(Path(alone.out), Path(shared.out))


@pytest.mark.slow
def test_a_run_that_shared_tokens_goes_on_in_one_process(pipe, recipe, pipe_folder, tmp_path):
    whole = recipe(steps=6)
    train(pipe, whole)
    begun = recipe(steps=3, context_parallel=2, out=str(tmp_path / "begun"))
    finish(started(2, pipe_folder, begun))
    train(pipe, recipe(steps=6, out=begun.out))
    assert_same_run(Path(whole.out), Path(begun.out))


def lose_one(processes: list[multiprocessing.Process], out: Path) -> None:
    """Kill the last process after three steps more, and then, as a launcher does, the others."""
    already = num_rows(out)
    while num_rows(out) < already + 3:
        assert all(process.is_alive() for process in processes)
        time.sleep(0.005)
    for process in reversed(processes):
        process.kill()
        process.join()
    assert 0 < num_rows(out) < 40


def num_rows(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
