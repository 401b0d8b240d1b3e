"""What an image was made from, in its PNG: enough to make the same image again.

Each entry is a PNG text chunk of its own, so that any viewer shows it. Images carry the same entries in
`image.info` before they are saved.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urae.errors import BadFile
from urae.io import parse_json_object, picture_texts, write_png
from urae.resolution import ResolutionPolicy, Size

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Provenance", "claimed_provenance", "read_png_metadata", "save_png", "versions"]

KEYS = ("prompt", "seed", "size", "steps", "guidance", "method", "policy")
"""The text chunks that every image of ours has; `negative`, `options`, `native`, `adapter_hash`, `adapter_file`,
`weights_hash` (of a network that enlarged it), `model`, `dtype`, `base_weights` (where they were rounded), `memory`,
`speed`, `kernels` (how it was computed, where that was chosen) and `versions` may be there too."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that decides an image's pixels, by name."""

    prompt: str
    seed: int
    size: Size
    """(width, height) in pixels."""
    steps: int
    guidance: float | None
    """None for a model that takes no guidance scale."""
    method: str
    options: Mapping[str, Any]
    """The method's own settings by name, JSON types; empty for a method without options."""
    native: str
    """SHA-256 of the native picture's size and pixels; empty for a method without one."""
    policy: ResolutionPolicy | None
    """None for stock behaviour."""
    adapter_hash: str
    """Empty without an adapter."""
    adapter_file: str
    """The file's name; empty if the adapter never was in a file."""
    model: str
    memory: str
    """The memory plan in words: tiles change pixels where they meet."""
    versions: Mapping[str, str]
    base_weights: str = "as_loaded"
    """How the transformer's matrices were held: "fp8", "int8", "nf4", or as they were loaded."""
    speed: str = "exact"
    """What was left out, as `generate` takes it; without an entry nothing was."""
    negative: str = ""
    """Negative prompt; empty for none."""
    dtype: str = ""
    """What the transformer computed in, such as "bfloat16"; empty in older files."""

    def to_info(self) -> dict[str, str]:
        """As texts for `image.info` and PNG chunks; what is empty is left out."""
        width, height = self.size
        texts = {
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": str(self.seed),
            "size": f"{width}x{height}",
            "steps": str(self.steps),
            "guidance": "none" if self.guidance is None else str(self.guidance),
            "method": self.method,
            "options": json.dumps(dict(self.options)) if self.options else "",
            "native": self.native,
            "policy": self.policy.to_json() if self.policy else "none",
            "adapter_hash": self.adapter_hash,
            "adapter_file": self.adapter_file,
            "model": self.model,
            "dtype": self.dtype,
            "base_weights": self.base_weights if self.base_weights != "as_loaded" else "",
            "memory": self.memory,
            "speed": self.speed,
            "versions": json.dumps(dict(self.versions)),
        }
        return {key: text for key, text in texts.items() if text or key in KEYS}

    @classmethod
    def from_info(cls, info: Mapping[str, str]) -> Provenance:
        """The inverse of `to_info`; other entries are ignored. KeyError if one of `KEYS` is missing, ValueError or
        `BadFile` for one that `to_info` does not write."""
        width, height = info["size"].split("x")
        return cls(
            prompt=info["prompt"],
            negative=info.get("negative", ""),
            seed=int(info["seed"]),
            size=(int(width), int(height)),
            steps=int(info["steps"]),
            guidance=None if info["guidance"] == "none" else float(info["guidance"]),
            method=info["method"],
            options=parse_json_object(info.get("options", "{}"), name="options"),
            native=info.get("native", ""),
            policy=None if info["policy"] == "none" else ResolutionPolicy.from_json(info["policy"]),
            adapter_hash=info.get("adapter_hash", ""),
            adapter_file=info.get("adapter_file", ""),
            model=info.get("model", ""),
            base_weights=info.get("base_weights", "as_loaded"),
            memory=info.get("memory", ""),
            speed=info.get("speed", "exact"),
            versions=parse_json_object(info.get("versions", "{}"), name="versions"),
            dtype=info.get("dtype", ""),
        )


def save_png(image: Image.Image, path: str | Path) -> Path:
    """Write `image` with the texts of `image.info` as PNG text chunks; the file is whole or not there."""
    # Pillow keeps other things there too, such as an ICC profile in bytes.
    texts = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
    return write_png(image, path, texts=texts)


def read_png_metadata(path: str | Path) -> Provenance:
    """What `save_png` wrote about an image that `generate` made. Raises `BadFile` if the file tells no such thing."""
    texts = picture_texts(path)
    try:
        return Provenance.from_info(texts)
    except KeyError as error:
        raise BadFile(f"{path} is no PNG image that urae has made: it holds no {error.args[0]!r}") from error
    except (ValueError, BadFile) as error:
        raise BadFile(f"{path} is no PNG image that urae has made: {error}") from error


def claimed_provenance(path: str | Path) -> Provenance | None:
    """What the beginning of an image file says about it, its pixels unread; None for a file that is not ours."""
    try:
        return read_png_metadata(path)
    except BadFile:
        return None


def versions() -> dict[str, str]:
    """Versions of the packages that decide the pixels."""
    return {name: importlib.metadata.version(name) for name in ("urae", "diffusers", "torch")}
