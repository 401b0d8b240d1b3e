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

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from urae.errors import BadFile

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
            return _hash(self.path)
        names = [f"{file.relative_to(self.path).as_posix()} {_hash(file)}" for file in self._files(*SUFFIXES)]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    @cached_property
    def untrained(self) -> bool:
        """Whether these are random: so marked, or with normalisation layers that no step has touched."""
        return any(_untrained(file) for file in self._files(".safetensors"))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Of a safetensors file, fp32. `BadFile` for anything else."""
        if self.path.suffix != ".safetensors":
            raise BadFile(
                f"{self.path} is no safetensors file, and nothing else is read as weights; the guide to evaluation "
                "says how to convert one"
            )
        try:
            return {name: tensor.float() for name, tensor in load_file(self.path).items()}
        except SafetensorError as error:
            raise BadFile(f"{self.path} cannot be read as safetensors: {error}") from error

    def _files(self, *suffixes: str) -> Iterator[Path]:
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        return (file for file in files if file.suffix in suffixes)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _untrained(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("untrained") == "true":
                return True
            scales = [name for name in file.keys() if name.endswith(".weight")]  # noqa: SIM118
            norms = [name for name in scales if len(file.get_slice(name).get_shape()) == 1]
            return bool(norms) and all(_untouched(file, name) for name in norms)
    except SafetensorError as error:
        raise BadFile(f"{path} cannot be read as safetensors: {error}") from error


def _untouched(file: safe_open, scale: str) -> bool:
    shift = scale.removesuffix("weight") + "bias"
    moved = shift in file.keys() and bool(file.get_tensor(shift).any())  # noqa: SIM118
    return not moved and bool((file.get_tensor(scale) == 1).all())
