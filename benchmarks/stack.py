"""A style beside the adapter for the size: `python benchmarks/stack.py --start out/mini_2x/adapter.safetensors`.

The style is a small LoRA without a policy, as such files are had anywhere, trained here at the miniature's native
size on scenes in two inks. Scenes are drawn at 256 px four ways: with neither, with the adapter for the size, with the
style, and with both as a stack. Told are how far colours are from the two inks, of 255, and whether the recogniser
sees the object; it knows only true colours, so it sees less in the style. Writes benchmarks/results/stack.json and a
sheet of the pictures.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from report import RESULTS, conditions, write

from urae import Lora, ResolutionPolicy, Stack, mini
from urae.adapters import Adapter
from urae.generation import plan_drawing
from urae.generation.asking import DrawingRequest
from urae.mini.pictures import write_dataset
from urae.mini.recogniser import recogniser
from urae.mini.world import familiar_scene
from urae.quickstart.overview import overview
from urae.recipes import mini_2x
from urae.training import train

INKS = (30, 40, 110), (250, 235, 200)
"""Of dark and of light places."""
NATIVE, SIZE, FIRST = 128, 256, 70_000
STYLE = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "*.ff.net.0.proj", "*.ff.net.2")
WORK = Path(".cache/benchmarks/stack")
SHEET = Path("docs/images/stack.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--strength", type=float, default=0.8)
    asked = parser.parse_args()
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    style, size = trained_style(pipe, asked.steps), Adapter.load(asked.start, base=pipe)
    ways: dict[str, Any] = {
        "neither": None,
        "size": size,
        "style": Stack([(style, asked.strength)]),
        "both": Stack([size, (style, asked.strength)]),
    }
    scenes = [familiar_scene(FIRST + number) for number in range(asked.prompts)]
    prompts = [scene.caption() for scene in scenes]
    drawn = {name: pictures(pipe, adapter, prompts) for name, adapter in ways.items()}
    rows = [{"way": name, **numbers(images, scenes)} for name, images in drawn.items()]
    for row in rows:
        print(f"{row['way']}: {row['from_inks']:.1f} from the inks, {row['seen']} of {len(scenes)} seen")
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    columns = list(map(list, zip(*drawn.values(), strict=True)))
    overview(list(drawn), columns, prompts).save(SHEET, quality=85)
    said = conditions("stack", steps=asked.steps, strength=asked.strength, start=size.hash)
    write(RESULTS / "stack.json", {**said, "rows": rows})


def trained_style(pipe: Any, steps: int) -> Adapter:
    """A LoRA of rank 8 on 48 scenes in the inks, without a policy."""
    folder = write_dataset(WORK / "pictures", 48, NATIVE)
    for file in folder.glob("*.png"):
        in_inks(Image.open(file).convert("RGB")).save(file)
    recipe = mini_2x(
        size=NATIVE,
        data=str(folder),
        out=str(WORK / f"style-{steps}"),
        steps=steps,
        sample_every=0,
        validate_every=steps,
        checkpoint_every=steps,
    )
    adapter = train(pipe, replace(recipe, adapter=Lora(rank=8, targets=STYLE)))
    return replace(adapter, policy=None)


def in_inks(picture: Image.Image) -> Image.Image:
    return ImageOps.colorize(ImageOps.grayscale(picture), *INKS)


def pictures(pipe: Any, adapter: Any, prompts: list[str]) -> list[Image.Image]:
    """All under the policy for the size, so that they differ in the adapters alone."""
    policy = ResolutionPolicy.for_size(pipe, (SIZE, SIZE))
    asked = DrawingRequest(
        prompt=prompts, size=(SIZE, SIZE), steps=12, seed=0, adapter=adapter, policy=policy
    )
    return plan_drawing(pipe, asked).run()


def numbers(images: list[Image.Image], scenes: list[Any]) -> dict[str, Any]:
    found = recogniser().look(images, [1] * len(images))
    seen = sum(one.objects[0][0] == scene.things[0].name for one, scene in zip(found, scenes, strict=True))
    return {"from_inks": round(mean(map(from_inks, images)), 2), "seen": seen}


def from_inks(picture: Image.Image) -> float:
    """Mean distance of pixels from the same in the inks, per channel."""
    colours, inked = (np.asarray(one, dtype=float) for one in (picture.convert("RGB"), in_inks(picture)))
    return float(np.abs(colours - inked).mean())


if __name__ == "__main__":
    main()
