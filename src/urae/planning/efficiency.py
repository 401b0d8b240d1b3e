"""Which share of a GPU's peak rate a run reaches: measured where benchmarks/gpu.py has run, else assumed.

Both are of FLUX.1-dev, whose share stands for other models' too. The assumption is a published number: the reference
draws a 4096 px image in 28 steps in about five minutes on an H100 (its README), which is 37% of 989 TFLOP/s. Smaller
images have more small operations for each large one, compiled blocks fewer; both are what the benchmark is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urae.io import read_json_object
from urae.planning.gpus import Gpu

__all__ = ["ASSUMED", "MEASURED", "Efficiency", "efficiency_of"]

ASSUMED = 0.37
"""Share of the peak rate."""

MEASURED = Path(__file__).parents[3] / "benchmarks" / "results" / "gpu.json"
"""Where benchmarks/gpu.py writes; beside the package in a checkout."""


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """A share of the peak rate, and where it is from."""

    share: float
    source: str


def efficiency_of(gpu: Gpu, size: int, *, measured: Path = MEASURED) -> Efficiency:
    """Of a training step at this size (px): that measured on a GPU of this name at the nearest size, or the
    assumption."""
    result = read_json_object(measured) if measured.is_file() else {}
    rows = [row for row in result.get("rows", []) if _is_ours(row)]
    if result.get("gpu") != gpu.name or not rows:
        return Efficiency(share=ASSUMED, source="assumed, from FLUX.1-dev's five minutes for a 4096 px image")
    nearest = min(rows, key=lambda row: abs(row["size"] - size))
    source = f"measured with FLUX.1-dev at {nearest['size']} px on {result['date'][:10]}"
    return Efficiency(share=nearest["efficiency"], source=source)


def _is_ours(row: dict[str, Any]) -> bool:
    # A step that did not fit has no efficiency.
    return row["what"] == "train step" and row["way"] == "urae" and "efficiency" in row
