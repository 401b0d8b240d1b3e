"""Scenes as training data: clean, as a strong teacher would give them, or damaged, as the web is.

`clean` stands for synthetic teacher images, `real` for photographs scraped with captions: some captions
describe another scene, some images are blurred, over-compressed or watermarked. Both are functions of the
seed alone, so a data set can be drawn again, extended or rendered at another size.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from urae.mini.world import Scene, other_scene, render, scene

__all__ = ["Damage", "Picture", "clean", "real", "write_dataset"]


Draw = Callable[[int], Scene]
"""From a seed to a scene: `scene`, `familiar_scene`, or one of your own."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Shares of pictures with each kind of damage, in [0, 1], drawn independently."""

    wrong_caption: float = 0.3
    """The caption describes the same layout with other objects."""
    blur: float = 0.3
    """Gaussian blur of 0.6 to 1.6% of the side: an upscaled image."""
    jpeg: float = 0.5
    """JPEG of quality 12 to 40."""
    watermark: float = 0.15
    """A grid of pale diagonal bars over the whole picture."""

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of pictures and must lie in [0, 1], not {share}")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with what is said of it, and the truth."""

    image: Image.Image
    caption: str
    detailed: str
    scene: Scene
    """What the image really shows."""
    damages: tuple[str, ...]
    """Names of the `Damage` fields that struck."""


def clean(seed: int, size: int, *, draw: Draw = scene) -> Picture:
    """Scene `seed` of `draw` at `size` px, truthfully captioned."""
    shown = draw(seed)
    return _picture(shown, shown, render(shown, size), ())


def real(seed: int, size: int, damage: Damage | None = None, *, draw: Draw = scene) -> Picture:
    """Scene `seed` of `draw` at `size` px, damaged at the rates of `damage` (default: `Damage()`)."""
    rates = vars(damage or Damage())
    rng = np.random.default_rng([seed, 130])
    struck = tuple(name for name, share in rates.items() if rng.random() < share)
    shown = draw(seed)
    image = render(shown, size)
    for name in struck:
        if name in _DAMAGES:
            image = _DAMAGES[name](image, rng)
    said = other_scene(shown, seed) if "wrong_caption" in struck else shown
    return _picture(shown, said, image, struck)


def write_dataset(
    folder: str | Path,
    num: int,
    size: int,
    *,
    seed: int = 0,
    damage: Damage | None = None,
    draw: Draw = scene,
    on_picture: Callable[[], None] = lambda: None,
) -> Path:
    """`num` pictures as `000000.png` with a sidecar `000000.json` ("prompt": short caption, "generated_prompt":
    detailed one), of scenes `draw(seed)`, `draw(seed + 1)`, ..., those left out that came before; clean unless
    `damage` is given. `on_picture` is called after each. Returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i, number in enumerate(islice(_different(draw, seed), num)):
        picture = clean(number, size, draw=draw) if damage is None else real(number, size, damage, draw=draw)
        picture.image.save(folder / f"{i:06d}.png", compress_level=1)
        captions = {"prompt": picture.caption, "generated_prompt": picture.detailed}
        (folder / f"{i:06d}.json").write_text(json.dumps(captions))
        on_picture()
    return folder


def _different(draw: Draw, seed: int) -> Iterator[int]:
    """Seeds from `seed` on whose scenes have not come before."""
    seen: set[Scene] = set()
    for number in count(seed):
        if (drawn := draw(number)) not in seen:
            seen.add(drawn)
            yield number


def _picture(shown: Scene, said: Scene, image: Image.Image, struck: tuple[str, ...]) -> Picture:
    return Picture(
        image=image, caption=said.caption(), detailed=said.caption(detailed=True), scene=shown, damages=struck
    )


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(image.width * float(rng.uniform(0.006, 0.016))))


def _jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(12, 41)))
    return Image.open(buffer).convert("RGB")


def _watermark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[: image.height, : image.width] * (128 / image.width)
    bars = (((x + y + rng.uniform(0, 24)) % 24) < 3) & (((x - y) % 12) < 8)
    pixels = np.asarray(image, dtype=np.float32)
    return Image.fromarray((pixels + 0.45 * bars[..., None] * (255 - pixels)).astype(np.uint8))


_DAMAGES = {"blur": _blur, "jpeg": _jpeg, "watermark": _watermark}
