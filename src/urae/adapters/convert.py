"""Key layouts of adapter files: diffusers, kohya and ComfyUI, read into factors and differences and written from them.

The original names fuse projections that diffusers keeps apart: `qkv`, and `linear1` = q, k, v, mlp of the single
blocks. Fusing is exact: the factors of the parts become the blocks of one block-diagonal pair, of the sum of the ranks
(or of one rank, where the parts share their A). Splitting drops the columns that are zero in a part's rows, and so
undoes it. The names are those of the families.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from urae.adapters.factors import Pair
from urae.adapters.scaling import Scaling
from urae.adapters.targets import matches
from urae.errors import BadFile
from urae.families import FAMILIES, family_named
from urae.families.family import ModuleNames
from urae.families.naming import Naming, known_families, original_of, tables
from urae.io import check_finite

__all__ = ["LAYOUTS", "Layout", "Parsed", "lost_by_stock", "parse", "to_layout"]

Layout = Literal["diffusers", "kohya", "comfy"]

LAYOUTS: tuple[Layout, ...] = ("diffusers", "kohya", "comfy")

Role = Literal["A", "B", "alpha", "weight", "bias"]
"""What a tensor is to its module: a factor, its scale, or the change of a parameter."""

ROLES: dict[str, Role] = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_A.default.weight": "A",
    ".lora_B.default.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".alpha": "alpha",
    ".diff": "weight",
    ".diff_b": "bias",
}

SCALE = ".scale"
"""What the original repository calls the weight of a norm, and ComfyUI did."""

OTHERS = {
    r"\.lokr_": "a LoKr",
    r"\.hada_": "a LoHa",
    r"\.b?oft_": "an OFT",
    r"\.dora_scale|\.lora_magnitude_vector": "a DoRA",
    r"\.lora_mid": "a LoRA of convolutions",
    r"\.on_input": "an IA3",
    r"\.[ab][12]\.weight": "a GLoRA",
    r"\.lora_[AB]\.bias|\.(set|reshape)_weight": "a control LoRA",
}
"""Marks of adapters that are not read, and what they are."""
ADAPTED = re.compile(r"lora|vera_|\.(alpha|diff|diff_b)$")
"""What some key of an adapter's has, and none of a model's."""
EXPECTED = "expected lora_A and lora_B, lora_down and lora_up, or full differences (.diff, .diff_b)"

DOTTED = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.")
FLAT = ("lora_unet_", "lora_transformer_", "lycoris_")
"""What tools put before a module's name; after the second kind it is written with "_" for "."."""
OF_ORIGINALS = ("model.diffusion_model.", "diffusion_model.", *FLAT)
"""Those that stand before the original repository's names as a rule."""
TEXT = re.compile(r"lora_te|text_encoder|te\d?[._]|clip_|t5|conditioner\.|cond_stage")
U_NET = re.compile(r"unet\.|lora_unet_((down|up|mid|input|output|middle)_block)|lora_prior_unet_")

PROCESSOR = re.compile(r"(?:transformer\.)?(.+\.attn)\.processor\.(to_q|to_k|to_v|to_out)_([ab])\.weight")


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a file's tensors say, all in fp32."""

    layout: str
    """diffusers, kohya, comfy, bfl (the original names without a prefix) or processor (trained minor factors, without
    their starting point)."""
    factors: dict[str, Pair]
    """diffusers module -> A (r, in), B (out, r), any alpha multiplied into B."""
    differences: dict[str, Tensor]
    """diffusers parameter -> its change."""


def parse(tensors: Mapping[str, Tensor], scaling: Scaling | None = None) -> Parsed:
    """Recognise the layout and read the tensors. `BadFile` names the first key that does not fit.

    `scaling` is peft's, for modules without an alpha of their own.
    """
    if any(PROCESSOR.fullmatch(key) for key in tensors):
        modules = _by_module({key: _processor_role(key) for key in tensors}, tensors)
        return Parsed(layout="processor", factors=_pairs(modules, None), differences={})
    modules = _by_module({key: _role(key, tensors) for key in tensors}, tensors)
    naming = _naming(
        list(modules), {module: shape for module, parts in modules.items() if (shape := _shape(parts))}
    )
    factors = _split_all(_pairs(modules, scaling), naming)
    differences = _differences(modules, naming)
    if not factors and not differences:
        raise BadFile("the file's up matrices are all zero: it changes nothing")
    for side in (0, 1):
        check_finite(
            {name: pair[side] for name, pair in factors.items()}, name="the file, its alphas applied,"
        )
    check_finite(differences, name="the file, read as fp32,")
    return Parsed(layout=_layout(next(iter(modules)), naming), factors=factors, differences=differences)


