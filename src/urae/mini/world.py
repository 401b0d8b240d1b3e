"""The miniature's world: captioned scenes of vector art, rendered exactly at any size.

A scene is one object, or two in a stated relation, in one of two styles, on one of ten textured backgrounds,
sometimes with a small label. Everything is laid out in units of 1/128 of the side, so the same scene exists
at 128, 256 and 512 px; the finest texture and the lettering are smaller than a pixel at 128 px and appear
only at the larger sizes. A scene is a function of its seed alone.

Glyphs: Microsoft Fluent Emoji (glossy, MIT) and Google Noto Emoji (flat, Apache-2.0), see art/LICENSES.md.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

__all__ = [
    "BACKGROUNDS",
    "FAMILIAR",
    "OBJECTS",
    "RELATIONS",
    "STYLES",
    "Scene",
    "Thing",
    "familiar_scene",
    "render",
    "scene",
]

UNITS = 128
"""Side of a scene in its own units."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of a scene."""

    name: str
    """One of `OBJECTS`."""
    style: str
    """One of `STYLES`."""
    x: int
    """Centre, units of 1/128 of the side, from the left."""
    y: int
    """Centre, units of 1/128 of the side, from the top."""
    size: int
    """Side of the glyph's square, in the same units."""

    @property
    def words(self) -> str:
        return f"a {self.style} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows; `caption()` says it in words, `render()` draws it."""

    things: tuple[Thing, ...]
    background: str
    label: str
    """Lettering near the lower edge, "" for none."""

    @property
    def relation(self) -> str:
        """How the first object stands to the second ("left of", ...), "" for a single object."""
        if len(self.things) == 1:
            return ""
        first, second = self.things
        dx, dy = second.x - first.x, second.y - first.y
        if abs(dx) >= abs(dy):
            return "left of" if dx > 0 else "right of"
        return "above" if dy > 0 else "below"

    def caption(self, detailed: bool = False) -> str:
        """The short form names objects, styles, relation and background; the detailed one adds size, place,
        texture and lettering."""
        words = [thing.words for thing in self.things]
        if detailed:
            words = [f"a {_size_word(t)} {t.style} {t.name} {_place(t)}" for t in self.things]
        subject = f" {self.relation} ".join(words) if len(words) == 2 else words[0]
        text = f"{subject} on a {self.background} background"
        if detailed:
            text += f" with {BACKGROUNDS[self.background].texture}"
            text += f" and the word {self.label}" if self.label else ""
        return text


def scene(
    seed: int,
    *,
    pairs: float = 1 / 3,
    labels: float = 0.2,
    objects: Sequence[str] = (),
    sizes: Sequence[int] = (56, 72, 88, 104),
) -> Scene:
    """The scene with this seed. `pairs` and `labels` are the shares of scenes with two objects and with
    lettering, in [0, 1]; `objects` what to draw from (default: `OBJECTS`); `sizes` those of a single object, in
    units of 1/128 of the side."""
    rng = np.random.default_rng([seed, 128])
    names = tuple(objects) or OBJECTS
    background = str(rng.choice(sorted(BACKGROUNDS)))
    things = _pair(rng, names) if rng.random() < pairs else (_single(rng, names, sizes),)
    label = things[0].name if rng.random() < labels else ""
    return Scene(things=things, background=background, label=label)


def familiar_scene(seed: int) -> Scene:
    """One object of `FAMILIAR`, medium or large: what the shipped weights were trained on longest."""
    return scene(seed, pairs=0, objects=FAMILIAR, sizes=(72, 88, 104))


