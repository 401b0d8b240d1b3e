"""Candidates whose pictures differ in brightness, and plans that ask the local server about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from urae.judge.endpoint import Endpoint
from urae.judge.pictures import View
from urae.judge.plan import JudgingPlan, plan_judging

IDS = [f"p{i}" for i in range(8)]
PROMPTS = {name: f"a {{scene}} number {name}" for name in IDS}
SIZE = (96, 64)


def draw(folder: Path, level: float, *, ids=IDS, size=SIZE, seed: int = 0) -> Path:
    """A folder of grey noise around `level`, every picture different, its maker's name in the metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in ids:
        pixels = np.clip(rng.normal(level, 4, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", f"made by {folder.name}")
        Image.fromarray(pixels).save(folder / f"{name}.png", pnginfo=info)
    return folder


def endpoint(url: str = "http://127.0.0.1:9/v1", **changes) -> Endpoint:
    return Endpoint(model="toy", base_url=url, **{"retries": 2, "timeout": 20.0, **changes})


def small_plan(candidates, url: str = "http://127.0.0.1:9/v1", *, prompts=PROMPTS, **changes) -> JudgingPlan:
    """Pairs of one aspect unless told otherwise."""
    asked = {
        k: v
        for k, v in changes.items()
        if k not in ("retries", "timeout", "options", "schema", "key_variable")
    }
    given = {k: v for k, v in changes.items() if k not in asked}
    settings = {"aspects": ("overall",), "kinds": ("pair",), "view": View(crop=32, num_crops=2), **asked}
    return plan_judging(candidates, prompts, endpoint=endpoint(url, **given), **settings)
