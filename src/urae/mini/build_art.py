"""Collect the miniature's vector art from two open glyph sets into one small file.

Run once, by hand, when the list of objects changes; the result is committed:

    npm pack @iconify-json/fluent-emoji @iconify-json/noto      # unpack each archive into its own folder
    python -m urae.mini.build_art FLUENT/package NOTO/package

Style "glossy" is Microsoft's Fluent Emoji (MIT), style "flat" Google's Noto Emoji (Apache-2.0).
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

GLYPHS = {
    "airplane": "airplane", "anchor": "anchor", "apple": "red-apple", "avocado": "avocado",
    "balloon": "balloon", "banana": "banana", "basketball": "basketball", "bell": "bell",
    "bicycle": "bicycle", "bus": "bus", "butterfly": "butterfly",
    "camera": "camera", "car": "automobile", "carrot": "carrot",
    "castle": "castle", "cat": "cat-face", "cherries": "cherries",
    "clock": "alarm-clock", "coffee": "hot-beverage", "crab": "crab",
    "crown": "crown", "dog": "dog-face", "doughnut": "doughnut", "drum": "drum",
    "eggplant": "eggplant", "elephant": "elephant", "fish": "tropical-fish", "frog": "frog",
    "ghost": "ghost", "grapes": "grapes", "guitar": "guitar", "hamburger": "hamburger",
    "helicopter": "helicopter", "house": "house", "key": "key",
    "leaf": "maple-leaf", "lemon": "lemon", "lollipop": "lollipop",
    "magnet": "magnet", "mushroom": "mushroom", "octopus": "octopus", "owl": "owl",
    "pear": "pear", "penguin": "penguin", "pineapple": "pineapple",
    "pizza": "pizza", "robot": "robot", "rocket": "rocket", "rose": "rose",
    "sailboat": "sailboat", "snowman": "snowman",
    "star": "star", "strawberry": "strawberry", "sunflower": "sunflower", "teapot": "teapot",
    "tiger": "tiger", "tomato": "tomato", 
    "tulip": "tulip", "umbrella": "umbrella", "watermelon": "watermelon",
}  # fmt: skip
"""Our word for an object -> the glyph's name, the same in both sets."""

BOXES = {"glossy": 32, "flat": 128}
"""Side of the view box of each set."""


def build(fluent: Path, noto: Path, out: Path) -> None:
    """Write `out` (gzipped JSON: style -> object -> SVG body) from the two unpacked icon packages."""
    sets = {"glossy": fluent, "flat": noto}
    art = {}
    for style, folder in sets.items():
        icons = json.loads((folder / "icons.json").read_text())["icons"]
        art[style] = {word: icons[glyph]["body"] for word, glyph in sorted(GLYPHS.items())}
    payload = json.dumps({"boxes": BOXES, "art": art}, separators=(",", ":")).encode()
    out.write_bytes(gzip.compress(payload, 9, mtime=0))


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), Path(__file__).parent / "art" / "glyphs.json.gz")
