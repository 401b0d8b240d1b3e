"""What every part of the benchmark of the miniature is given, and what it gives back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from aims import Aim
from pictures import Row, fingerprint

from urae import mini
from urae.adapters import Adapter
from urae.mini.recogniser import WEIGHTS as RECOGNISER
from urae.mini.recogniser import Recogniser


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The shipped miniature, and how much to measure on it."""

    pipe: Any
    judge: Recogniser
    scenes: int
    """Held-out scenes where nothing is drawn; 0 for each part's own number."""
    prompts: int
    """Prompts where pictures are drawn; 0 for each part's own number."""
    steps: int
    """Denoising steps a picture."""
    compile: Literal[True, "auto"]
    """Whether what draws is compiled, as `urae.generate` takes it."""
    sizes: Sequence[int]
    """Sides above the native one, px."""
    adapters: Mapping[int, Adapter]
    """By size."""
    checkpoints: Path
    """The folder of `python -m urae.mini.train`, for the teacher of the distillation."""
    cache: Path
    images: Path

    @cached_property
    def weights(self) -> str:
        """A hash of all shipped weights."""
        digest = hashlib.sha256()
        for file in [*sorted(mini.WEIGHTS.rglob("*.safetensors")), RECOGNISER]:
            digest.update(file.read_bytes())
        return digest.hexdigest()[:12]

    def identity(self, *known: Any) -> str:
        """Of a row that is measured without drawing."""
        return fingerprint(torch.__version__, self.weights, *known)

    @property
    def drawn_by(self) -> list[str]:
        """How pictures are computed, where it is not in fp32 and eagerly: their numbers depend on it."""
        dtype = self.pipe.transformer.dtype
        return [str(dtype)] * (dtype != torch.float32) + ["compiled"] * (self.compile is True)

    def folder(self, part: str) -> Path:
        return self.cache / f"miniature-{part}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part has found."""

    aims: Sequence[Aim]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    """Title -> rows: a `way`, and an estimate for each column."""
    differences: Mapping[str, Mapping[str, Row]]
    """Title -> rows of `pictures.differences`."""
