"""A plan of given pictures, for what needs no model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

IDS = [f"p{i}" for i in range(6)]

GIVEN = """\
title: "Given: pictures from elsewhere"
size: 96
paper_columns: [Overall]
prompts: {{coco: {root}/prompts.jsonl}}
models: {{}}
folders: {{dark: {root}/dark, bright: {root}/bright}}
rows:
  - {{name: Dark, folder: dark, paper: [87.09]}}
  - {{name: Bright, folder: bright}}
columns:
{columns}
differs: ["Nothing is alike."]
miniature: {{}}
"""


def write_plan(root: Path, *columns: str) -> Path:
    """Two candidates of grey noise, the second brighter, and a YAML plan with these columns."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("bright", 180)):
        (root / name / "coco").mkdir(parents=True)
        for key in IDS:
            pixels = np.clip(rng.normal(level, 4, (96, 96, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / "coco" / f"{key}.png")
    (root / "prompts.jsonl").write_text(
        "".join(json.dumps({"id": key, "prompt": f"a wall, {key}"}) + "\n" for key in IDS)
    )
    plan = root / "given.yaml"
    plan.write_text(GIVEN.format(root=root, columns="\n".join(f"  - {{{column}}}" for column in columns)))
    return plan