FAMILIAR = ("apple", "castle", "ghost", "mushroom", "sunflower", "tiger", "umbrella", "watermelon")
"""The objects that the shipped weights draw best."""


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB image of `size` x `size` px. Edges of objects are snapped to whole pixels, so a
    scene agrees between sizes to half a pixel."""
    canvas = _background(scene.background, size).copy()
    for thing in scene.things:
        side = round(thing.size * size / UNITS)
        left = round(thing.x * size / UNITS - side / 2)
        top = round(thing.y * size / UNITS - side / 2)
        _compose(canvas, _sprite(thing.name, thing.style, side), left, top)
    if scene.label:
        _compose(canvas, _lettering(scene.label, size), 0, 0)
    return Image.fromarray((canvas * 255 + 0.5).astype(np.uint8))


def other_scene(scene: Scene, seed: int) -> Scene:
    """The same layout with other objects: what a wrong caption describes."""
    rng = np.random.default_rng([seed, 129])
    others = [name for name in OBJECTS if name not in {t.name for t in scene.things}]
    names = rng.choice(others, size=len(scene.things), replace=False)
    return replace(
        scene, things=tuple(replace(t, name=str(n)) for t, n in zip(scene.things, names, strict=True))
    )


# --- composing a scene -----------------------------------------------------------------------------------

STYLES = ("flat", "glossy")
RELATIONS = ("left of", "right of", "above", "below")


def _single(rng: np.random.Generator, names: Sequence[str], sizes: Sequence[int]) -> Thing:
    size = int(rng.choice(sizes))
    margin = size // 2 + 2
    return Thing(
        name=str(rng.choice(names)),
        style=str(rng.choice(STYLES)),
        x=int(rng.integers(margin, UNITS - margin + 1)),
        y=int(rng.integers(margin, UNITS - margin + 1)),
        size=size,
    )


def _pair(rng: np.random.Generator, names: Sequence[str]) -> tuple[Thing, Thing]:
    first, second = (str(name) for name in rng.choice(names, size=2, replace=False))
    sizes = rng.choice([48, 56], size=2)
    near, far = int(rng.integers(29, 34)), int(rng.integers(95, 100))
    along = {"left of": (near, far), "above": (near, far), "right of": (far, near), "below": (far, near)}
    relation = str(rng.choice(RELATIONS))
    across = rng.integers(44, 85, size=2)
    things = []
    for i, name in enumerate((first, second)):
        place = (along[relation][i], int(across[i]))
        x, y = place if relation in ("left of", "right of") else place[::-1]
        things.append(Thing(name=name, style=str(rng.choice(STYLES)), x=x, y=y, size=int(sizes[i])))
    return things[0], things[1]


def _size_word(thing: Thing) -> str:
    return "small" if thing.size <= 56 else "medium" if thing.size <= 72 else "large"


def _place(thing: Thing) -> str:
    row = "upper" if thing.y < 55 else "lower" if thing.y > 73 else ""
    column = "left" if thing.x < 55 else "right" if thing.x > 73 else ""
    if row and column:
        return f"at the {row} {column}"
    alone = {"upper": "top", "lower": "bottom"}.get(row, column)
    return f"at the {alone}" if alone else "in the middle"


# --- backgrounds -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Background:
    """A vertical gradient, a pattern that 128 px shows, and a fine one that only larger sizes show."""

    top: str
    bottom: str
    texture: str
    """What the detailed caption calls the pattern."""
    pattern: Callable[[np.random.Generator], str]
    """Draws the pattern as SVG in scene units."""


def _lines(
    rng: np.random.Generator, *, color: str, step: float, width: float, slope: float = 0, wave: float = 0
) -> str:
    paths = []
    for at in np.arange(-UNITS, 2 * UNITS, step):
        points = [(x, at + slope * x + wave * np.sin(x / 9 + at)) for x in range(-4, UNITS + 5, 4)]
        paths.append("M" + " ".join(f"{x:.0f},{y:.2f}" for x, y in points))
    return f'<path d="{"".join(paths)}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _columns(rng: np.random.Generator, *, color: str, step: float, width: float, wave: float = 0) -> str:
    lines = _lines(rng, color=color, step=step, width=width, wave=wave)
    return f'<g transform="rotate(90 {UNITS / 2} {UNITS / 2})">{lines}</g>'


def _dots(rng: np.random.Generator, *, color: str, num: int, radius: float) -> str:
    places = rng.uniform(0, UNITS, size=(num, 2))
    radii = radius * rng.uniform(0.6, 1.4, size=num)
    dots = (
        f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{r:.2f}"/>' for (x, y), r in zip(places, radii, strict=True)
    )
    return f'<g fill="{color}">{"".join(dots)}</g>'


def _squares(rng: np.random.Generator, *, color: str, step: int) -> str:
    cells = [(x, y) for x in range(0, UNITS, step) for y in range(0, UNITS, step) if (x + y) // step % 2]
    paths = "".join(f"M{x},{y}h{step}v{step}h-{step}z" for x, y in cells)
    return f'<path d="{paths}" fill="{color}"/>'


def _bricks(rng: np.random.Generator, *, color: str) -> str:
    rows = "".join(f"M0,{y}h{UNITS}" for y in range(0, UNITS, 16))
    joints = "".join(
        f"M{x + (y // 16 % 2) * 16},{y}v16" for y in range(0, UNITS, 16) for x in range(0, 160, 32)
    )
    return f'<path d="{rows}{joints}" stroke="{color}" stroke-width="2" fill="none"/>'


BACKGROUNDS: dict[str, Background] = {
    "brick": Background(
        top="#b9644d", bottom="#a65543", texture="mortar lines",
        pattern=lambda r: _bricks(r, color="#c98e79") + _dots(r, color="#8a4334", num=900, radius=0.4),
    ),
    "candy": Background(
        top="#f7bcd3", bottom="#f3a9c6", texture="diagonal stripes",
        pattern=lambda r: _lines(r, color="#fbdbe7", step=22.63, width=8, slope=1)
        + _lines(r, color="#e48db0", step=2.83, width=0.35, slope=1),
    ),
    "grass": Background(
        top="#6fb655", bottom="#4f9a45", texture="thin blades",
        pattern=lambda r: _columns(r, color="#5fa84c", step=16, width=7, wave=2)
        + _columns(r, color="#93cf70", step=2, width=0.4, wave=0.6),
    ),
    "mint": Background(
        top="#a9e3d2", bottom="#8fd6c4", texture="pale squares",
        pattern=lambda r: _squares(r, color="#bdeadd", step=16) + _squares(r, color="#7fc9b533", step=2),
    ),
    "night": Background(
        top="#1c2452", bottom="#34336f", texture="tiny stars",
        pattern=lambda r: _dots(r, color="#f5efc8", num=26, radius=0.9)
        + _dots(r, color="#aab4f0", num=420, radius=0.25),
    ),
    "paper": Background(
        top="#f6f1e3", bottom="#ece4cf", texture="a faint grid",
        pattern=lambda r: _lines(r, color="#d6cfb8", step=16, width=1) + _columns(r, color="#d6cfb8", step=16, width=1)
        + _lines(r, color="#e0d8c0", step=2, width=0.3) + _columns(r, color="#e0d8c0", step=2, width=0.3),
    ),
    "sand": Background(
        top="#ead09a", bottom="#dcb878", texture="fine ripples",
        pattern=lambda r: _lines(r, color="#e2c488", step=18, width=8, wave=3)
        + _lines(r, color="#c9a05f", step=2.5, width=0.4, wave=1),
    ),
    "sky": Background(
        top="#5aa7ea", bottom="#a8d4f7", texture="soft specks",
        pattern=lambda r: _dots(r, color="#ffffff55", num=12, radius=9) + _dots(r, color="#ffffffaa", num=700, radius=0.35),
    ),
    "slate": Background(
        top="#6a7682", bottom="#55606c", texture="crossed scratches",
        pattern=lambda r: _lines(r, color="#74818e", step=26, width=6, slope=0.4)
        + _lines(r, color="#8b98a5", step=3, width=0.35, slope=0.8) + _lines(r, color="#46505b", step=3, width=0.35, slope=-0.8),
    ),
    "wood": Background(
        top="#a9744a", bottom="#96623c", texture="long grain",
        pattern=lambda r: _lines(r, color="#8a5835", step=32, width=1.6, wave=1)
        + _lines(r, color="#bd8a5d", step=2.2, width=0.4, wave=0.8),
    ),
}  # fmt: skip


@lru_cache(maxsize=64)
def _background(name: str, size: int) -> np.ndarray:
    ground = BACKGROUNDS[name]
    gradient = f'<linearGradient id="g" x2="0" y2="1"><stop stop-color="{ground.top}"/>'
    gradient += f'<stop offset="1" stop-color="{ground.bottom}"/></linearGradient>'
    fill = f'<rect width="{UNITS}" height="{UNITS}" fill="url(#g)"/>'
    body = gradient + fill + ground.pattern(np.random.default_rng(len(name)))
    return _rasterise(body, UNITS, size)[..., :3]


# --- glyphs and lettering --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _art() -> dict:
    return json.loads(gzip.decompress((Path(__file__).parent / "art" / "glyphs.json.gz").read_bytes()))


OBJECTS: tuple[str, ...] = tuple(_art()["art"]["flat"])


@lru_cache(maxsize=4096)
def _sprite(name: str, style: str, side: int) -> np.ndarray:
    return _rasterise(_art()["art"][style][name], _art()["boxes"][style], side)


def _rasterise(body: str, box: int, size: int) -> np.ndarray:
    """SVG body with view box 0 0 box box -> (size, size, 4) float32 in [0, 1], alpha not premultiplied."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box} {box}" width="{box}" height="{box}">'
    png = resvg_py.svg_to_bytes(
        svg_string=f"{head}{body}</svg>", width=size, height=size, skip_system_fonts=True
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), dtype=np.float32) / 255


