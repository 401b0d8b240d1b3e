"""Opening a model by name: the miniature, a local folder, a single file, or a repository of the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors import SafetensorError, safe_open

from urae import mini
from urae.errors import BadFile

__all__ = ["DTYPES", "check_safetensors", "model_name", "open_pipeline"]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""Number formats by name; "auto" stands for float32 for the miniature and on a machine without CUDA, else
bfloat16."""


def open_pipeline(name: str | Path, *, base: str | Path = "", dtype: str = "auto") -> FluxPipeline:
    """A stock FluxPipeline on the CPU.

    `name` is "mini", a folder in the diffusers layout, a .safetensors file of a transformer (diffusers or
    original layout), or a hub id such as "black-forest-labs/FLUX.1-dev". A single file holds a transformer
    alone: `base`, a folder or hub id, gives its configuration and all other parts.

    Raises ValueError if nothing is found under the name, `BadFile` for a folder or file that cannot be read.
    """
    if _is_single_file(name):
        return _from_single_file(Path(name), base, _dtype(name, dtype))
    if base:
        raise ValueError(
            f"base {str(base)!r} has no effect on {str(name)!r}: only a .safetensors file needs one"
        )
    if name == "mini":
        return mini.pipeline(_dtype(name, dtype))
    return _from_layout(str(name), _dtype(name, dtype))


def model_name(pipe: Any) -> str:
    """What the pipeline was opened as; of a local folder the last part of its path."""
    origin = str(pipe.name_or_path or type(pipe).__name__)
    if origin == str(mini.WEIGHTS):
        return "mini"
    return Path(origin).name if Path(origin).exists() else origin


def _is_single_file(name: str | Path) -> bool:
    if Path(name).suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise ValueError(f"{name} is a pickle, which can run any code: convert it to .safetensors")
    return Path(name).suffix == ".safetensors"


def _dtype(name: str | Path, dtype: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if name != "mini" and torch.cuda.is_available() else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: expected one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _from_layout(name: str, dtype: torch.dtype, **parts: Any) -> FluxPipeline:
    if Path(name).is_dir():
        if not (Path(name) / "model_index.json").is_file():
            raise BadFile(
                f"{name} has no model_index.json: expected a pipeline's folder in the diffusers layout"
            )
    elif not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(
            f"there is no model {name!r}: expected mini, a folder in the diffusers layout, a .safetensors file, "
            "or a hub id such as black-forest-labs/FLUX.1-dev"
        )
    try:
        return FluxPipeline.from_pretrained(name, torch_dtype=dtype, use_safetensors=True, **parts)
    except OSError as error:
        raise ValueError(
            f"there is no model {name!r}, neither a folder here nor on the hub: {error}"
        ) from error


def _from_single_file(path: Path, base: str | Path, dtype: torch.dtype) -> FluxPipeline:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not base:
        raise ValueError(
            f"{path} holds a transformer alone: name the model that it was made from, a folder or a hub id, as base"
        )
    check_safetensors(path)
    # Checked and read first: the transformer's configuration comes from there.
    pipe = _from_layout(str(base), dtype, transformer=None)
    transformer = FluxTransformer2DModel.from_single_file(
        str(path), config=str(base), subfolder="transformer", torch_dtype=dtype
    )
    pipe.register_modules(transformer=transformer)
    pipe.register_to_config(_name_or_path=str(path))
    return pipe


def check_safetensors(path: str | Path) -> None:
    """Raise `BadFile` for a file that is no whole safetensors file."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise BadFile(f"{path} is no whole safetensors file ({error}): download or copy it again") from error
