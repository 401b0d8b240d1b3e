"""Key layouts of LoRA files: diffusers, kohya / ComfyUI and BFL-original, read into factors and written from them.

The BFL names fuse projections that diffusers keeps apart: `qkv`, and `linear1` = q, k, v, mlp of the single blocks.
Fusing is exact: the factors of the parts become the blocks of one block-diagonal pair, of the sum of the ranks (or
of one rank, where the parts share their A). Splitting drops the columns that are zero in a part's rows, and so
undoes it. The module tables are those of FLUX.1; the diffusers layout works for any model.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft.utils.other import get_pattern_key
from torch import Tensor

from urae.adapters.factors import Pair
from urae.errors import BadFile

__all__ = ["LAYOUTS", "Layout", "Parsed", "parse", "to_layout"]

Layout = Literal["diffusers", "kohya", "bfl"]

LAYOUTS: tuple[Layout, ...] = ("diffusers", "kohya", "bfl")

TOP_MODULES = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
"""BFL module -> diffusers module, outside the blocks."""

DOUBLE_MODULES = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}

SINGLE_MODULES = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}

MLP_RATIO = 4
"""Width of FLUX.1's MLP over its hidden size: rows of `linear1` that a file without `proj_mlp` leaves zero."""

SWAPPED = "norm_out.linear"
"""BFL stores this output as (shift, scale), diffusers as (scale, shift)."""

PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.")

ROLES = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_A.default.weight": "A",
    ".lora_B.default.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".alpha": "alpha",
}

PROCESSOR = re.compile(r"(?:transformer\.)?(.+\.attn)\.processor\.(to_q|to_k|to_v|to_out)_([ab])\.weight")


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a file's tensors say, all in fp32."""

    layout: str
    """diffusers, kohya, bfl, processor (trained minor factors, without their starting point) or full."""
    factors: dict[str, Pair]
    """diffusers module -> A (r, in), B (out, r), any alpha multiplied into B."""
    differences: dict[str, Tensor]
    """Parameter -> change, for the layout "full"."""


