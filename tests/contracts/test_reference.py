"""The generated reference pages are those of the code."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def generator(name="generate"):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "api.md", "settings.md"])
def test_reference_is_up_to_date(name):
    assert (DOCS / "reference" / name).read_text() == generator().pages()[name], "run `make docs`"


def test_settings_for_a_card_are_what_the_plan_says():
    """One row of the page here; all of it in the slow test."""
    cards = generator("cards")
    plan = cards.planned("flux_2k", cards.CARDS[1].gpu)
    rows = [cards.training_row("flux_2k", plan), cards.drawing_row(plan)]
    assert all(row in cards.PAGE.read_text() for row in rows), "run `make docs`"


@pytest.mark.slow
def test_the_page_of_cards_is_up_to_date():
    cards = generator("cards")
    assert cards.PAGE.read_text() == cards.page(), "run `make docs`"


def test_everything_exported_is_explained():
    """Every public function and class has a docstring of its own."""
    module = generator()
    for room in module.ROOMS:
        home = importlib.import_module(f"urae.{room}")
        for name in home.__all__:
            value = getattr(home, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                assert value.__doc__, f"urae.{room}.{name}"
                assert not value.__doc__.startswith(f"{name}("), (
                    f"urae.{room}.{name} has only a generated one"
                )


def test_every_setting_is_explained():
    """Each key of a recipe, an adapter, a policy and a method has a meaning in the table."""
    rows = [line for line in generator().settings_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    for row in rows:
        assert row.rsplit("| ", 1)[1].strip(" |"), row
