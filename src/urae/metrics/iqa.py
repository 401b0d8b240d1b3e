"""MANIQA and QualiCLIP through pyiqa, which the user installs: its licence allows no commercial use.

The weights' folder is what torch calls a hub folder: pyiqa keeps its files in its subfolder `pyiqa`, downloads what is
not there, and reads them in its own way, which includes pickles. So put only files there that you trust.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from urae.errors import MissingExtra
from urae.metrics.clip import channels
from urae.metrics.metric import Options
from urae.metrics.pictures import MeasuredPicture
from urae.metrics.weights import LocalWeights

__all__ = ["IqaReader", "open_iqa"]


@dataclass(frozen=True, kw_only=True)
class IqaReader:
    """A metric of pyiqa on the picture at its native size."""

    name: str
    weights: LocalWeights
    device: str

    @property
    def identity(self) -> str:
        return f"pyiqa {_version()} {self.name} {self.weights.sha256}"

    @cached_property
    def metric(self) -> Any:
        # pyiqa decides where its files are when it is imported, once for all.
        if "pyiqa" in sys.modules and Path(torch.hub.get_dir()) != self.weights.path:
            raise ValueError(
                f"{self.name} has its weights in {self.weights.path}, and pyiqa already reads {torch.hub.get_dir()}: "
                "give one folder for all of its metrics"
            )
        torch.hub.set_dir(str(self.weights.path))
        return importlib.import_module("pyiqa").create_metric(self.name, device=self.device)

    def read(self, samples: Sequence[MeasuredPicture]) -> list[np.ndarray]:
        with torch.inference_mode():
            pixels = (channels(sample.image)[None] / 255 for sample in samples)  # in [0, 1]
            return [np.array(float(self.metric(one.to(self.device)))) for one in pixels]


def open_iqa(weights: LocalWeights, options: Options, *, name: str) -> IqaReader:
    """The metric of this name; `MissingExtra` without pyiqa."""
    _version()
    return IqaReader(name=name, weights=weights, device=options.device)


def _version() -> str:
    try:
        return importlib.metadata.version("pyiqa")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(
            "MANIQA and QualiCLIP need pyiqa, whose licence allows no commercial use, and torchvision: "
            "pip install 'urae[iqa]'"
        ) from error
