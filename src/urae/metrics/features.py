"""What was measured once is not measured again: values and features of single pictures, by hash.

A key is a hash of everything that the numbers depend on: the picture's bytes, the metric's variant and weights, the
prompt or the reference where it reads one, the source of the metrics themselves, and the versions of the packages that
compute for them, so that no change can go unseen. Each entry is a safetensors file of its own, written whole or not at
all, so that runs may be killed, repeated and run side by side. It holds its own hash: a value that the disk has changed
is measured again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path

import numpy as np

import urae.io as io
from urae.errors import BadFile
from urae.metrics.metric import Metric, Reader
from urae.metrics.pictures import MeasuredPicture

__all__ = ["FeatureCache", "feature_key", "versions"]

PACKAGES = ("torch", "transformers", "numpy", "pillow")
ROOM = Path(__file__).parent
SOURCES = (
    *sorted(ROOM.glob("*.py")),
    ROOM.parent / "io" / "pictures.py",
    ROOM.parent / "mini" / "recogniser.py",
)
"""Modules that compute the numbers."""


def feature_key(metric: Metric, reader: Reader, sample: MeasuredPicture) -> str:
    """SHA-256 of what `reader` makes of `sample`; equal for metrics that share their features."""
    parts = {
        "source": _source(),
        "versions": versions(),
        "reader": reader.identity,
        # A GPU computes in TF32 what the CPU does in fp32.
        "device": reader.device,
        "picture": sample.picture.digest,
        "prompt": sample.prompt if metric.needs == "prompt" else "",
        "partner": sample.partner.digest if sample.partner else "",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """Of the packages that compute."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def _source() -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in SOURCES)).hexdigest()


class FeatureCache:
    """Arrays by key, in memory and, where a folder is given, on the disk."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder else None
        self.held: dict[str, np.ndarray] = {}

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self:
            raise KeyError(key)
        return self.held[key]

    def __contains__(self, key: str) -> bool:
        if key not in self.held and (kept := self._kept(key)) is not None:
            self.held[key] = kept
        return key in self.held

    def __setitem__(self, key: str, value: np.ndarray) -> None:
        self.held[key] = value
        if self.folder:
            import torch  # here, since it takes seconds and a plan needs none of it

            # `ascontiguousarray` would make a row of a single value.
            whole = np.array(value, order="C")
            io.write_weights(self._file(key), {"value": torch.from_numpy(whole)}, {"sha256": _digest(whole)})

    def _file(self, key: str) -> Path:
        assert self.folder
        return self.folder / key[:2] / f"{key}.safetensors"

    def _kept(self, key: str) -> np.ndarray | None:
        """None where nothing is kept, or not what was written."""
        if self.folder is None or not self._file(key).exists():
            return None
        try:
            stored = io.read_weights(self._file(key))
        except BadFile:
            return None
        value = stored.tensors["value"].numpy() if "value" in stored.tensors else np.empty(0)
        return value if stored.metadata.get("sha256") == _digest(value) else None


def _digest(value: np.ndarray) -> str:
    return hashlib.sha256(f"{value.dtype} {value.shape} ".encode() + value.tobytes()).hexdigest()
