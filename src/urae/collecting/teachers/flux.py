"""The FLUX models behind Black Forest Labs' API: 1.1 [pro] Ultra, the teacher of the paper's 2K data (Sec. 3.1), FLUX.2
and FLUX 3 Image, which gives 4K.

Prices are the provider's, in USD, with the day on which they were read. FLUX.2's are by the megapixel: a flat one for
the first, less for each further one that is begun.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from urae.collecting.teachers.bfl import BlackForestLabs
from urae.collecting.teachers.teacher import ImageOrder, mix_of, parse_size, pixel_sizes
from urae.resolution import Size

__all__ = ["Flux2Teacher", "Flux3Image", "FluxProUltra"]

ULTRA_SIZES: Mapping[str, Size] = {
    "1:1": (2048, 2048),
    "4:3": (2368, 1792),
    "3:4": (1792, 2368),
    "3:2": (2496, 1664),
    "2:3": (1664, 2496),
    "16:9": (2752, 1536),
    "9:16": (1536, 2752),
    "21:9": (3136, 1344),
    "9:21": (1344, 3136),
}
ULTRA_MIX = mix_of("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16")
"""The paper says "various aspect ratios"; a fifth to a quarter of them square, the others in pairs."""
WIDEST = 21 / 9

MEGAPIXEL = 1024**2
MOST_PIXELS = 4 * MEGAPIXEL
"""The API reduces larger images without a word (help.bfl.ai, April 2026)."""
FLUX_2_SIZES = pixel_sizes(
    *("2048x2048", "2304x1792", "2496x1664", "2688x1536"),
    *("1024x1024", "1152x896", "1280x832", "1344x768"),
)
Flux2Model = Literal["max", "pro", "flex", "klein-9b", "klein-4b"]
FLUX_2_PRICES: Mapping[str, tuple[float, float]] = {
    "max": (0.07, 0.03),
    "pro": (0.03, 0.015),
    "flex": (0.05, 0.05),
    "klein-9b": (0.015, 0.002),
    "klein-4b": (0.014, 0.001),
}
"""Of the first megapixel and of each further one (github.com/black-forest-labs/skills, bfl-api; 1 December 2026)."""

FLUX_3_RATIOS = (
    *("1:1", "5:4", "4:5", "4:3", "3:4", "7:5", "5:7", "3:2", "2:3"),
    *("16:9", "9:16", "2:1", "1:2", "21:9", "9:21"),
)
Flux3Resolution = Literal["768sq", "1k", "1.5k", "2k", "4k"]
FLUX_3_PRICES: Mapping[str, float] = {"768sq": 0.041, "1k": 0.048, "2k": 0.10, "4k": 0.607}
"""By resolution (docs.bfl.ai, release notes of 1 October 2026); 1.5k is listed without a price."""


@dataclass(frozen=True, kw_only=True)
class FluxProUltra(BlackForestLabs):
    """FLUX1.1 [pro] Ultra: images of about four megapixels."""

    raw: bool = False
    """Less processed, more natural pictures."""
    output_format: str = "png"
    """png, which is lossless, or jpeg, a fifth of its bytes."""
    shapes: Mapping[str, float] = field(default_factory=lambda: dict(ULTRA_MIX))
    """Aspect ratios between 21:9 and 9:21, with weights."""
    price: float = 0.06
    """USD an image, where the answer to an order does not say (docs.bfl.ai, "Pricing", November 2026)."""

    name: ClassVar[str] = "flux-pro-1.1-ultra"
    most_tolerant: ClassVar[int] = 6
    sizes: ClassVar[Mapping[str, Size]] = ULTRA_SIZES

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_format(self.output_format)
        for shape in self.shapes:
            _check_ratio(shape)

    def settings(self) -> dict[str, Any]:
        return {
            "raw": self.raw,
            "safety_tolerance": self.safety_tolerance,
            "output_format": self.output_format,
            "prompt_upsampling": False,
        }

    def body(self, wanted: ImageOrder) -> dict[str, Any]:
        return {"seed": wanted.seed, "aspect_ratio": wanted.shape}

    def price_of(self, shape: str) -> float:
        return self.price


@dataclass(frozen=True, kw_only=True)
class Flux2Teacher(BlackForestLabs):
    """FLUX.2: any size of multiples of 16 px, up to 4 megapixels."""

    model: Flux2Model = "max"
    """max, pro, flex, klein-9b or klein-4b."""
    output_format: str = "png"
    """png, which is lossless, or jpeg."""
    shapes: Mapping[str, float] = field(
        default_factory=lambda: mix_of(*(shape for shape in FLUX_2_SIZES if max(FLUX_2_SIZES[shape]) >= 2048))
    )
    """Sizes such as "2048x2048", with weights."""
    price: float = math.nan
    """USD an image of any size; left out, the provider's for each size."""

    most_tolerant: ClassVar[int] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_format(self.output_format)
        if self.model not in FLUX_2_PRICES:
            raise ValueError(f"model is {self.model!r}: expected one of {', '.join(FLUX_2_PRICES)}")
        for shape in self.shapes:
            _check_pixels(shape)

    @property
    def name(self) -> str:
        return f"flux-2-{self.model}"

    @property
    def sizes(self) -> Mapping[str, Size]:
        return {**FLUX_2_SIZES, **{shape: parse_size(shape) for shape in self.shapes}}

    def settings(self) -> dict[str, Any]:
        # klein reads prompts as they are, and knows no such setting.
        asked = {} if self.model.startswith("klein") else {"prompt_upsampling": False}
        return {"safety_tolerance": self.safety_tolerance, "output_format": self.output_format, **asked}

    def body(self, wanted: ImageOrder) -> dict[str, Any]:
        width, height = parse_size(wanted.shape)
        return {"seed": wanted.seed, "width": width, "height": height}

    def price_of(self, shape: str) -> float:
        first, further = FLUX_2_PRICES[self.model]
        begun = math.ceil(math.prod(parse_size(shape)) / MEGAPIXEL)
        return first + (begun - 1) * further if math.isnan(self.price) else self.price


