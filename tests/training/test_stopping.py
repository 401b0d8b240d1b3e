"""How a run ends before its end: by a signal, by a full disk, and not by a second run in its place."""

import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from killable import Run, command, steps_done
from safetensors.torch import load_file

from cases import thorough
from ranks import start
from small_disk import small_disk
from urae.errors import UraeError
from urae.training import load_recipe, read_metrics, save_recipe, train

LONG = 10_000
"""Steps, more than any of these runs does."""


def waited_for(process, moment, out: Path) -> None:
    while not moment(out):
        process.join(0.001)
        assert process.is_alive()


def steps_kept(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, thorough(signal.SIGINT), thorough(signal.SIGUSR1)])
def test_a_signal_waits_for_the_step_and_the_same_command_goes_on(
    pipe, recipe, pipe_folder, tmp_path, number
):
    made = recipe(steps=LONG, optimizer="prodigy", lr=1.0, num_workers=1)
    stopped = Run(pipe_folder, replace(made, out=str(tmp_path / "stopped")))
    process = stopped.started(command)
    waited_for(process, steps_done(2, random.Random(0)), stopped.out)
    os.killpg(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    done = len(read_metrics(stopped.out / "metrics.jsonl"))
    said = stopped.recipe_file.with_suffix(".err").read_text()
    assert f"stopped after step {done} of {LONG}; the same command goes on\n" in said
    assert "Traceback" not in said
    assert steps_kept(stopped.out) == [f"step-{done:06d}"]
    assert not (stopped.out / "lock").exists()
    longer = replace(made, steps=done + 2)
    train(pipe, replace(longer, out=str(stopped.out)))
    train(pipe, replace(longer, out=str(tmp_path / "whole")))
    same = [(tmp_path / out / "adapter.safetensors").read_bytes() for out in ("stopped", "whole")]
    assert same[0] == same[1]


def test_a_checkpoint_comes_after_steps_or_minutes_whichever_is_first(pipe, recipe, tmp_path):
    """The limit of time is met by every step, or by none; the result is the same."""
    results = {}
    for minutes, kept in ((1e-9, [1, 2, 3, 4]), (0.0, [3, 4]), (1e9, [3, 4])):
        out = tmp_path / f"{minutes:g}"
        made = recipe(
            steps=4, checkpoint_every=3, checkpoint_minutes=minutes, keep_checkpoints=9, out=str(out)
        )
        results[minutes] = train(pipe, made).hash
        assert steps_kept(out) == [f"step-{step:06d}" for step in kept]
    assert len(set(results.values())) == 1


def test_samples_come_after_the_checkpoint_and_a_rerun_draws_what_is_missing(pipe, recipe):
    made = recipe(steps=4, sample_every=2, sample_prompts=("a", "b"), sample_steps=1)
    samples = Path(made.out) / "samples"
    (samples / "step-000002-01.png" / "in the way").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"step-000002-01\.png is a folder"):
        train(pipe, made)
    assert steps_kept(Path(made.out)) == ["step-000002"]
    (samples / "step-000002-01.png" / "in the way").rmdir()
    (samples / "step-000002-01.png").rmdir()
    drawn = (samples / "step-000002-00.png").stat().st_mtime_ns
    train(pipe, made)
    assert (samples / "step-000002-00.png").stat().st_mtime_ns == drawn
    names = [f"{when}-{place:02d}.png" for when in ("base", "step-000002", "step-000004") for place in (0, 1)]
    assert sorted(path.name for path in samples.iterdir()) == names
    assert [row["step"] for row in read_metrics(Path(made.out) / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, thorough(signal.SIGINT), thorough(signal.SIGUSR1)])
def test_a_signal_to_one_process_stops_all_after_the_same_step(recipe, pipe_folder, tmp_path, number):
    made = recipe(steps=LONG, batch_size=2)
    recipe_file = tmp_path / "shared.yaml"
    save_recipe(made, recipe_file)
    processes = start(2, command, pipe_folder, recipe_file)
    waited_for(processes[0], steps_done(2, random.Random(0)), Path(made.out))
    os.kill(processes[1].pid, number)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [128 + number] * 2
    done = len(read_metrics(Path(made.out) / "metrics.jsonl"))
    assert steps_kept(Path(made.out)) == [f"step-{done:06d}"]


def test_a_second_run_in_the_same_directory_is_refused(pipe, recipe, pipe_folder):
    made = recipe(steps=LONG)
    first = Run(pipe_folder, made)
    process = first.started()
    try:
        waited_for(process, steps_done(1, random.Random(0)), first.out)
        with pytest.raises(UraeError, match=r"^another run is writing .*/run: wait for it to end$"):
            train(pipe, replace(made, steps=2))
        assert load_recipe(first.out / "recipe.yaml").steps == LONG
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
    train(pipe, replace(made, steps=2))  # what a killed run leaves locks nobody out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a tracker's own thread
@pytest.mark.parametrize(
    ("room", "loggers"),
    [thorough(300, ()), (2_000, ("tensorboard",)), thorough(60_000, ("tensorboard",))],
)
def test_a_full_disk_is_one_sentence_and_the_same_run_goes_on(pipe, recipe, tmp_path, room, loggers):
    made = recipe(steps=20, checkpoint_every=10, optimizer="prodigy", lr=1.0, loggers=loggers)
    train(pipe, replace(made, out=str(tmp_path / "whole")))
    with small_disk(room), pytest.raises(UraeError, match=r"cannot be written: .* run again"):
        train(pipe, made)
    left = [path.name for path in Path(made.out).rglob("*")]
    assert not [name for name in left if name.startswith(".urae-") or name == "lock"]
    train(pipe, made)
    first, second = (load_file(tmp_path / out / "adapter.safetensors") for out in ("whole", "run"))
    assert all((first[name] == second[name]).all() for name in first)