def to_layout(
    factors: Mapping[str, Pair],
    layout: str,
    *,
    differences: Mapping[str, Tensor] | None = None,
    model: str = "",
) -> dict[str, Tensor]:
    """The tensors of a file in the layout: diffusers' own, kohya's, which holds no differences, or ComfyUI's, the names
    of the model's original repository after "diffusion_model.". model: class of the transformer, where it is known;
    `ValueError` if it is not and modules of several families are called so."""
    changes = differences or {}
    if layout not in LAYOUTS:
        unread = ", and no tool reads the bare names of the original: use comfy" if layout == "bfl" else ""
        raise ValueError(f"layout {layout!r} is unknown: valid layouts are {', '.join(LAYOUTS)}{unread}")
    if layout == "diffusers":
        prefixed = {f"transformer.{name}": pair for name, pair in factors.items()}
        diffs = {f"transformer.{name}.diff": tensor for name, tensor in changes.items()}
        return diffs | _named(prefixed, "lora_A", "lora_B")
    if layout == "kohya" and changes:
        raise ValueError(
            "a full adapter has no low-rank form, so it cannot be written in the layout 'kohya': use comfy"
        )
    names = _names_of([*factors, *changes], model)
    fused = _fuse_all(factors, names)
    if layout == "comfy":
        prefixed = {f"diffusion_model.{name}": pair for name, pair in fused.items()}
        return _named(prefixed, "lora_A", "lora_B") | _comfy_differences(changes, names)
    kohya = {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in fused.items()}
    alphas = {f"{name}.alpha": torch.tensor(float(A.shape[0])) for name, (A, _) in kohya.items()}
    return _named(kohya, "lora_down", "lora_up") | alphas


def lost_by_stock(factors: Mapping[str, Pair], layout: str, *, model: str = "") -> list[str]:
    """The modules that diffusers' own loader leaves out, without a word, of a file in the layout."""
    if layout == "diffusers" or not factors:
        return []
    lost = _names_of(list(factors), model).lost_by_stock.get(layout, ("*",))
    return [name for name in factors if any(matches(name, pattern) for pattern in lost)]


# --- reading: keys -> modules ------------------------------------------------------------------------------------


def _by_module(
    roles: Mapping[str, tuple[str, Role]], tensors: Mapping[str, Tensor]
) -> dict[str, dict[Role, Tensor]]:
    """Module, as the file calls it -> its tensors, in fp32."""
    found: dict[str, dict[Role, Tensor]] = defaultdict(dict)
    for key, (module, role) in roles.items():
        if role in found[module]:
            twice = " and ".join(repr(other) for other in roles if roles[other] == (module, role))
            raise BadFile(f"the file holds one tensor in two spellings, {twice}: it should hold one of them")
        kind, shape = tensors[key].dtype, tuple(tensors[key].shape)
        fits = kind.is_floating_point or (role == "alpha" and kind in (torch.int64, torch.int32))
        if not fits or not tensors[key].numel():
            raise BadFile(f"{key!r} has shape {shape} and the type {kind}: expected floating point numbers")
        found[module][role] = tensors[key].float()
    return dict(found)


def _role(key: str, tensors: Mapping[str, Tensor]) -> tuple[str, Role]:
    if TEXT.match(key):
        raise BadFile(
            f"the file also adapts a text encoder ({key!r}); urae reads adapters of the transformer only"
        )
    if U_NET.match(key):
        raise BadFile(
            f"the file adapts a U-Net ({key!r}): expected a transformer of {known_families(tables())}"
        )
    for suffix, role in ROLES.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix), role
    for mark, what in OTHERS.items():
        if re.search(mark, key):
            raise BadFile(f"the file is {what} ({key!r}), which urae does not read: {EXPECTED}")
    if not any(map(ADAPTED.search, tensors)):
        raise BadFile(f"the file holds a model's weights ({key!r}), not an adapter: give it as the base")
    raise BadFile(f"key {key!r} is not part of a LoRA that urae reads: {EXPECTED}")