@dataclass(frozen=True, kw_only=True)
class Flux3Image(BlackForestLabs):
    """FLUX 3 Image, up to 4K. It takes no seed, expands short prompts by itself, and its pixel sizes are not published:
    they are known from the first image of a shape."""

    resolution: Flux3Resolution = "2k"
    """768sq, 1k, 1.5k, 2k or 4k."""
    shapes: Mapping[str, float] = field(default_factory=lambda: dict(ULTRA_MIX))
    """Aspect ratios, with weights."""
    price: float = math.nan
    """USD an image; left out, the provider's for the resolution."""

    name: ClassVar[str] = "flux-3-image"
    most_tolerant: ClassVar[int] = 4
    sizes: ClassVar[Mapping[str, Size]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution not in get_args(Flux3Resolution):
            raise ValueError(
                f"resolution is {self.resolution!r}: expected one of {', '.join(get_args(Flux3Resolution))}"
            )
        if unknown := [shape for shape in self.shapes if shape not in FLUX_3_RATIOS]:
            raise ValueError(f"shape is {unknown[0]!r}: expected one of {', '.join(FLUX_3_RATIOS)}")

    def settings(self) -> dict[str, Any]:
        # Unknown fields are refused, a seed among them; grounding would look the prompt up in the web.
        return {
            "resolution": self.resolution,
            "grounding": False,
            "safety_tolerance": self.safety_tolerance,
        }

    def body(self, wanted: ImageOrder) -> dict[str, Any]:
        return {"aspect_ratio": wanted.shape}

    def price_of(self, shape: str) -> float:
        return FLUX_3_PRICES.get(self.resolution, math.nan) if math.isnan(self.price) else self.price


def _check_format(name: str) -> None:
    if name not in ("png", "jpeg"):
        raise ValueError(f"output_format is {name!r}: expected png or jpeg")


def _check_ratio(shape: str) -> None:
    sides = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", shape)
    if sides is None or not 1 / WIDEST <= int(sides[1]) / int(sides[2]) <= WIDEST:
        raise ValueError(f"shape is {shape!r}: expected an aspect ratio between 21:9 and 9:21, such as 16:9")


def _check_pixels(shape: str) -> None:
    width, height = parse_size(shape)
    if width % 16 or height % 16 or width * height > MOST_PIXELS:
        raise ValueError(
            f"shape is {shape}: expected multiples of 16 px and at most 4 megapixels ({MOST_PIXELS:,} pixels), "
            "which the API would reduce"
        )
