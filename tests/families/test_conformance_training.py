"""Training every family from cached data: exact resume, caches of ragged text, samples."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import embeddings

from tiny import write_images
from urae.adapters import Lora
from urae.data import make_cache, open_cache
from urae.families import Drawing
from urae.resolution import ResolutionPolicy
from urae.training import Recipe, read_metrics, train


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Four of two shapes, with captions of one and of two letters."""
    return write_images(tmp_path_factory.mktemp("data") / "images", [(128, 128)] * 2 + [(192, 144)] * 2)


@pytest.fixture(scope="session")
def cache(tiny, images, tmp_path_factory):
    """Of these, at 128 px."""
    out = tmp_path_factory.mktemp("cache") / tiny.golden
    return make_cache(tiny.pipe, images, out, size=128).cache


@pytest.fixture
def recipe(cache, tmp_path):
    return Recipe(
        model="tiny",
        data=str(cache.path),
        out=str(tmp_path / "run"),
        size=128,
        adapter=Lora(rank=4),
        steps=3,
        batch_size=2,
        optimizer="adamw",
        lr=1e-3,
        base_dtype="fp32",
        checkpoint_every=1,
        loggers=(),
    )


def test_a_cache_gives_back_what_the_encoders_said(tiny, cache):
    """Texts of other lengths keep what tells them apart, masks among it, in both forms."""
    for entry in open_cache(cache.path).entries:
        for kind, caption in entry.record.captions.items():
            sample = cache.load(entry, kind)
            expected = embeddings(tiny, caption)
            assert sample.text.keys() == expected.keys()
            for name, tensor in expected.items():
                assert torch.equal(sample.text[name], tensor[0])
                assert sample.text[name].dtype == tensor.dtype
        width, height = entry.bucket
        shape = tiny.family.latents.shape(tiny.pipe, (width, height))
        assert sample.posterior.mean.shape[-2:] == shape


def test_the_small_form_is_off_by_rounding_alone(tiny, cache, images, tmp_path):
    small = make_cache(tiny.pipe, images, tmp_path / "small", size=128, form="small").cache
    for one, other in zip(small.entries, cache.entries, strict=True):
        found, expected = small.load(one), cache.load(other)
        for name, tensor in expected.text.items():
            if not tensor.is_floating_point() or set(tensor.unique().tolist()) <= {0.0, 1.0}:
                assert torch.equal(found.text[name].to(tensor), tensor)  # a mask is no matter of rounding
            else:
                error = (found.text[name] - tensor).abs().max()
                assert error < 0.01 * tensor.abs().max()


def test_a_broken_run_goes_on_to_the_same_bits(tiny, recipe, tmp_path):
    whole = replace(recipe, out=str(tmp_path / "whole"))
    train(tiny.pipe, whole)
    train(tiny.pipe, replace(recipe, steps=2))
    train(tiny.pipe, recipe)
    first, second = (tmp_path / out / "adapter.safetensors" for out in ("whole", "run"))
    assert first.read_bytes() == second.read_bytes()
    histories = [read_metrics(tmp_path / out / "metrics.jsonl") for out in ("whole", "run")]
    for rows in zip(*histories, strict=True):
        assert [row["loss"] for row in rows] == [rows[0]["loss"]] * 2
    assert len(histories[0]) == 3


@pytest.mark.parametrize("mode", ["full", "attention"])
def test_checkpointing_trains_alike(tiny, recipe, tmp_path, mode):
    runs = [
        train(
            tiny.pipe,
            replace(recipe, steps=2, out=str(tmp_path / str(way)), gradient_checkpointing=way),
        )
        for way in (False, mode)
    ]
    for name, (A, B) in runs[0].factors.items():
        torch.testing.assert_close(
            runs[1].factors[name][1] @ runs[1].factors[name][0], B @ A, atol=1e-6, rtol=0
        )


def test_samples_and_validation_need_no_encoders_while_it_trains(tiny, recipe):
    policy = ResolutionPolicy.for_size(tiny.pipe, 128)
    made = replace(
        recipe,
        steps=1,
        sample_every=1,
        sample_prompts=("a b",),
        sample_steps=1,
        policy=policy,
        num_validation=2,
        validate_every=1,
    )
    train(tiny.pipe, made)
    samples = sorted(Path(recipe.out).glob("samples/*.png"))
    assert [file.name for file in samples] == ["base-00.png", "step-000001-00.png"]
    with Image.open(samples[0]) as base, policy.on(tiny.pipe):
        drawn = tiny.family.pipelines.draw(tiny.pipe, sample_of(made))
        # Kernels round by where tensors lie in memory, which the adapter's change.
        off = np.asarray(base, dtype=int) - np.asarray(drawn, dtype=int)
    assert abs(off).max() <= 1
    assert "validation" in json.dumps(read_metrics(Path(recipe.out) / "metrics.jsonl"))


def sample_of(recipe) -> Drawing:
    """What the first sample shows, from the prompt itself."""
    return Drawing(
        prompt=recipe.sample_prompts[0],
        negative="",
        size=(recipe.size, recipe.size),
        guidance=recipe.sample_guidance,
        steps=recipe.sample_steps,
        settings={"generator": torch.Generator().manual_seed(0)},
    )


def test_guidance_in_training_is_for_embedded_guidance_alone(tiny, recipe):
    guided = replace(recipe, steps=1, guidance=3.5)
    if tiny.guiding == "embedded":
        assert train(tiny.pipe, guided).recipe["guidance"] == 3.5
    else:
        with pytest.raises(ValueError, match=r"guidance is 3.5"):
            train(tiny.pipe, guided)