def _processor_role(key: str) -> tuple[str, Role]:
    match = PROCESSOR.fullmatch(key)
    if match is None:
        raise BadFile(f"key {key!r} does not belong in a file of attention processors")
    projection = "to_out.0" if match[2] == "to_out" else match[2]
    return f"{match[1]}.{projection}", "A" if match[3] == "a" else "B"


# --- reading: names ----------------------------------------------------------------------------------------------


def _plain(module: str) -> str:
    """A module's name without what tools put before it."""
    for prefix in DOTTED:
        module = module.removeprefix(prefix)
    return next((module.removeprefix(prefix) for prefix in FLAT if module.startswith(prefix)), module)


def _shape(parts: Mapping[Role, Tensor]) -> tuple[int, int] | None:
    """(rows, columns) of the matrix that a module's tensors change."""
    if "A" in parts and "B" in parts and parts["A"].ndim == parts["B"].ndim == 2:
        return parts["B"].shape[0], parts["A"].shape[1]
    if "weight" in parts and parts["weight"].ndim == 2:
        return parts["weight"].shape[0], parts["weight"].shape[1]
    return None


def _naming(modules: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> Naming:
    """The names that all the modules have, of which only one kind may be in a file. Where families share names, the
    `shapes` of the modules tell them apart."""
    # One family's name may be another's original one, and most files of original names have a prefix that says so.
    styles = (True, False) if any(module.startswith(OF_ORIGINALS) for module in modules) else (False, True)
    namings = [Naming(names=names, original=style) for style in styles for names in tables()]
    named = [naming for naming in namings if all(_targets(module, naming) for module in modules)]
    if named:
        fitting = (one for one in named if all(one.fits(_plain(m), shape) for m, shape in shapes.items()))
        return next(fitting, named[0])
    for module in modules:
        if not any(_targets(module, naming) for naming in namings):
            raise BadFile(
                f"{module!r} is not a module of {known_families(tables())}: expected diffusers' names or those of the "
                f"original repository, after nothing or {', '.join((*DOTTED, *FLAT))}"
            )
    first = next(naming for naming in namings if _targets(modules[0], naming))
    other = next(module for module in modules if not _targets(module, first))
    raise BadFile(f"the file mixes key layouts: {modules[0]!r} beside {other!r}")


def _targets(module: str, naming: Naming) -> tuple[str, ...]:
    """What a module of the file is in diffusers, or a parameter, where the file names one."""
    name = _plain(module)
    parameters = naming.parameters(name) or naming.parameters(f"{name}{SCALE}")
    return naming.modules(name) or parameters or ((name,) if naming.has_root(name) else ())


def _layout(module: str, naming: Naming) -> str:
    if not naming.original:
        return "diffusers"
    if module.startswith("lora_unet_"):
        return "kohya"
    return "comfy" if "diffusion_model." in module else "bfl"


# --- reading: tensors --------------------------------------------------------------------------------------------


def _pairs(modules: Mapping[str, Mapping[Role, Tensor]], scaling: Scaling | None) -> dict[str, Pair]:
    """Module -> (A, B alpha / r), checked for completeness and shape."""
    return {
        module: _pair(module, parts, scaling)
        for module, parts in modules.items()
        if not parts.keys() <= {"weight", "bias"}
    }


def _pair(module: str, parts: Mapping[Role, Tensor], scaling: Scaling | None) -> Pair:
    if "A" not in parts or "B" not in parts:
        found, lacking = ("A", "B") if "A" in parts else ("B", "A") if "B" in parts else ("alpha", "A")
        raise BadFile(f"{module!r} has a factor {found} but no {lacking}: the file is incomplete")
    A, B = parts["A"], parts["B"]
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise BadFile(
            f"{module!r} has factors A {tuple(A.shape)} and B {tuple(B.shape)}, which do not form a product B A"
        )
    if "alpha" in parts:
        if parts["alpha"].numel() != 1:
            raise BadFile(f"{module!r} has an alpha of {parts['alpha'].numel()} numbers: expected one")
        return A, B * (float(parts["alpha"]) / A.shape[0])
    return A, B * scaling(_plain(module), A.shape[0]) if scaling else B


def _split_all(pairs: Mapping[str, Pair], naming: Naming) -> dict[str, Pair]:
    split: dict[str, Pair] = {}
    for module, pair in pairs.items():
        parts = _targets(module, naming)
        if parts[0].endswith((".weight", ".bias")):
            raise BadFile(f"{module!r} is a parameter, not a module, and has no factors")
        for name, part in _split(module, parts, pair, naming):
            _add(split, name, part, module)
    return split


def _differences(modules: Mapping[str, Mapping[Role, Tensor]], naming: Naming) -> dict[str, Tensor]:
    changes: dict[str, Tensor] = {}
    for module, parts in modules.items():
        if _is_second_spelling(module, parts, modules):
            continue
        for role in ("weight", "bias"):
            if role in parts:
                for name, change in _split_change(module, role, parts[role], naming):
                    _add(changes, name, change, module)
    return changes


def _split_change(module: str, role: str, change: Tensor, naming: Naming) -> Iterator[tuple[str, Tensor]]:
    """The changes of diffusers parameters in that of a parameter, or of a module's weight or bias."""
    if change.ndim == 0:
        raise BadFile(f"{module!r} has a change that is a single number: expected one of a parameter's shape")
    name = _plain(module)
    of_norm = naming.parameters(name) or naming.parameters(f"{name}{SCALE}")
    named = of_norm if role == "weight" else ()
    parts = named or naming.parameters(f"{name}.{role}") or (name if role == "weight" else f"{name}.{role}",)
    if len(parts) == 1:
        swapped = naming.original and parts[0].rpartition(".")[0] == naming.names.swapped
        yield parts[0], _swap(change) if swapped else change
        return
    ratio = naming.names.mlp_ratio if len(parts) == 4 else 0
    widths = _widths(module, change.shape[0], change.shape[0] // (3 + ratio), len(parts))
    for part, rows in zip(parts, change.split(widths), strict=True):
        if rows.any():
            yield part, rows.contiguous()


def _is_second_spelling(
    module: str, parts: Mapping[Role, Tensor], modules: Mapping[str, Mapping[Role, Tensor]]
) -> bool:
    """Whether a norm is there for old and for new versions of ComfyUI, with the same change."""
    first = modules.get(f"{module}{SCALE}", {}).get("weight")
    return first is not None and "weight" in parts and torch.equal(first, parts["weight"])


def _add(found: dict, name: str, value: object, module: str) -> None:
    if name in found:
        raise BadFile(f"the file holds {name!r} in two spellings, one of them {module!r}: it should hold one")
    found[name] = value


def _split(key: str, parts: Sequence[str], fused: Pair, naming: Naming) -> Iterator[tuple[str, Pair]]:
    A, B = fused
    if len(parts) == 1:
        swapped = naming.original and parts[0] == naming.names.swapped
        yield parts[0], (A, _swap(B) if swapped else B)
        return
    for part, rows in zip(parts, B.split(_widths(key, B.shape[0], A.shape[1], len(parts))), strict=True):
        used = rows.any(dim=0)
        if used.any():
            yield part, (A[used].contiguous(), rows[:, used].contiguous())


def _widths(key: str, rows: int, hidden: int, num_parts: int) -> list[int]:
    """Of q, k, v and, if there are four parts, the MLP."""
    widths = [hidden] * 3 + ([rows - 3 * hidden] if num_parts == 4 else [])
    if sum(widths) != rows or min(widths) < 1:
        raise BadFile(
            f"{_plain(key)!r} has {rows} rows, which do not split into {num_parts} parts of width {hidden}"
        )
    return widths


def _swap(rows: Tensor) -> Tensor:
    if rows.shape[0] % 2:
        raise BadFile(
            f"the last modulation has {rows.shape[0]} rows: expected an even number, of scale and shift"
        )
    return torch.cat(rows.chunk(2)[::-1])


# --- writing -----------------------------------------------------------------------------------------------------


def _names_of(modules: Sequence[str], model: str) -> ModuleNames:
    """The names of the family that these diffusers modules belong to; of any that fits where all agree."""
    known = [family_named(model).names] if model in FAMILIES else tables()
    listed = [names for names in known if names]
    fitting = [names for names in listed if all(original_of(module, names) for module in modules)]
    if not fitting:
        strange = [one for one in modules if not any(original_of(one, names) for names in listed)]
        raise ValueError(
            f"{(strange or modules)[0]!r} is not a module of {known_families(listed)}: its adapter can only be "
            "written in the layout diffusers"
        )
    if any(original_of(one, names) != original_of(one, fitting[0]) for names in fitting for one in modules):
        raise ValueError(
            f"the adapter does not say its base, and {known_families(fitting)} have modules of these names: it can "
            "only be written in the layout diffusers"
        )
    return fitting[0]


def _originals(modules: Iterable[str], names: ModuleNames) -> dict[str, tuple[str, ...]]:
    return dict(filter(None, (original_of(module, names) for module in modules)))


def _fuse_all(factors: Mapping[str, Pair], names: ModuleNames) -> dict[str, Pair]:
    return {name: _fuse(parts, factors, names) for name, parts in _originals(factors, names).items()}


def _fuse(parts: Sequence[str], factors: Mapping[str, Pair], names: ModuleNames) -> Pair:
    if len(parts) == 1:
        A, B = factors[parts[0]]
        return A, _swap(B) if parts[0] == names.swapped else B
    downs = [factors[part][0] for part in parts if part in factors]
    ups = {part: factors[part][1] for part in parts if part in factors}
    hidden = downs[0].shape[1]  # q, k, v and the single blocks' MLP all read the hidden state
    if any(A.shape[1] != hidden for A in downs):
        raise BadFile(f"{', '.join(ups)} have inputs of different widths, but are one layer in this layout")
    if all(A.shape == downs[0].shape and torch.equal(A, downs[0]) for A in downs):
        return downs[0], torch.cat(_blocks(parts, ups, hidden, names))
    empty = _blocks(parts, {part: up[:, :0] for part, up in ups.items()}, hidden, names)
    blocks = [ups.get(part, zeros) for part, zeros in zip(parts, empty, strict=True)]
    return torch.cat(downs), torch.block_diag(*blocks)


def _comfy_differences(changes: Mapping[str, Tensor], names: ModuleNames) -> dict[str, Tensor]:
    """ComfyUI calls the changes of a module's weight and bias `.diff` and `.diff_b`, that of another parameter by its
    own name."""
    found = {}
    for name, parts in _originals(changes, names).items():
        module, _, attribute = name.rpartition(".")
        named = {"weight": f"{module}.diff", "bias": f"{module}.diff_b"}.get(attribute, f"{name}.diff")
        found[f"diffusion_model.{named}"] = change = _fused_change(parts, changes, names)
        if name.endswith(SCALE):  # which is a weight in newer versions, and neither knows the other's name
            found[f"diffusion_model.{module}.diff"] = change.clone()
    return found


def _fused_change(parts: Sequence[str], changes: Mapping[str, Tensor], names: ModuleNames) -> Tensor:
    if len(parts) == 1:
        swapped = parts[0].rpartition(".")[0] == names.swapped
        return _swap(changes[parts[0]]) if swapped else changes[parts[0]]
    present = {part: changes[part] for part in parts if part in changes}
    one, rows = next(iter(present.items()))
    return torch.cat(_blocks(parts, present, rows.shape[0] // _ratio(one, names), names))


def _blocks(
    parts: Sequence[str], present: Mapping[str, Tensor], hidden: int, names: ModuleNames
) -> list[Tensor]:
    """The rows of fused parts; zeros for those that the adapter leaves alone."""
    inner = next(iter(present.values())).shape[1:]
    shapes = {part: (_ratio(part, names) * hidden, *inner) for part in parts}
    for part, rows in present.items():
        if tuple(rows.shape) != shapes[part]:
            raise BadFile(
                f"{part!r} has the shape {tuple(rows.shape)}, where {shapes[part]} fits what it is one layer with in "
                "this layout"
            )
    return [present[part] if part in present else torch.zeros(shapes[part]) for part in parts]


def _ratio(part: str, names: ModuleNames) -> int:
    return names.mlp_ratio if part.endswith(("proj_mlp", "proj_mlp.weight", "proj_mlp.bias")) else 1


def _named(factors: Mapping[str, Pair], down: str, up: str) -> dict[str, Tensor]:
    named = {}
    for name, (A, B) in factors.items():
        named[f"{name}.{down}.weight"] = A
        named[f"{name}.{up}.weight"] = B
    return named