def parse(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Parsed:
    """Recognise the layout and read the factors. `BadFile` names the first key that does not fit.

    `metadata` are the file's own: diffusers keeps peft's alpha there.
    """
    if all(key.endswith(".diff") for key in tensors):
        changes = {
            key.removeprefix("transformer.").removesuffix(".diff"): tensors[key].float() for key in tensors
        }
        return Parsed(layout="full", factors={}, differences=changes)
    if any(PROCESSOR.fullmatch(key) for key in tensors):
        return Parsed(layout="processor", factors=_pairs(tensors, _processor_key), differences={})
    pairs = _pairs(tensors, _lora_key)
    layout = _layout_of(pairs)
    if layout != "diffusers":
        pairs = {name: pair for key, fused in pairs.items() for name, pair in _split(key, fused)}
    if not pairs:
        raise BadFile("the file's up matrices are all zero: it changes nothing")
    return Parsed(layout=layout, factors=_scaled_by_peft(pairs, metadata), differences={})


def to_layout(factors: Mapping[str, Pair], layout: str) -> dict[str, Tensor]:
    """The tensors of a file in the layout. kohya is what kohya's trainers write and ComfyUI reads; bfl are the
    names of the original FLUX repository with lora_A and lora_B, as in its control LoRAs."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown: valid layouts are {', '.join(LAYOUTS)}")
    if layout == "diffusers":
        return {f"transformer.{key}": tensor for key, tensor in _named(factors, "lora_A", "lora_B").items()}
    fused = _fuse_all(factors)
    if layout == "bfl":
        return _named(fused, "lora_A", "lora_B")
    kohya = {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in fused.items()}
    alphas = {f"{name}.alpha": torch.tensor(float(A.shape[0])) for name, (A, _) in kohya.items()}
    return _named(kohya, "lora_down", "lora_up") | alphas


# Reading: keys -> pairs


def _pairs(tensors: Mapping[str, Tensor], split_key: Any) -> dict[str, Pair]:
    """Module key -> (A, B alpha / r), checked for completeness and shape."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        module, role = split_key(key)
        found[module][role] = tensor.float()
    return {module: _pair(module, parts) for module, parts in found.items()}


def _pair(module: str, parts: Mapping[str, Tensor]) -> Pair:
    for role, other in (("A", "B"), ("B", "A")):
        if role not in parts:
            raise BadFile(f"{module!r} has a factor {other} but no {role}: the file is incomplete")
    A, B = parts["A"], parts["B"]
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise BadFile(
            f"{module!r} has factors A {tuple(A.shape)} and B {tuple(B.shape)}, which do not form a product B A"
        )
    return A, B * (float(parts["alpha"]) / A.shape[0]) if "alpha" in parts else B


def _lora_key(key: str) -> tuple[str, str]:
    if key.startswith(("lora_te", "text_encoder")):
        raise BadFile(
            f"the file also adapts a text encoder ({key!r}); urae reads adapters of the transformer only"
        )
    for suffix, role in ROLES.items():
        if key.endswith(suffix):
            return _module_name(key.removesuffix(suffix)), role
    raise BadFile(
        f"key {key!r} is no part of a LoRA that urae reads: expected lora_A/lora_B or lora_down/lora_up"
    )


def _module_name(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    match = re.fullmatch(r"lora_transformer_(single_)?transformer_blocks_(\d+)_(.+)", key)
    if match is None:
        return key
    modules = SINGLE_MODULES if match[1] else DOUBLE_MODULES
    inner = {part.replace(".", "_"): part for parts in modules.values() for part in parts}
    return f"{match[1] or ''}transformer_blocks.{match[2]}.{inner.get(match[3], match[3])}"


def _processor_key(key: str) -> tuple[str, str]:
    match = PROCESSOR.fullmatch(key)
    if match is None:
        raise BadFile(f"key {key!r} does not belong in a file of attention processors")
    projection = "to_out.0" if match[2] == "to_out" else match[2]
    return f"{match[1]}.{projection}", match[3].upper()


def _layout_of(pairs: Mapping[str, Pair]) -> Layout:
    if all(key.startswith("lora_unet_") for key in pairs):
        return "kohya"
    if all(_bfl_parts(key) for key in pairs):
        return "bfl"
    for key in pairs:
        if key.startswith("lora_") or _bfl_parts(key):
            raise BadFile(f"the file mixes key layouts: {key!r} beside {next(iter(pairs))!r}")
    return "diffusers"


def _scaled_by_peft(pairs: dict[str, Pair], metadata: Mapping[str, str]) -> dict[str, Pair]:
    """Apply the alpha that diffusers' own training scripts keep in the metadata."""
    if "lora_adapter_metadata" not in metadata:
        return pairs
    try:
        config = {
            key.removeprefix("transformer."): value
            for key, value in json.loads(metadata["lora_adapter_metadata"]).items()
        }
    except (json.JSONDecodeError, AttributeError) as error:
        raise BadFile("the file has damaged lora_adapter_metadata: fetch or save it again") from error
    if config.get("use_dora"):
        raise BadFile("the file is a DoRA, which is no low-rank update of the weights: urae does not read it")
    return {name: (A, B * _peft_scaling(name, A.shape[0], config)) for name, (A, B) in pairs.items()}


def _peft_scaling(name: str, rank: int, config: Mapping[str, Any]) -> float:
    pattern = config.get("alpha_pattern") or {}
    alpha = pattern.get(get_pattern_key(pattern.keys(), name), config.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


# The FLUX.1 tables, both ways


def _bfl_parts(key: str) -> tuple[str, ...]:
    """diffusers modules behind a BFL module, dotted ("double_blocks.0.img_mod.lin") or as kohya writes it."""
    if key.startswith("lora_unet_"):
        key = _dotted(key.removeprefix("lora_unet_"))
    if key in TOP_MODULES:
        return (TOP_MODULES[key],)
    match = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.+)", key)
    if match is None:
        return ()
    modules, block = (
        (DOUBLE_MODULES, "transformer_blocks")
        if match[1] == "double"
        else (SINGLE_MODULES, "single_transformer_blocks")
    )
    return tuple(f"{block}.{match[2]}.{part}" for part in modules.get(match[3], ()))


def _dotted(key: str) -> str:
    """kohya writes "_" for "."; the tables say which is which."""
    for name in TOP_MODULES:
        if key == name.replace(".", "_"):
            return name
    match = re.fullmatch(r"(double|single)_blocks_(\d+)_(.+)", key)
    if match is None:
        return key
    modules = DOUBLE_MODULES if match[1] == "double" else SINGLE_MODULES
    inner = next((name for name in modules if name.replace(".", "_") == match[3]), match[3])
    return f"{match[1]}_blocks.{match[2]}.{inner}"


def _bfl_name(module: str) -> tuple[str, tuple[str, ...]]:
    """BFL module that holds a diffusers module, and all the diffusers modules it holds."""
    for name, top in TOP_MODULES.items():
        if top == module:
            return name, (top,)
    match = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", module)
    if match is not None:
        modules, block = (SINGLE_MODULES, "single_blocks") if match[1] else (DOUBLE_MODULES, "double_blocks")
        for name, parts in modules.items():
            if match[3] in parts:
                prefix = module.removesuffix(match[3])
                return f"{block}.{match[2]}.{name}", tuple(f"{prefix}{part}" for part in parts)
    raise ValueError(
        f"{module!r} is no module of FLUX.1: its adapter can only be written in the layout diffusers"
    )


# Fusing and splitting


def _fuse_all(factors: Mapping[str, Pair]) -> dict[str, Pair]:
    groups: dict[str, tuple[str, ...]] = dict(_bfl_name(module) for module in factors)
    return {name: _fuse(parts, factors) for name, parts in groups.items()}


def _fuse(parts: Sequence[str], factors: Mapping[str, Pair]) -> Pair:
    if len(parts) == 1:
        A, B = factors[parts[0]]
        return A, _swap(B) if parts[0] == SWAPPED else B
    present = [factors[part] for part in parts if part in factors]
    rows = [_rows(part, factors, present) for part in parts]
    first = present[0][0]
    if all(A.shape == first.shape and torch.equal(A, first) for A, _ in present):
        blocks = [
            factors[part][1] if part in factors else first.new_zeros(row, first.shape[0])
            for part, row in zip(parts, rows, strict=True)
        ]
        return first, torch.cat(blocks)
    blocks = [
        factors[part][1] if part in factors else first.new_zeros(row, 0)
        for part, row in zip(parts, rows, strict=True)
    ]
    return torch.cat([A for A, _ in present]), torch.block_diag(*blocks)


def _rows(part: str, factors: Mapping[str, Pair], present: Sequence[Pair]) -> int:
    """Output width of a part, also of one that the adapter leaves alone."""
    if part in factors:
        return factors[part][1].shape[0]
    hidden = present[0][0].shape[1]  # q, k, v and the single blocks' MLP all read the hidden state
    return MLP_RATIO * hidden if part.endswith("proj_mlp") else hidden


def _split(key: str, fused: Pair) -> Iterator[tuple[str, Pair]]:
    parts = _bfl_parts(key)
    if not parts:
        raise BadFile(f"key {key!r} is no module of FLUX.1")
    A, B = fused
    if len(parts) == 1:
        yield parts[0], (A, _swap(B) if parts[0] == SWAPPED else B)
        return
    hidden = A.shape[1]
    widths = [hidden] * 3 + ([B.shape[0] - 3 * hidden] if len(parts) == 4 else [])
    if sum(widths) != B.shape[0] or min(widths) < 1:
        raise BadFile(
            f"{key!r} has {B.shape[0]} rows, which do not split into {len(parts)} parts of width {hidden}"
        )
    for part, rows in zip(parts, B.split(widths), strict=True):
        used = rows.any(dim=0)
        if used.any():
            yield part, (A[used].contiguous(), rows[:, used].contiguous())


def _swap(B: Tensor) -> Tensor:
    first, second = B.chunk(2)
    return torch.cat([second, first])


def _named(factors: Mapping[str, Pair], down: str, up: str) -> dict[str, Tensor]:
    named = {}
    for name, (A, B) in factors.items():
        named[f"{name}.{down}.weight"] = A
        named[f"{name}.{up}.weight"] = B
    return named
