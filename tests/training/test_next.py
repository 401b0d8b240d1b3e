"""What a command advises next can be typed as it stands, and fits what was just done."""

import shlex

import pytest
from typer.testing import CliRunner

from urae.cli.data.cache import _next as after_caching
from urae.cli.main import app
from urae.cli.train import chosen_recipe
from urae.recipes import RECIPES, flux_4k


@pytest.fixture
def trained(recipe, pipe_folder, tmp_path, monkeypatch):
    """A function: changes on the command line -> the words after `next:` of a run of one step."""
    monkeypatch.chdir(tmp_path)

    def run(*changes: str) -> list[str]:
        settings = [
            *(f"{name}={getattr(recipe(), name)}" for name in ("data", "size", "batch_size", "base_dtype")),
            *("out=run", "steps=1", "num_validation=0", "validate_every=0", "sample_every=0", *changes),
        ]
        words = ["train", "flux_2k", "--model", "pipe", *settings]
        said = CliRunner().invoke(app, words, catch_exceptions=False).output
        return shlex.split(said.partition("next: ")[2])

    return run


def test_what_was_trained_is_drawn_as_it_says(trained, tmp_path):
    """With a caption of the data, in as many steps as its samples had."""
    words = trained("sample_steps=2", "base_weights=int8")
    assert words[:3] == ["urae", "generate", "a"]
    drawn = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert drawn.exit_code == 0, drawn.output
    assert "generating: 2/2" in drawn.output
    assert len(list((tmp_path / "images").glob("*.png"))) == 1


def test_what_is_usual_is_not_said(trained):
    assert trained()[3:] == ["--model", "pipe", "--adapter", "run/adapter.safetensors", "--size", "128x128"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_cache_is_followed_by_the_recipe_of_its_model_and_size(name):
    recipe = RECIPES[name]()
    alike = [
        one for one in RECIPES if (RECIPES[one]().model, RECIPES[one]().size) == (recipe.model, recipe.size)
    ]
    said = after_caching("my data", model=recipe.model, size=recipe.size)
    assert said == f"urae train {alike[0]} 'data=my data'"


def test_without_a_recipe_the_model_and_the_size_are_said():
    said = after_caching("data/a", model="lodestones/Chroma1-HD", size=1536)
    assert said == "urae train RECIPE data=data/a size=1536 model=lodestones/Chroma1-HD"


def test_a_recipes_own_start_can_be_taken_away():
    assert flux_4k().start
    assert chosen_recipe("flux_4k", ["start="]).start == ""
