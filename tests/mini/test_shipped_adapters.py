"""The adapters that ship with the miniature: they load by name, belong to its weights, and do what they are for."""

import numpy as np
import pytest
import torch

from urae import Adapter, ResolutionPolicy, generate, mini
from urae.adapters import SHIPPED, AdapterFile, file_named
from urae.families import family_of
from urae.generation import asked_again
from urae.mini.recogniser import recogniser
from urae.provenance import save_png

SIZES = {"mini:2x": 256, "mini:4x": 512}
HELD_OUT = 4_000_000
"""Seed of the first scene: none that is trained on comes near."""


@pytest.fixture(scope="module")
def pipe():
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def velocity_error(pipe, size, *, num=2, sigmas=(0.2, 0.5, 0.8)):
    """Mean squared error at guidance 1 over scenes and noise levels, with fixed noise."""
    family, errors = family_of(pipe), []
    scenes = [mini.familiar_scene(HELD_OUT + i) for i in range(num)]
    pixels = np.stack([np.asarray(mini.render(scene, size)) for scene in scenes])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    clean = family.latents.encode(pipe, images).mean
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    text = family.text.encode(pipe, [scene.caption() for scene in scenes])
    for sigma in sigmas:
        noisy, levels = (1 - sigma) * clean + sigma * noise, torch.full((num,), sigma)
        predicted = family.calls.velocity(
            pipe.transformer, noisy, sigma=levels, embeddings=text, guidance=1.0
        )
        errors.append(float((predicted - (noise - clean)).square().mean()))
    return np.mean(errors)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_belongs_to_the_shipped_weights_and_predicts_what_the_policy_alone_cannot(pipe, name):
    adapter, size = Adapter.load(name, base=pipe), SIZES[name]
    policy = ResolutionPolicy.for_size(pipe, size)
    assert adapter.policy == policy
    assert adapter.file == name
    assert file_named(name).stat().st_size < 2e6
    with policy.on(pipe):
        before = velocity_error(pipe, size)
    with adapter.on(pipe):
        after = velocity_error(pipe, size)
    assert after < 0.55 * before


@pytest.mark.slow
def test_its_pictures_show_what_was_asked_and_are_made_again_from_their_files(pipe, tmp_path):
    adapter = Adapter.load("mini:2x", base=pipe)
    scenes = [mini.familiar_scene(HELD_OUT + i) for i in range(3)]
    images = [
        generate(pipe, scene.caption(), size=256, steps=8, seed=seed, adapter=adapter)
        for seed, scene in enumerate(scenes)
    ]
    seen = recogniser().look(images, [1] * len(images))
    assert sum(look.agrees(scene)["object"] for look, scene in zip(seen, scenes, strict=True)) >= 2
    save_png(images[0], tmp_path / "a.png")
    assert list(asked_again(tmp_path / "a.png", given=()).model["adapter"]) == [
        AdapterFile.of("mini:2x:1.0").path.with_name("mini:2x:1.0")
    ]


def test_a_name_may_carry_a_strength_and_a_wrong_one_is_told(tmp_path, monkeypatch):
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)
    path, strength = AdapterFile.of("mini:4x:0.5")
    assert (file_named(path), strength) == (mini.adapter_file("4x"), 0.5)
    assert file_named(AdapterFile.of("mini:2x").path) == mini.adapter_file("2x")
    with pytest.raises(ValueError, match="mini:3x names no adapter: expected mini:2x or mini:4x"):
        Adapter.load("mini:3x")
