import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killable import Run, after, steps_done, writing_a_checkpoint
from safetensors.torch import load_file

from tiny import write_images
from urae.adapters import Lora, Minor
from urae.errors import BadFile
from urae.training import read_metrics, train


def history(out: Path) -> list[dict]:
    """The metrics without the only thing that may differ between runs."""
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_metrics(out / "metrics.jsonl")
    ]


def assert_same_result(first: Path, second: Path) -> None:
    assert (first / "adapter.safetensors").read_bytes() == (second / "adapter.safetensors").read_bytes()
    assert history(first) == history(second)


def test_a_killed_run_goes_on_to_the_same_bits(pipe_folder, recipe, tmp_path):
    made = recipe(steps=8, checkpoint_every=1, optimizer="prodigy", lr=1.0, ema=0.9)
    made = replace(made, num_validation=2, validate_every=3)
    whole = Run(pipe_folder, replace(made, out=str(tmp_path / "whole")))
    whole.finish()
    broken = Run(pipe_folder, replace(made, out=str(tmp_path / "broken")))
    assert broken.kill_when(writing_a_checkpoint)
    assert writing_a_checkpoint(broken.out)  # it was killed inside the write
    assert broken.kill_when(steps_done(4, random.Random(0)))
    broken.finish()
    assert_same_result(whole.out, broken.out)
    assert not writing_a_checkpoint(broken.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "optimizer", "lr"), [(Lora(rank=4), "prodigy", 1.0), (Minor(rank=2), "adamw", 1e-3)]
)
def test_a_run_killed_again_and_again_goes_on_to_the_same_bits(
    pipe_folder, recipe, tmp_path, spec, optimizer, lr
):
    made = recipe(adapter=spec, optimizer=optimizer, lr=lr, steps=600, checkpoint_every=3, ema=0.9)
    made = replace(made, num_validation=2, validate_every=40, keep_checkpoints=1)
    whole = Run(pipe_folder, replace(made, out=str(tmp_path / "whole")))
    whole.finish()
    # Its own images, so that caching is interrupted too.
    images = write_images(tmp_path / "own", [(128, 128)] * 5 + [(192, 144)] * 4)
    broken = Run(pipe_folder, replace(made, data=str(images), out=str(tmp_path / "broken")))
    rng, inside = random.Random(optimizer), 0
    for attempt in range(15):
        in_a_write = attempt % 3 == 2
        assert broken.kill_when(writing_a_checkpoint if in_a_write else after(rng.uniform(0.1, 2.5)))
        inside += writing_a_checkpoint(broken.out)
    assert inside >= 2
    broken.finish()
    assert history(whole.out) == history(broken.out)
    first, second = (load_file(run.out / "adapter.safetensors") for run in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_is_not_repeated(pipe, recipe):
    made = recipe(steps=2)
    first = train(pipe, made)
    rows = read_metrics(Path(made.out) / "metrics.jsonl")
    assert train(pipe, made).hash == first.hash
    assert read_metrics(Path(made.out) / "metrics.jsonl") == rows


def test_a_run_can_be_made_longer(pipe, recipe, tmp_path):
    train(pipe, recipe(steps=2))
    longer = train(pipe, recipe(steps=4))
    whole = train(pipe, recipe(steps=4, out=str(tmp_path / "whole")))
    assert longer.hash == whole.hash


def test_a_run_may_go_on_in_other_parts_and_with_less_memory(pipe, recipe, tmp_path):
    changes = {"batch_size": 4, "steps": 4}
    whole = train(pipe, recipe(**changes, out=str(tmp_path / "whole")))
    train(pipe, recipe(**{**changes, "steps": 2}))
    less = {"gradient_accumulation": 4, "gradient_checkpointing": "attention"}
    other = train(pipe, recipe(**changes, **less))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"adapter": Lora(rank=2)}, "adapter.rank is 4 there and 2 here"),
        ({"policy": "native"}, "policy.linear is True there and False here"),
        ({"steps": 1}, "it has done 2 steps and 1 are asked for"),
    ],
)
def test_another_recipe_is_refused_and_named(pipe, recipe, change, message):
    made = recipe(steps=2)
    train(pipe, made)
    written = (Path(made.out) / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match=f"holds a checkpoint of another run: {message}"):
        train(pipe, replace(made, **change))
    assert (Path(made.out) / "recipe.yaml").read_text() == written


def test_other_data_and_another_base_are_refused(pipe, recipe, tmp_path):
    made = recipe(steps=1)
    train(pipe, made)
    fewer = write_images(tmp_path / "fewer", [(128, 128)] * 3)
    with pytest.raises(ValueError, match="data is '.*' there and '.*' here"):
        train(pipe, replace(made, data=str(fewer)))
    with torch.no_grad():
        pipe.transformer.proj_out.weight += 0.1
    with pytest.raises(ValueError, match="base is '.*' there and '.*' here"):
        train(pipe, made)


def test_metrics_that_lack_steps_are_refused(pipe, recipe):
    made = recipe(steps=2)
    train(pipe, made)
    (Path(made.out) / "metrics.jsonl").write_text("")
    with pytest.raises(BadFile, match="metrics.jsonl has lost lines: restore it"):
        train(pipe, replace(made, steps=3))
