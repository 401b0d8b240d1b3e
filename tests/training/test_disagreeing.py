"""Processes that were started differently, or see different files: a sentence, or the first one's word. Each process
works in a folder of its own, as on machines with disks of their own."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import FluxPipeline

from ranks import finish, start
from urae.data import cache, cached_dataset, open_cache
from urae.io import locked
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


def beside_another_run(pipe_folder: Path, recipe_file: Path) -> None:
    """Refused while another run writes the same folder, then begun; another's cache is waited for."""
    from urae.execution import gathered

    made, released = load_recipe(recipe_file), recipe_file.with_name("released")
    for said in gathered([trained(pipe_folder, made)]):
        assert said == f"UraeError: another run is writing {made.out}: wait for it to end", said
    recipe_file.with_name("refused").touch()
    while not released.exists():
        time.sleep(0.01)
    hashes = gathered([trained(pipe_folder, made)])
    assert len(set(hashes)) == 1, hashes
    assert ":" not in hashes[0], hashes


def cached_by_two(pipe_folder: Path, recipe_file: Path) -> None:
    cache(FluxPipeline.from_pretrained(pipe_folder), load_recipe(recipe_file).data, "cache", size=128)


def test_two_processes_together_take_one_lock_and_heed_that_of_others(
    pipe, recipe, pipe_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made = recipe(steps=1)
    save_recipe(made, tmp_path / "recipe.yaml")
    train(pipe, replace(made, out="cached"))  # the data, so that only runs are locked
    with locked(f"{made.out}/lock"):
        both = start(2, beside_another_run, pipe_folder, tmp_path / "recipe.yaml")
        while not Path("refused").exists() and all(process.is_alive() for process in both):
            time.sleep(0.01)
        assert sorted(path.name for path in Path(made.out).iterdir()) == ["lock"]
    Path("released").touch()
    finish(both)
    assert not Path(made.out, "lock").exists()


@pytest.mark.slow
def test_two_processes_wait_for_the_cache_that_another_run_makes(recipe, pipe_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_recipe(recipe(), tmp_path / "recipe.yaml")
    with locked("cache/lock"):
        both = start(2, cached_by_two, pipe_folder, tmp_path / "recipe.yaml")
        while not waited_for("cache/lock") and all(process.is_alive() for process in both):
            time.sleep(0.01)
        assert [path.name for path in Path("cache").iterdir()] == ["lock"]
        assert all(process.is_alive() for process in both)
    finish(both)
    assert not Path("cache/lock").exists()
    assert len(open_cache("cache").entries) == 9


def waited_for(lock: str) -> bool:
    """Whether a process waits for this lock, by the kernel's list of locks."""
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f":{os.stat(lock).st_ino} " in line for line in waiting)
