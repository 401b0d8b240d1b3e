"""A metric's weights as the user has them: a safetensors file, or a folder with one and its configuration.

Numbers of a network that has never been trained mean nothing, so they are not printed. That is known from the file:
its metadata say `untrained`, or all its normalisation layers are still as they are made, scale 1 and shift 0. (The
published Inception has no scales, and shifts.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import urae.io as io

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LocalWeights"]

SUFFIXES = (".jinja", ".json", ".model", ".pt", ".pth", ".safetensors", ".txt")
"""What of a folder decides a result: weights, settings, vocabularies, and the words around a question. The pickles are
those of pyiqa, which reads them itself."""


@dataclass(frozen=True)
class LocalWeights:
    """A file or folder on this machine."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"there are no weights at {self.path}")

    @cached_property
    def sha256(self) -> str:
        """Of the file; of a folder, of its files' names and hashes."""
        if self.path.is_file():
            return io.file_hash(self.path)
        names = [
            f"{file.relative_to(self.path).as_posix()} {io.file_hash(file)}"
            for file in self._files(*SUFFIXES)
        ]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    @cached_property
    def untrained(self) -> bool:
        """Whether these are random: so marked, or with normalisation layers that no step has touched."""
        return any(_untrained(file) for file in self._files(".safetensors"))

    def tensors(self) -> dict[str, Tensor]:
        """Of a safetensors file, fp32. `ValueError` for another file, `BadFile` for a damaged one."""
        return {name: tensor.float() for name, tensor in io.read_weights(self.path).tensors.items()}

    def _files(self, *suffixes: str) -> Iterator[Path]:
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        return (file for file in files if file.suffix in suffixes)


def _untrained(path: Path) -> bool:
    header = io.read_header(path)
    if header.metadata.get("untrained") == "true":
        return True
    scales = [
        name for name, one in header.tensors.items() if name.endswith(".weight") and len(one.shape) == 1
    ]
    shifts = [name for scale in scales if (name := scale.removesuffix("weight") + "bias") in header.tensors]
    norms = io.read_weights(path, only=[*scales, *shifts]).tensors
    untouched = all((norms[name] == 1).all() for name in scales) and not any(norms[n].any() for n in shifts)
    return bool(scales) and untouched
