"""Key layouts of LoRA files: diffusers, kohya / ComfyUI and BFL-original, read into factors and written from them.

The BFL names fuse projections that diffusers keeps apart: `qkv`, and `linear1` = q, k, v, mlp of the single blocks.
Fusing is exact: the factors of the parts become the blocks of one block-diagonal pair, of the sum of the ranks (or
of one rank, where the parts share their A). Splitting drops the columns that are zero in a part's rows, and so
undoes it. The module tables are those of the families; the diffusers layout works for any model.
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
from urae.families import FAMILIES, families, family_named
from urae.families.family import ModuleNames

__all__ = ["LAYOUTS", "Layout", "Parsed", "parse", "to_layout"]

Layout = Literal["diffusers", "kohya", "bfl"]

LAYOUTS: tuple[Layout, ...] = ("diffusers", "kohya", "bfl")

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


def to_layout(factors: Mapping[str, Pair], layout: str, *, model: str = "") -> dict[str, Tensor]:
    """The tensors of a file in the layout. kohya is what kohya's trainers write and ComfyUI reads; bfl are the
    names of the model's original repository with lora_A and lora_B, as in FLUX's control LoRAs. model: class of the
    transformer, where it is known; `ValueError` if it is not and modules of several families are called so."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown: valid layouts are {', '.join(LAYOUTS)}")
    if layout == "diffusers":
        return {f"transformer.{key}": tensor for key, tensor in _named(factors, "lora_A", "lora_B").items()}
    fused = _fuse_all(factors, _names_of(list(factors), model))
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
    if not key.startswith("lora_transformer_"):
        return key
    flat = key.removeprefix("lora_transformer_")
    for block, inner in _block_modules().items():
        if match := re.fullmatch(rf"{block}_(\d+)_(.+)", flat):
            return f"{block}.{match[1]}.{inner.get(match[2], match[2])}"
    return key


def _processor_key(key: str) -> tuple[str, str]:
    match = PROCESSOR.fullmatch(key)
    if match is None:
        raise BadFile(f"key {key!r} does not belong in a file of attention processors")
    projection = "to_out.0" if match[2] == "to_out" else match[2]
    return f"{match[1]}.{projection}", match[3].upper()


def _layout_of(pairs: Mapping[str, Pair]) -> Layout:
    if all(key.startswith("lora_unet_") for key in pairs):
        return "kohya"
    if all(_original_parts(key) for key in pairs):
        return "bfl"
    strange = [key for key in pairs if key.startswith("lora_") or _original_parts(key)]
    # A name may be one family's original name and another's in diffusers.
    if strange and not any(all(_original_name(key, names) for key in pairs) for names in _names()):
        other = next(key for key in pairs if key != strange[0])
        raise BadFile(f"the file mixes key layouts: {strange[0]!r} beside {other!r}")
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


# The families' names, both ways


def _names() -> list[ModuleNames]:
    """The original names of all families that have some; several families may share theirs."""
    found: list[ModuleNames] = []
    for family in families():
        if family.names and family.names not in found:
            found.append(family.names)
    return found


def _block_modules() -> dict[str, dict[str, str]]:
    """Of each diffusers list of blocks the modules in a block of any family, by their names with "_" for "."."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for block, modules in (listed for names in _names() for listed in names.blocks.values()):
        found[block] |= {part.replace(".", "_"): part for parts in modules.values() for part in parts}
    return found


def _original_parts(key: str) -> tuple[str, ...]:
    """diffusers modules behind an original module, dotted ("double_blocks.0.img_mod.lin") or as kohya writes it."""
    for names in _names():
        dotted = _dotted(key.removeprefix("lora_unet_"), names) if key.startswith("lora_unet_") else key
        if dotted in names.top:
            return (names.top[dotted],)
        listed, _, rest = dotted.partition(".")
        number, _, module = rest.partition(".")
        block, modules = names.blocks.get(listed, ("", {}))
        if number.isdigit() and module in modules:
            return tuple(f"{block}.{number}.{part}" for part in modules[module])
    return ()


def _dotted(key: str, names: ModuleNames) -> str:
    """kohya writes "_" for "."; the tables say which is which."""
    for name in names.top:
        if key == name.replace(".", "_"):
            return name
    for listed, (_, modules) in names.blocks.items():
        if match := re.fullmatch(rf"{listed}_(\d+)_(.+)", key):
            inner = next((name for name in modules if name.replace(".", "_") == match[2]), match[2])
            return f"{listed}.{match[1]}.{inner}"
    return key


def _names_of(modules: Sequence[str], model: str) -> ModuleNames:
    """The names of the family that these diffusers modules belong to; of any that fits where all agree."""
    known = [family_named(model).names] if model in FAMILIES else _names()
    listed = [names for names in known if names]
    fitting = [names for names in listed if all(_original_name(module, names) for module in modules)]
    if not fitting:
        strange = [one for one in modules if not any(_original_name(one, names) for names in listed)]
        raise ValueError(
            f"{(strange or modules)[0]!r} is no module of {_known(listed)}: its adapter can only be written in the "
            "layout diffusers"
        )
    if any(
        _original_name(one, names) != _original_name(one, fitting[0]) for names in fitting for one in modules
    ):
        raise ValueError(
            f"the adapter does not say its base, and {_known(fitting)} have modules of these names: it can only be "
            "written in the layout diffusers"
        )
    return fitting[0]


def _known(listed: Sequence[ModuleNames]) -> str:
    return ", ".join(family.name for family in families() if family.names in listed)


def _original_name(module: str, names: ModuleNames) -> tuple[str, tuple[str, ...]] | None:
    """Original module that holds a diffusers module, and all the diffusers modules it holds; None if there is none."""
    for name, top in names.top.items():
        if top == module:
            return name, (top,)
    for listed, (block, modules) in names.blocks.items():
        if match := re.fullmatch(rf"{block}\.(\d+)\.(.+)", module):
            prefix = module.removesuffix(match[2])
            for name, parts in modules.items():
                if match[2] in parts:
                    return f"{listed}.{match[1]}.{name}", tuple(f"{prefix}{part}" for part in parts)
    return None


# Fusing and splitting


def _fuse_all(factors: Mapping[str, Pair], names: ModuleNames) -> dict[str, Pair]:
    found = dict(filter(None, (_original_name(module, names) for module in factors)))
    return {name: _fuse(parts, factors, names) for name, parts in found.items()}


def _fuse(parts: Sequence[str], factors: Mapping[str, Pair], names: ModuleNames) -> Pair:
    if len(parts) == 1:
        A, B = factors[parts[0]]
        return A, _swap(B) if parts[0] == names.swapped else B
    present = [factors[part] for part in parts if part in factors]
    rows = [_rows(part, factors, present, names) for part in parts]
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


def _rows(part: str, factors: Mapping[str, Pair], present: Sequence[Pair], names: ModuleNames) -> int:
    """Output width of a part, also of one that the adapter leaves alone."""
    if part in factors:
        return factors[part][1].shape[0]
    hidden = present[0][0].shape[1]  # q, k, v and the single blocks' MLP all read the hidden state
    return names.mlp_ratio * hidden if part.endswith("proj_mlp") else hidden


def _split(key: str, fused: Pair) -> Iterator[tuple[str, Pair]]:
    parts = _original_parts(key)
    if not parts:
        raise BadFile(f"key {key!r} is no module of {_known(_names())}")
    A, B = fused
    if len(parts) == 1:
        yield parts[0], (A, _swap(B) if any(parts[0] == names.swapped for names in _names()) else B)
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