def _compose(canvas: np.ndarray, sprite: np.ndarray, left: int, top: int) -> None:
    """Draw `sprite` over `canvas` in place; a part beyond the canvas is cut off."""
    height, width = canvas.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + sprite.shape[1], width), min(top + sprite.shape[0], height)
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:]
    canvas[y0:y1, x0:x1] += alpha * (part[..., :3] - canvas[y0:y1, x0:x1])


STROKES = {
    "a": "0,6 2,0 4,6M1,4 3,4", "b": "0,0 0,6 3,6 4,4.5 3,3 0,3M0,0 3,0 3.6,1.5 3,3", "c": "4,0 1,0 0,2 0,4 1,6 4,6",
    "d": "0,0 0,6 2.5,6 4,4 4,2 2.5,0 0,0", "e": "4,0 0,0 0,6 4,6M0,3 3,3", "f": "4,0 0,0 0,6M0,3 3,3",
    "g": "4,0 1,0 0,2 0,4 1,6 4,6 4,3 2.5,3", "h": "0,0 0,6M4,0 4,6M0,3 4,3", "i": "2,0 2,6", "j": "4,0 4,5 3,6 1,6 0,5",
    "k": "0,0 0,6M4,0 0,3 4,6", "l": "0,0 0,6 4,6", "m": "0,6 0,0 2,3 4,0 4,6", "n": "0,6 0,0 4,6 4,0",
    "o": "1,0 3,0 4,2 4,4 3,6 1,6 0,4 0,2 1,0", "p": "0,6 0,0 3,0 4,1.5 3,3 0,3", "q": "1,0 3,0 4,2 4,4 3,6 1,6 0,4 0,2 1,0M2.5,4.5 4,6",
    "r": "0,6 0,0 3,0 4,1.5 3,3 0,3M2,3 4,6", "s": "4,0 1,0 0,1.5 1,3 3,3 4,4.5 3,6 0,6", "t": "0,0 4,0M2,0 2,6",
    "u": "0,0 0,5 1,6 3,6 4,5 4,0", "v": "0,0 2,6 4,0", "w": "0,0 1,6 2,3 3,6 4,0", "x": "0,0 4,6M4,0 0,6",
    "y": "0,0 2,3 4,0M2,3 2,6", "z": "0,0 4,0 0,6 4,6",
}  # fmt: skip
"""A stroke font on a 4 x 6 grid, ours: no font file, the same letters on every machine."""


@lru_cache(maxsize=512)
def _lettering(word: str, size: int) -> np.ndarray:
    """`word` in letters 5 units high on a pale tag at the lower right, as a sprite of the whole scene."""
    width = 4.6 * len(word) + 3
    letters = "".join(
        f'<path transform="translate({i * 4.6 + 2:.1f} 2) scale(0.8)" d="{"".join("M" + s for s in STROKES[c].split("M"))}"/>'
        for i, c in enumerate(word)
    )
    tag = f'<rect width="{width}" height="9" rx="1.5" fill="#fffdf2"/>'
    group = f'<g fill="none" stroke="#222" stroke-width="0.9" stroke-linecap="round">{letters}</g>'
    body = f'<g transform="translate({UNITS - width - 3} {UNITS - 12})">{tag}{group}</g>'
    return _rasterise(body, UNITS, size)
