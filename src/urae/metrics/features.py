"""What was measured once is not measured again: values and features of single pictures, by hash.

A key is a hash of everything that the numbers depend on: the picture's bytes, the metric's variant and weights, the
prompt or the reference where it reads one, the source of the metrics themselves, and the versions of the packages that
compute for them, so that no change can go unseen. Each entry is a safetensors file of its own, written whole or not at
all, so that runs may be killed, repeated and run side by side.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from urae.errors import BadFile
from urae.metrics.metric import Metric, Reader
from urae.metrics.pictures import MeasuredPicture

__all__ = ["FeatureCache", "feature_key", "versions"]

PACKAGES = ("torch", "transformers", "numpy", "pillow")
ROOM = Path(__file__).parent
SOURCES = (
    *sorted((ROOM / "metrics").glob("*.py")),
    ROOM / "pictures.py",
    ROOM.parent / "mini" / "recogniser.py",
)
"""Modules that compute the numbers."""


def feature_key(metric: Metric, reader: Reader, sample: MeasuredPicture) -> str:
    """SHA-256 of what `reader` makes of `sample`; equal for metrics that share their features."""
    parts = {
        "source": _source(),
        "versions": versions(),
        "reader": reader.identity,
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
        if key not in self.held:
            self.held[key] = self._read(key)
        return self.held[key]

    def __contains__(self, key: str) -> bool:
        return key in self.held or (self.folder is not None and self._file(key).exists())

    def __setitem__(self, key: str, value: np.ndarray) -> None:
        self.held[key] = value
        if self.folder:
            self._write(self._file(key), value)

    def _file(self, key: str) -> Path:
        assert self.folder
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> np.ndarray:
        if self.folder is None:
            raise KeyError(key)
        path = self._file(key)
        try:
            return load_file(path)["value"]
        except SafetensorError as error:
            raise BadFile(f"{path} is damaged: delete it, and it is measured again") from error

    def _write(self, path: Path, value: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        # `ascontiguousarray` would make a row of a single value.
        save_file({"value": np.array(value, order="C")}, temporary)
        os.replace(temporary, path)
