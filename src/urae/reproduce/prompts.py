"""The prompts of a set: from a file, or from scenes of the miniature; all of them, or as many as are asked for."""

from __future__ import annotations

import random
from pathlib import Path

from urae.dpg.questions import DpgItem, read_questions
from urae.dpg.scenes import scene_item
from urae.io import write_png
from urae.metrics.matching import prompts_by_id
from urae.mini import familiar_scene, render
from urae.reproduce.plan import TablePlan

__all__ = ["SCENES", "draw_truth", "items_of", "prompts_of"]

SCENES = "mini:"
"""What stands before the number of scenes."""
FIRST_SCENE = 3_000_000
"""Of seeds that no data set of the miniature comes near."""


def prompts_of(plan: TablePlan, name: str) -> dict[str, str]:
    """Prompts by id of a set that is there."""
    source = plan.prompts[name]
    if source.startswith(SCENES) or source.endswith(".csv"):
        return {item.id: item.prompt for item in items_of(plan, name)}
    prompts = prompts_by_id(source)
    return {key: prompts[key] for key in _drawn(plan, list(prompts))}


def items_of(plan: TablePlan, name: str) -> list[DpgItem]:
    """The same with DPG-Bench's questions. `ValueError` for a set without any."""
    source = plan.prompts[name]
    if source.startswith(SCENES):
        return [scene_item(key, familiar_scene(seed)) for key, seed in _seeds(source).items()]
    if not source.endswith(".csv"):
        raise ValueError(
            f"prompts.{name} is {source}, which has no questions: expected a csv file of DPG-Bench"
        )
    items = {item.id: item for item in read_questions(source)}
    return [items[key] for key in _drawn(plan, list(items))]


def draw_truth(plan: TablePlan, name: str, folder: Path) -> None:
    """True renderings of a set of scenes, as `<id>.png`."""
    for key, seed in _seeds(plan.prompts[name]).items():
        if not (folder / f"{key}.png").exists():
            write_png(render(familiar_scene(seed), plan.size), folder / f"{key}.png", texts={})


def _seeds(source: str) -> dict[str, int]:
    text = source.removeprefix(SCENES)
    if not text.isdecimal():
        raise ValueError(f"prompts are {source!r}: expected mini:N for N scenes, such as mini:6")
    return {f"s{i}": FIRST_SCENE + i for i in range(int(text))}


def _drawn(plan: TablePlan, keys: list[str]) -> list[str]:
    """As many as the plan asks for, chosen by its seed, in the order of the file."""
    if not plan.num_prompts:
        return keys
    if plan.num_prompts > len(keys):
        raise ValueError(
            f"num_prompts is {plan.num_prompts}, and a set has {len(keys)}: expected no more than that"
        )
    chosen = set(random.Random(plan.seed).sample(keys, plan.num_prompts))
    return [key for key in keys if key in chosen]
