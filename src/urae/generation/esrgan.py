"""ESRGAN: the native picture through a super-resolution network, such as Real-ESRGAN; the paper's baseline.

Any weights file that the package `spandrel` recognises will do, whatever its architecture; it is read as safetensors
only. A network enlarges by its own factor, and the rest of the way is resampling, which `describe` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from urae.errors import BadFile, MissingExtra
from urae.generation.native import TwoPass
from urae.generation.request import Request
from urae.io import file_hash, read_header
from urae.resolution import ResolutionPolicy, Size

__all__ = ["Enlarger", "Esrgan", "enlarged", "open_enlarger"]

CONVERT = 'safetensors.torch.save_file(torch.load("a.pth", weights_only=True)["params_ema"], "a.safetensors") in Python'
"""How the published Real-ESRGAN files become what is read here."""


class Enlarger(Protocol):
    """A network that enlarges, as spandrel gives it."""

    scale: int
    """How many times larger a side becomes."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> (1, 3, scale H, scale W), on the same device."""

    def to(self, device: Any) -> Any:
        """The same on another device."""


@dataclass(frozen=True, kw_only=True)
class Esrgan(TwoPass):
    """Options of ESRGAN. Nothing is denoised at the target size: steps, guidance, policy and adapter are refused."""

    name: ClassVar[str] = "esrgan"
    steps: ClassVar[int] = 0
    guidance: ClassVar[float] = 0.0

    weights: str = ""
    """The .safetensors file of the network; there is none to fall back on."""

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """None: the transformer does not run at the target size."""
        return None

    def check(self, pipe: Any, size: Size) -> None:
        open_enlarger(self.weights)

    def describe(self, *, steps: int, shift: float) -> str:
        """How the size is reached."""
        scale = open_enlarger(self.weights).scale
        return f"{Path(self.weights).name} enlarges {scale} times, the rest of the way is Lanczos resampling"

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """`request.native`, enlarged."""
        assert request.native is not None
        network = open_enlarger(self.weights).to(pipe._execution_device)
        image = enlarged(request.native, network, size=request.size, device=pipe._execution_device)
        image.info["weights_hash"] = file_hash(self.weights)
        return image


def open_enlarger(path: str | Path) -> Enlarger:
    """The network of a weights file, on the CPU.

    Raises ValueError for a path that is no safetensors file, `BadFile` if spandrel knows no such network or it does not
    enlarge RGB pictures, `MissingExtra` without spandrel.
    """
    if not str(path):
        raise ValueError(
            "esrgan needs the weights of a network: set weights to a .safetensors file, such as Real-ESRGAN's"
        )
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path} is not read, as a pickle can run any code: convert it once by {CONVERT}")
    read_header(path)
    spandrel = _spandrel()
    try:
        network = spandrel.ModelLoader("cpu").load_from_file(path)
    except spandrel.UnsupportedModelError as error:
        raise BadFile(f"{path} holds no network that spandrel knows") from error
    if getattr(network, "purpose", "") != "SR" or network.input_channels != 3:
        raise BadFile(f"{path} holds a network for something else than enlarging RGB pictures")
    return network


@torch.no_grad()
def enlarged(picture: Image.Image, network: Enlarger, *, size: Size, device: Any = "cpu") -> Image.Image:
    """The picture enlarged by the network's factor, then by Lanczos resampling to exactly `size` (width, height)."""
    values = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)
    pixels = network(values.permute(2, 0, 1)[None].to(device))[0].clamp(0, 1)
    image = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _spandrel() -> Any:
    try:
        import spandrel
    except ImportError as error:
        # spandrel alone does not import: one of its architectures imports torchvision.
        raise MissingExtra(
            f"esrgan needs spandrel, which itself needs torchvision, and {error.name} is missing: "
            "pip install 'urae[esrgan]'"
        ) from error
    return spandrel
