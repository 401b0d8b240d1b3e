"""Processes that were started differently, or see different files: a sentence, or the first one's word. Each process
works in a folder of its own, as on machines with disks of their own."""

import os
from dataclasses import replace
from pathlib import Path

from diffusers import FluxPipeline

from ranks import finish, start
from urae.data import cached_dataset
from urae.training import load_recipe, read_metrics, save_recipe, train


def trained(pipe_folder: Path, recipe) -> str:
    """The hash of the adapter, or what was said instead."""
    try:
        return train(FluxPipeline.from_pretrained(pipe_folder), recipe).hash
    except ValueError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def each(pipe_folder: Path, recipe_file: Path) -> None:
    """What each process does; a failure in one is an exit code."""
    from urae.execution import gathered, this_process

    rank = this_process().process_index
    own = recipe_file.parent / f"machine-{rank}"
    own.mkdir()
    os.chdir(own)
    made = load_recipe(recipe_file)

    for changes in ({"lr": 1e-3 * (rank + 1)}, {"steps": 4 + rank}):
        (key,) = changes
        for said in gathered([trained(pipe_folder, replace(made, out="apart", **changes))]):
            assert said.startswith(f"refused: the processes do not run the same: {key} is "), said
    assert not Path("apart").exists()

    cached = cached_dataset(FluxPipeline.from_pretrained(pipe_folder), made.data, size=128, scenes=own)
    if rank == 0:
        Path("cache").symlink_to(cached.sources[0].cache.path)
    for said in gathered([trained(pipe_folder, replace(made, data="cache", out="run"))]):
        assert said.startswith("BadFile: process 1 on "), said
        assert "cache is not a cache" in said

    # Only the first process has a checkpoint to see; the second has its own folder of that name.
    whole, begun = (replace(made, out=out) for out in ("whole", "begun"))
    trained(pipe_folder, replace(begun, steps=2))
    assert Path("begun/checkpoints/step-000002").is_dir() == (rank == 0)
    hashes = gathered([trained(pipe_folder, whole), trained(pipe_folder, begun)])
    assert len(set(hashes)) == 1, hashes


def test_what_differs_is_named_and_the_first_process_decides(recipe, pipe_folder, tmp_path):
    (tmp_path / "all").mkdir()
    save_recipe(recipe(optimizer="prodigy", lr=1.0, ema=0.5), tmp_path / "all/recipe.yaml")
    finish(start(2, each, pipe_folder, tmp_path / "all/recipe.yaml"))


def shared(pipe_folder: Path, recipe_file: Path) -> None:
    train(FluxPipeline.from_pretrained(pipe_folder), load_recipe(recipe_file))


def test_samples_and_validation_of_two_processes_are_those_of_one(pipe, recipe, pipe_folder, tmp_path):
    """To the bit: the adapter, which depends on the order of sums, stays where it starts."""
    alone = recipe(
        steps=2,
        lr=1e-30,
        num_validation=3,
        validate_every=1,
        sample_every=1,
        sample_prompts=("a", "b", "c"),
        sample_steps=1,
    )
    train(pipe, alone)
    by_two = replace(alone, out=str(tmp_path / "two"))
    save_recipe(by_two, tmp_path / "two.yaml")
    finish(start(2, shared, pipe_folder, tmp_path / "two.yaml"))
    one, two = (sorted((Path(made.out) / "samples").iterdir()) for made in (alone, by_two))
    assert [path.name for path in one] == [path.name for path in two]
    assert len(one) == 9
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    losses = [
        [{k: v for k, v in row.items() if "validation" in k} for row in read_metrics(path)]
        for path in (Path(alone.out) / "metrics.jsonl", Path(by_two.out) / "metrics.jsonl")
    ]
    assert losses[0] == losses[1]
