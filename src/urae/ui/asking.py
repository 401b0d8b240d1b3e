"""What a page asks for, as the requests that `urae generate` makes: both draw the same pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from urae.adapters import AdapterFile, file_named
from urae.generation.asking import DrawingRequest, ModelRequest

__all__ = ["SHAPES", "fitted", "model_of", "presets", "request_of"]

SHAPES = {"square": (1, 1), "3:2": (3, 2), "2:3": (2, 3), "16:9": (16, 9), "9:16": (9, 16)}
"""Shapes that are offered, width to height."""


def presets(native: int, multiple: int) -> dict[str, dict[str, str]]:
    """Sizes that are offered: times the native side -> shape -> WIDTHxHEIGHT, for a model of this native side whose
    tokens have sides of `multiple` pixels."""
    return {
        f"{times}x": {
            shape: "{}x{}".format(*fitted(ratio, native * times, multiple)) for shape, ratio in SHAPES.items()
        }
        for times in (1, 2, 4)
    }


def fitted(ratio: tuple[float, float], side: int, multiple: int) -> tuple[int, int]:
    """(width, height) of this ratio and about side x side pixels, multiples of `multiple`."""
    width, height = ratio
    scale = side / math.sqrt(width * height)
    return tuple(max(1, round(part * scale / multiple)) * multiple for part in (width, height))  # type: ignore[return-value]


def request_of(asked: Mapping[str, str], native: Path | None) -> DrawingRequest:
    """The request of a form's texts; what is empty is left to its default. `native` is the picture to start from.
    ValueError for what `urae generate` would refuse without a model."""
    prompt = asked.get("prompt", "").strip()
    if not prompt:
        raise ValueError("prompt is empty: say what to draw")
    given: dict[str, Any] = {} if native is None else {"native": native}
    for name, kind in (("steps", int), ("guidance", float)):
        if text := asked.get(name, "").strip():
            given[name] = _number(name, text, kind)
    for name in ("negative", "method", "policy"):
        if (text := asked.get(name, "").strip()) not in ("", "auto"):
            given[name] = text
    return DrawingRequest(prompt=prompt, size=asked.get("size", ""), seed=asked.get("seeds", "0"), **given)


def model_of(asked: Mapping[str, str], model: ModelRequest) -> ModelRequest:
    """The page's model with the adapters that a form names, a line each as FILE or FILE:STRENGTH; ValueError for a file
    that is not there."""
    lines = [line.strip() for line in asked.get("adapters", "").splitlines() if line.strip()]
    for file in (AdapterFile.of(line) for line in lines):
        if not file_named(file.path).is_file():
            raise ValueError(
                f"adapter is {str(file.path)!r}, which is not a file: give the path of an adapter"
            )
    return replace(model, adapter=tuple(Path(line) for line in lines)) if lines else model


def _number(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}: expected a number, or nothing") from error
