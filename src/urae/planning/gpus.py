"""GPUs as a plan sees them: how much memory, how many operations a second, how far from the host.

Memory is what the driver reports, in GiB; the rate is the vendor's for dense bf16 matrix products with fp32
sums, which no program reaches (`urae.planning.efficiency`). The connection is that of the vendor's data sheet, as
fast as its specification (PCI-SIG: 16 lanes of 16 GT/s in PCIe 4, 32 in PCIe 5, 128 bits of 130).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["GIB", "GPUS", "Gpu", "gpu_here", "gpu_named"]

GIB = 2**30
"""Bytes of what drivers and shops count a GPU's memory in."""
PCIE4, PCIE5 = (16 * rate * 128 / 130 / 8 for rate in (16, 32))
"""10^9 bytes a second, each way, of 16 lanes."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU."""

    name: str
    memory: float
    """GiB."""
    tflops: float
    """10^12 dense bf16 operations a second, at most."""
    link: float = PCIE4
    """10^9 bytes a second between its memory and the host's, each way, at most."""

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in (self.memory, self.tflops, self.link)):
            raise ValueError(
                f"a GPU of {self.memory} GiB, {self.tflops} TFLOP/s and {self.link} GB/s: expected all finite and "
                "above 0, such as 24, 165 and 31.5"
            )

    @property
    def num_bytes(self) -> int:
        return int(self.memory * GIB)


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="B200", memory=179.1, tflops=2250, link=PCIE5),
        Gpu(name="H200", memory=140.4, tflops=989, link=PCIE5),
        Gpu(name="H100", memory=79.6, tflops=989, link=PCIE5),
        Gpu(name="H100 PCIe", memory=79.6, tflops=756, link=PCIE5),
        Gpu(name="A100 80GB", memory=80.0, tflops=312),
        Gpu(name="A100 40GB", memory=40.0, tflops=312),
        Gpu(name="L40S", memory=45.0, tflops=362),
        Gpu(name="RTX 6000 Ada", memory=48.0, tflops=364),
        Gpu(name="RTX A6000", memory=48.0, tflops=155),
        Gpu(name="RTX 5090", memory=31.8, tflops=210, link=PCIE5),
        Gpu(name="RTX 4090", memory=24.0, tflops=165),
        Gpu(name="RTX 4080", memory=16.0, tflops=97.5),
        Gpu(name="RTX 3090", memory=24.0, tflops=71),
        Gpu(name="A10G", memory=22.5, tflops=70),
        Gpu(name="L4", memory=22.5, tflops=121),
    )
}
"""The vendor's numbers, by name."""
ADDED = re.compile(r"nvidia|geforce|tesla|rtx|gpu|generation|sxm\d?|hbm\d\w?|\d+gb")
"""Words that a name may have or lack. What slows a card down, such as "laptop", is none of them."""


def gpu_named(name: str) -> Gpu:
    """The GPU of this name, as people or drivers write it: "H200", "h100-pcie", "4090", "NVIDIA A100-SXM4-80GB"."""
    fitting = _fitting(name)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f"GPU {name!r} is {' or '.join(gpu.name for gpu in fitting)}: say which")
    raise ValueError(
        f"GPU {name!r} is unknown: expected one of {', '.join(GPUS)}, or its memory and rate, "
        "such as --memory 24 --tflops 165"
    )


def gpu_here(device: torch.device) -> Gpu:
    """The CUDA device of this machine, with the memory it reports; the rate of one that `GPUS` lacks is
    measured."""
    import torch  # here, since the table of GPUs needs nothing of it

    properties = torch.cuda.get_device_properties(device)
    memory, known = properties.total_memory / GIB, _fitting(properties.name)
    if len(known) == 1:
        return replace(known[0], memory=memory)
    return Gpu(name=properties.name, memory=memory, tflops=measured_rate(device))


def measured_rate(device: torch.device, *, size: int = 8192, repeats: int = 10) -> float:
    """10^12 operations a second in bf16 products of square matrices on a CUDA device."""
    import torch

    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    matrix @ matrix  # the first call chooses a kernel
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        matrix @ matrix
    end.record()
    end.synchronize()
    return 2 * size**3 * repeats / (start.elapsed_time(end) * 1e-3) / 1e12


def _fitting(name: str) -> list[Gpu]:
    """The known GPUs that a name may mean. "PCIe" tells two models of the H100 apart, and of an A100 nothing."""
    if exact := [gpu for known, gpu in GPUS.items() if _plain(known) == _plain(name)]:
        return exact
    for said in (name, re.sub("(?i)pcie", " ", name)):
        model, memory = _model(said)
        found = [gpu for known, gpu in GPUS.items() if _model(known)[0] == model and _has(gpu, memory)]
        if found:
            return found
    return []


def _has(gpu: Gpu, memory: int) -> bool:
    """Whether it is sold with so many GB; 0 is any number."""
    return not memory or abs(gpu.memory - memory) <= 0.05 * memory


def _model(name: str) -> tuple[str, int]:
    """What tells a GPU from others without the words that vendors add, and its GB where the name has them, else 0."""
    words = re.findall("[a-z0-9]+", re.sub(r"(?<=\d) ?gi?b\b", "gb", name.lower()))
    sizes = [int(word.removesuffix("gb")) for word in words if re.fullmatch(r"\d+gb", word)]
    model = "".join(word for word in words if not ADDED.fullmatch(word)).removeprefix("rtx")
    return model, max(sizes, default=0)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum()).removesuffix("gb")
