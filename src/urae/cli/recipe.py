"""`urae recipe`: which recipes there are, and every setting of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from urae import training
from urae.cli.printed import console, say
from urae.cli.train import chosen_recipe
from urae.cli.verbs import Commands
from urae.recipes import RECIPES

__all__ = ["app"]

app = Commands(no_args_is_help=True, help="List recipes, and show every setting of one.")


@app.command("list")
def list_recipes() -> dict[str, Any]:
    """What each recipe trains, on what.

    Example: urae recipe list
    """
    from rich.table import Table

    table = Table("recipe", "model", "size", "trains", "data")
    recipes = {name: make() for name, make in RECIPES.items()}
    for name, recipe in recipes.items():
        table.add_row(name, recipe.model, f"{recipe.size} px", recipe.adapter.kind, recipe.data)
    console.print(table)
    return {name: training.to_dict(recipe) for name, recipe in recipes.items()}


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help=f"{', '.join(RECIPES)}, or a YAML file.")],
    changes: Annotated[list[str] | None, typer.Argument(help="Changes as key=value.")] = None,
) -> dict[str, Any]:
    """The recipe as YAML, which `urae train` takes as a file.

    Example: urae recipe show flux_2k steps=500 > mine.yaml
    """
    chosen = chosen_recipe(recipe, changes or [])
    say(training.recipe_text(chosen).rstrip())
    return training.to_dict(chosen)
