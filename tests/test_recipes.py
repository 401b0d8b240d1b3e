"""Every shipped recipe: parsed, and one real step of it; and the command that runs them."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cases import thorough
from tiny import with_text_encoders, write_images
from urae import mini
from urae.adapters import Lora, Minor
from urae.adapters.targets import resolved
from urae.cli import app
from urae.mini.model import vocabulary
from urae.recipes import (
    RECIPES,
    flux2_klein_2k,
    flux2_klein_4k,
    flux_2k,
    flux_4k,
    mini_2x,
    mini_4x,
    schnell_2k,
    training_at_4k,
)
from urae.resolution import ResolutionPolicy
from urae.training import from_dict, read_metrics, save_recipe, to_dict, train


@pytest.fixture
def pipe(pipe):
    return with_text_encoders(pipe)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", [(128, 128)] * 9)


def test_a_mix_at_4k_is_trained_as_most_of_it_is():
    assert training_at_4k(0.7) == "urae train flux_4k_synthetic data=data/4k_synthetic:0.70,data/4k:0.30"
    assert training_at_4k(0.2) == "urae train flux_4k data=data/4k_synthetic:0.20,data/4k:0.80"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_survives_yaml_and_answers_to_the_keys_of_all(name):
    recipe = RECIPES[name]()
    assert from_dict(to_dict(recipe)) == recipe
    keys = {
        "data": "d",
        "out": "o",
        "steps": 3,
        "batch_size": 4,
        "seed": 5,
        "guidance": 2.0,
        "start": "s.safetensors",
    }
    keys |= {"checkpoint_every": 7, "sample_every": 9}
    changed = RECIPES[name](**keys, **{"adapter.rank": 8})
    assert {key: getattr(changed, key) for key in keys} == keys
    assert changed.adapter.rank == 8


ALIKE = ("flux2_klein_2k", "flux2_klein_4k", "flux_4k_synthetic", "qwen_image_4k", "z_image_2k", "z_image_4k")
"""Recipes that differ from others in numbers alone."""


@pytest.mark.parametrize("name", [thorough(name) if name in ALIKE else name for name in sorted(RECIPES)])
def test_a_recipe_takes_a_step(pipe, images, tmp_path, name):
    start = ""
    if RECIPES[name]().start:
        first = RECIPES["mini_2x"](**small(images, tmp_path / "first"))
        train(pipe, first)
        start = str(tmp_path / "first" / "adapter.safetensors")
    adapter = train(pipe, RECIPES[name](**small(images, tmp_path / name), start=start))
    rows = read_metrics(tmp_path / name / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    assert adapter.spec == resolved(replace(RECIPES[name]().adapter, rank=2), pipe.transformer)
    assert bool(adapter.start) == bool(start)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_takes_a_step_on_the_miniature(tmp_path, name):
    changes = small(tmp_path, tmp_path / "run") | {"data": "mini:clean:9", "size": 256, "adapter.rank": 16}
    adapter = train(mini.pipeline(), RECIPES[name](**changes, start=""))
    assert adapter.policy == ResolutionPolicy.for_size(mini.pipeline(), 256)
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [0, 1]


def small(images: Path, out: Path) -> dict:
    """Changes under which a recipe takes one step on the tiny pipeline; the recipe's own way of going about
    it stays."""
    return {
        "data": str(images),
        "out": str(out),
        "size": 128,
        "steps": 1,
        "batch_size": 2,
        "adapter.rank": 2,
        "sample_prompts": ["a b"],
        "sample_every": 1,
        "sample_steps": 1,
    }


def test_the_defaults_are_the_papers():
    for recipe in (flux_2k(), flux_4k(), flux2_klein_2k(), flux2_klein_4k()):
        assert (recipe.steps, recipe.batch_size, recipe.guidance, recipe.caption_mix) == (2000, 8, 1.0, 0.2)
        assert (recipe.optimizer, recipe.lr, recipe.betas, recipe.weight_decay) == (
            "prodigy",
            1.0,
            (0.9, 0.999),
            1e-4,
        )
        assert (recipe.sigma_sampling, recipe.sigma_shift) == ("uniform", 1.0)
    assert (flux_2k().size, flux_2k().adapter, flux_2k().start) == (2048, Lora(rank=16), "")
    assert (flux_4k().size, flux_4k().adapter) == (4096, Minor(rank=16))
    assert flux_4k().start == f"{flux_2k().out}/adapter.safetensors"
    assert mini_4x().start == f"{mini_2x().out}/adapter.safetensors"
    assert schnell_2k().model.endswith("schnell")
    assert (flux2_klein_2k().size, flux2_klein_2k().adapter) == (2048, Lora(rank=16))
    assert (flux2_klein_4k().size, flux2_klein_4k().adapter) == (4096, Minor(rank=16))
    assert flux2_klein_4k().start == f"{flux2_klein_2k().out}/adapter.safetensors"
    assert {flux2_klein_2k().model, flux2_klein_4k().model} == {"black-forest-labs/FLUX.2-klein-base-4B"}


def test_the_miniature_knows_the_words_of_its_samples():
    words = {
        word
        for recipe in (mini_2x(), mini_4x())
        for prompt in recipe.sample_prompts
        for word in prompt.split()
    }
    assert words <= set(vocabulary())


def test_a_missing_start_is_named_before_anything_is_done(pipe, images, tmp_path):
    with pytest.raises(ValueError, match="first/adapter.safetensors does not exist"):
        train(
            pipe,
            mini_4x(**small(images, tmp_path / "run"), start=str(tmp_path / "first" / "adapter.safetensors")),
        )
    assert not (tmp_path / "run").exists()
    assert not images.with_name(f"{images.name}.cache").exists()


def test_the_command_says_what_it_does_not_know(tmp_path):
    for arguments, message in [
        (
            ["flux_3k"],
            "there is no recipe 'flux_3k' (did you mean flux_4k?): expected a YAML file or one of",
        ),
        (["mini_2x", "steps"], "change is 'steps': expected name=value, such as steps=50"),
        (["mini_2x", "stepz=1"], "unknown recipe key 'stepz' (did you mean steps?)"),
        (["mini_2x", "steps=5", "steps=6"], "change 'steps' is given twice: expected each name once"),
        (["mini_2x", "steps=0"], "steps is 0: expected 1 or more"),
        ([str(tmp_path / "none.yaml")], "none.yaml cannot be opened"),
    ]:
        result = CliRunner().invoke(app, ["train", *arguments])
        assert result.exit_code == 2
        assert message in result.stderr


def test_the_command_trains_a_recipe_file_on_a_model_in_a_folder(pipe, images, tmp_path):
    pipe.save_pretrained(tmp_path / "tiny")
    save_recipe(mini_2x(**small(images, tmp_path / "run")), tmp_path / "mine.yaml")
    arguments = ["train", str(tmp_path / "mine.yaml"), "adapter.rank=3", "--model", str(tmp_path / "tiny")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'run' / 'adapter.safetensors'}" in result.stdout
    again = CliRunner().invoke(app, ["train", str(tmp_path / "run" / "recipe.yaml")])
    assert again.exit_code == 0, again.output
    assert "rank: 3" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_help_shows_an_example():
    result = CliRunner().invoke(app, ["train", "--help"])
    assert "urae train mini_2x" in result.stdout
