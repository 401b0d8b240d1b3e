"""Two processes share each batch, and compute what one computes."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from urae.training import load_recipe, read_metrics, save_recipe, train


def one_of_two(rank: int, port: int, pipe_folder: Path, recipe_file: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    train(FluxPipeline.from_pretrained(pipe_folder), load_recipe(recipe_file))


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(pipe, recipe, tmp_path):
    changes = {"steps": 6, "batch_size": 4, "num_validation": 3, "validate_every": 3, "checkpoint_every": 2}
    changes |= {"sample_every": 6, "sample_prompts": ("a",), "sample_steps": 1, "ema": 0.5}
    pipe.save_pretrained(tmp_path / "pipe")
    alone = recipe(**changes)
    shared = recipe(**changes, out=str(tmp_path / "shared"))
    train(pipe, alone)
    save_recipe(shared, tmp_path / "shared.yaml")
    context, port = multiprocessing.get_context("spawn"), free_port()
    both = [
        context.Process(target=one_of_two, args=(rank, port, tmp_path / "pipe", tmp_path / "shared.yaml"))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    first, second = (load_file(Path(made.out) / "adapter.safetensors") for made in (alone, shared))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=0)
    for one, two in zip(
        *(read_metrics(Path(made.out) / "metrics.jsonl") for made in (alone, shared)), strict=True
    ):
        assert one.keys() == two.keys()
        for name in one.keys() - {"seconds"}:
            assert one[name] == pytest.approx(two[name], rel=1e-5), name
