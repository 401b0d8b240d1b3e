"""Training on a base whose matrices are rounded; the rounding itself is tested in tests/execution."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tiny_calls import gradients
from urae import mini, recipes
from urae.adapters import Adapter, Full, Lora, Major, Mica, Minor
from urae.adapters.base import base_of
from urae.data.scenes import render_scenes
from urae.execution import quantised
from urae.training import read_metrics, train

FORMATS = ("fp8", "fp8_dynamic", "int8", "nf4")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("spec", [Lora(rank=4), Minor(rank=4)])
def test_a_rounded_base_trains_an_adapter_of_the_plain_one(pipe, recipe, tmp_path, kind, spec):
    base, before = base_of(pipe.transformer), {k: v.clone() for k, v in pipe.transformer.state_dict().items()}
    plain = train(pipe, recipe(adapter=spec, steps=1, out=str(tmp_path / "plain")))
    made = recipe(adapter=spec, base_weights=kind, steps=1)
    adapter = train(pipe, made)
    after = pipe.transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert adapter.base == base
    loaded = Adapter.load(Path(made.out) / "adapter.safetensors", base=pipe)
    assert loaded.recipe["base_weights"] == kind
    losses = [
        read_metrics(Path(run.out) / "metrics.jsonl")[0]["loss"]
        for run in (made, replace(made, out=str(tmp_path / "plain")))
    ]
    assert losses[0] != losses[1]  # the base is rounded in training
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert adapter.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("spec", [Minor(rank=2), Major(rank=2), Mica(rank=2)])
def test_what_is_decomposed_are_the_unrounded_weights(pipe, recipe, tmp_path, spec):
    """After one step of size 0, the adapter is where it started."""
    settings = {"adapter": spec, "steps": 1, "lr": 1e-30, "weight_decay": 0.0}
    plain = train(pipe, recipe(**settings, out=str(tmp_path / "plain")))
    rounded = train(pipe, recipe(**settings, base_weights="nf4"))
    for name, value in rounded.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], atol=1e-25, rtol=0)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_stopped_run_goes_on_to_the_same_bits(pipe, recipe, tmp_path, kind):
    settings = {"adapter": Minor(rank=2), "base_weights": kind}
    whole = recipe(**settings, steps=4, out=str(tmp_path / "whole"))
    train(pipe, whole)
    stopped = recipe(**settings, steps=2)
    train(pipe, stopped)
    train(pipe, replace(stopped, steps=4))
    files = [load_file(Path(run.out) / "adapter.safetensors") for run in (whole, stopped)]
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())


def test_a_run_does_not_go_on_with_weights_rounded_otherwise(pipe, recipe):
    train(pipe, recipe(steps=1, base_weights="int8"))
    with pytest.raises(ValueError, match="base_weights is 'int8' there and 'as_loaded' here"):
        train(pipe, recipe(steps=2))


def test_a_full_adapter_is_refused(recipe):
    with pytest.raises(
        ValueError, match=r"base_weights=fp8 is for weights that stay frozen, .*: set base_weights=as_loaded"
    ):
        recipe(adapter=Full(), base_weights="fp8")


def test_the_teacher_that_is_the_base_is_the_rounded_base(pipe, recipe):
    made = recipe(steps=1, base_weights="nf4", distill_weight=1.0)
    train(pipe, made)
    assert read_metrics(Path(made.out) / "metrics.jsonl")[0]["distill"] == 0


@pytest.mark.parametrize("mode", [True, "attention"])
def test_what_is_computed_again_gives_the_same_gradients(transformer, mode):
    with quantised(transformer, "nf4"):
        kept, recomputed = (gradients(transformer, Lora(rank=4), how) for how in (False, mode))
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_samples_of_the_base_are_of_the_rounded_one(pipe, recipe):
    """A base drawn in one format does not stand beside samples in another."""
    made = recipe(steps=1, sample_every=1, sample_prompts=("a",), sample_steps=2, base_weights="nf4")
    drawn = []
    for kind in ("nf4", "as_loaded"):
        other = replace(made, base_weights=kind)
        train(pipe, other)
        drawn.append((Path(made.out) / "samples" / "base-00.png").read_bytes())
        (Path(made.out) / "checkpoints").rename(Path(made.out) / f"checkpoints-{kind}")
    assert drawn[0] != drawn[1]


@pytest.mark.slow
def test_the_miniature_learns_as_much_on_a_rounded_base(tmp_path):
    """200 steps of mini_2x: the validation loss within 2% of the plain base's (benchmarks/base_weights.py measures
    it)."""
    pipe, losses = mini.pipeline(), {}
    data = render_scenes("mini:clean:160", tmp_path, size=256)
    for kind in ("as_loaded", *FORMATS):
        changes = {"base_weights": kind, "data": str(data), "out": str(tmp_path / kind)}
        made = recipes.mini_2x(**changes, steps=200, num_validation=8, validate_every=200, sample_every=0)
        train(pipe, made)
        losses[kind] = [
            row["validation_loss"] for row in read_metrics(tmp_path / kind / "metrics.jsonl")[::200]
        ]
    assert losses["as_loaded"][-1] < 0.75 * losses["as_loaded"][0]
    for kind in FORMATS:
        assert losses[kind][-1] == pytest.approx(losses["as_loaded"][-1], rel=0.02)
