"""A transformer from one safetensors file: under diffusers' names or the original ones, by itself or as a part of a
checkpoint, and with the weights in fp8, scaled or not.

Every tensor of the file is accounted for and every one of the model is filled, or nothing is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from urae.errors import BadFile
from urae.families.family import Family
from urae.families.naming import Naming
from urae.io import read_header, read_weights

__all__ = ["check_whole", "fill", "keys_of", "parts_of"]

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
"""Of a transformer's tensors, in a checkpoint that holds other parts too, and in a file of its own."""
SCALES = ("scale_weight", "weight_scale")
"""What ComfyUI calls the factor that an fp8 weight is multiplied by, in older files and in newer ones."""
UNUSED = re.compile(r"scaled_fp8|.*\.(scale_input|input_scale|comfy_quant)")
"""How to compute in fp8, which is not done here."""
ADAPTER = re.compile(r"lora_|lycoris_|.*(\.lora_|\.lora\.|\.lokr_|\.hada_|\.diff(_b)?$|\.processor\.)")


def fill(transformer: Any, path: Path, family: Family, dtype: torch.dtype) -> None:
    """Give a transformer on the meta device its weights, in `dtype`. `BadFile` where the file is not of this model."""
    expected = {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
    stored = keys_of(path)
    tensors = _dequantised(path, read_weights(path, only=stored).tensors, stored, dtype)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for part, value in parts_of(path, name, tensor, expected, family):
            if part in found:
                raise BadFile(f"{path} holds {part!r} in two spellings: it should hold one of them")
            found[part] = value
    check_whole(path, found, expected, family)
    kept = getattr(transformer, "_keep_in_fp32_modules", None) or () if dtype == torch.float16 else ()
    transformer.load_state_dict(
        {
            name: tensor.to(torch.float32 if set(kept) & set(name.split(".")) else dtype)
            for name, tensor in found.items()
        },
        assign=True,
    )


def keys_of(path: Path) -> dict[str, str]:
    """Keys of the transformer's tensors -> their names without a prefix."""
    header = read_header(path)
    prefix = next(one for one in PREFIXES if any(key.startswith(one) for key in header.tensors) or not one)
    stored = {key: key.removeprefix(prefix) for key in header.tensors if key.startswith(prefix)}
    for name in stored.values():
        if ADAPTER.match(name):
            raise BadFile(
                f"{path} is an adapter, as {name!r} shows: give a model here, and it as the adapter"
            )
    return {key: name for key, name in stored.items() if not UNUSED.fullmatch(name)}


def _dequantised(
    path: Path, tensors: Mapping[str, Tensor], stored: Mapping[str, str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The tensors by name, each fp8 weight multiplied by its scale in fp32 and rounded to `dtype`."""
    found = {stored[key]: tensor for key, tensor in tensors.items()}
    for name in [one for one in found if one.rpartition(".")[2] in SCALES]:
        scale, weight = found.pop(name), f"{name.rpartition('.')[0]}.weight"
        if weight not in found or not found[weight].is_floating_point() or found[weight].ndim != 2:
            raise BadFile(f"{path} has the scale {name!r}, but no weight in fp8 that it belongs to")
        rows = found[weight].shape[0]
        if scale.numel() not in (1, rows) or not scale.float().isfinite().all():
            raise BadFile(
                f"{path} has the scale {name!r} of {scale.numel()} numbers: expected one, or {rows}, all finite"
            )
        found[weight] = (found[weight].float() * scale.float().reshape(-1, 1)).to(dtype)
    return found


def parts_of(
    path: Path, name: str, tensor: Tensor, expected: Mapping[str, tuple[int, ...]], family: Family
) -> Iterator[tuple[str, Tensor]]:
    """The parameters of diffusers in a tensor of the file."""
    if not tensor.is_floating_point() or tensor.ndim == 0:
        raise BadFile(
            f"{path} holds {name!r} as {tensor.dtype} of shape {tuple(tensor.shape)}: of quantised models only "
            "those in fp8 are read"
        )
    if name in expected or family.names is None:
        yield name, tensor
        return
    parts = Naming(names=family.names, original=True).parameters(name)
    if not parts or any(part not in expected for part in parts):
        yield name, tensor
    elif len(parts) == 1:
        swapped = parts[0].rpartition(".")[0] == family.names.swapped
        yield parts[0], torch.cat(tensor.chunk(2)[::-1]) if swapped else tensor
    else:
        widths = [expected[part][0] for part in parts]
        if sum(widths) != tensor.shape[0]:
            raise BadFile(
                f"{path} holds {name!r} of shape {tuple(tensor.shape)}: the base has {sum(widths)} rows"
            )
        yield from zip(parts, tensor.split(widths), strict=True)


def check_whole(
    path: Path, found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], family: Family
) -> None:
    """`BadFile` where a file lacks parameters of the model, or has others."""
    remedy = "expected a transformer of the base's kind, whole, under diffusers' names or the original ones"
    if strange := [name for name in found if name not in expected]:
        raise BadFile(
            f"{path} holds {len(strange)} tensors that are not of the base's {family.name} transformer, such as "
            f"{strange[0]!r}: {remedy}"
        )
    if lacking := [name for name in expected if name not in found]:
        raise BadFile(
            f"{path} lacks {len(lacking)} of the {len(expected)} tensors of the base's {family.name} transformer, such "
            f"as {lacking[0]!r}: {remedy}"
        )
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise BadFile(
                f"{path} holds {name!r} of shape {tuple(found[name].shape)}, where the base's has {shape}: {remedy}"
            )
