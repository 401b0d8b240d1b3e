"""An adapter put into the base for good: W' = W + B A (paper, Sec. 2.3), for tools that take no adapter.

The model is read and written one tensor at a time, so that 12 billion weights need no more memory than the largest of
their matrices. Each keeps its type, in which the sum is rounded once: what an adapter does to a weight is often less
than a step of bf16, and `Baked` says how much of it was lost. Other tools know nothing of the policy that the adapter
was trained for; it goes into a file beside the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from urae.adapters.adapter import Adapter
from urae.adapters.base import Base, base_stored, check_same_base
from urae.adapters.full import check_differences
from urae.adapters.injection import check_fits
from urae.baking.stored import INDEX, WHOLE, StoredTransformer, stored_transformer
from urae.families.naming import original_of
from urae.io import Progress, check_can_write, copy_folder, write_text, write_weights, writing_folder

__all__ = ["Baked", "bake"]

SHARD = 10**10
"""Bytes of a file of a folder, as diffusers has them."""

LARGE = 0.1
"""Rounding, as a share of the adapter's own change, from which an adapter is better kept as a file."""


@dataclass(frozen=True, kw_only=True)
class Baked:
    """A model with an adapter in its weights, and what rounding did to it."""

    path: Path
    policy: Path | None
    """The policy's own file; None where the adapter has none."""
    num_changed: int
    """Parameters (tensors) that differ from the base's."""
    change: float
    """Frobenius norm of the adapter's change over that of the parameters that it changes."""
    error: float
    """Norm of what rounding added over that of the change: 0 is the unbaked adapter, 1 as far from it as the base."""
    worst: tuple[str, float]
    """The parameter with the largest such share, and that share."""

    def __str__(self) -> str:
        lines = [
            f"{self.num_changed} tensors changed by {self.change:.2g} of their norm; rounding differs from the unbaked "
            f"adapter by {self.error:.2g} of that change (most, {self.worst[1]:.2g}, in {self.worst[0]})"
        ]
        if self.error > LARGE:
            lines.append(
                f"rounding loses {self.error:.0%} of what this adapter does: better keep it as a file beside the base"
            )
        if self.policy:
            lines.append(
                f"the policy is in {self.policy}, and no tool takes it by itself: urae generate --policy {self.policy}"
            )
        return "\n".join(lines)


def bake(
    adapter: Adapter,
    model: str | Path,
    out: str | Path,
    *,
    base: str | Path = "",
    allow_other_base: bool = False,
) -> Baked:
    """Write a model whose weights have the adapter in them.

    model: "mini", a diffusers folder, a hub id, or a .safetensors file with its `base`, as `open_pipeline` takes them.
    out: a new folder, in the diffusers layout with all parts of the pipeline, or a .safetensors file, of the
    transformer alone under the names of the model's original repository. Raises `ValueError` for a model in rounded
    weights and for a family whose original names are not known, `WrongBase` where the adapter is another model's,
    `CannotWrite`.
    """
    out = Path(out)
    to_file = out.suffix == ".safetensors"
    check_can_write(out, folder=not to_file)
    source = stored_transformer(model, base=base, whole=not to_file)
    check_fits(source.transformer, adapter.factors)
    check_differences(source.transformer, adapter.differences)
    found = base_stored(
        source.transformer,
        ((name, source.read(name)) for name, _ in source.transformer.named_parameters()),
        name=str(model),
    )
    if adapter.base is not None and not allow_other_base:
        check_same_base(adapter.base, found)
    work = _Baking(source=source, adapter=adapter)
    write = _write_file if to_file else _write_folder
    policy = write(work, out, json.dumps(_described(adapter, found), sort_keys=True))
    return work.report(out, policy)


@dataclass(kw_only=True)
class _Baking:
    """The sums, each made when it is written, and how far rounding takes each from the exact one."""

    source: StoredTransformer
    adapter: Adapter
    weights: float = 0.0
    """Squared norm of the parameters that change."""
    changes: dict[str, float] = field(default_factory=dict)
    """Norm of each parameter's change."""
    errors: dict[str, float] = field(default_factory=dict)
    """Norm of what rounding adds to it."""

    def made(self, name: str) -> Tensor:
        """A parameter with the adapter in it, in its stored type."""
        weight, change = self.source.read(name), self._change(name)
        if change is None:
            return weight
        exact = weight.float() + change
        rounded = exact.to(weight.dtype)
        if not rounded.isfinite().all():
            raise ValueError(
                f"{name} with the adapter in it is beyond what {weight.dtype} can hold: take another type"
            )
        self.weights += float(weight.float().norm()) ** 2
        self.changes[name], self.errors[name] = float(change.norm()), float((rounded.float() - exact).norm())
        return rounded

    def _change(self, name: str) -> Tensor | None:
        module, _, attribute = name.rpartition(".")
        parts = [self.adapter.differences[name].float()] if name in self.adapter.differences else []
        if attribute == "weight" and module in self.adapter.factors:
            A, B = self.adapter.factors[module]
            parts.append(B.float() @ A.float())
        return reduce(torch.add, parts) if parts else None

    def report(self, out: Path, policy: Path | None) -> Baked:
        change, error = math.hypot(*self.changes.values()), math.hypot(*self.errors.values())
        shares = {name: self.errors[name] / norm for name, norm in self.changes.items() if norm}
        worst = max(shares, key=lambda name: shares[name], default="")
        return Baked(
            path=out,
            policy=policy,
            num_changed=len(self.changes),
            change=change / math.sqrt(self.weights) if self.weights else 0.0,
            error=error / change if change else 0.0,
            worst=(worst, shares.get(worst, 0.0)),
        )


def _described(adapter: Adapter, base: Base) -> dict[str, Any]:
    """What the model says of itself: what was baked, and into what."""
    return {"baked": {**adapter.metadata(), "hash": adapter.hash}, "into": base.to_dict()}


# --- one file, under the original names ----------------------------------------------------------------------


def _write_file(work: _Baking, out: Path, said: str) -> Path | None:
    names = work.source.family.names
    if names is None:
        raise ValueError(
            f"the original names of {work.source.family.name} are not known here: give a folder as out instead"
        )
    held: dict[str, tuple[str, ...]] = {}
    for name in work.source.described:
        original = original_of(name, names)
        if original is None:
            raise ValueError(f"{name} has no original name that is known here: give a folder as out instead")
        held[original[0]] = original[1]

    def joined(original: str, parts: list[Tensor]) -> Tensor:
        swapped = held[original][0].rpartition(".")[0] == names.swapped
        return torch.cat(parts[0].chunk(2)[::-1] if swapped else parts)

    described = {one: joined(one, [work.source.described[part] for part in held[one]]) for one in held}
    with Progress("baking", total=len(held)) as progress:

        def make(original: str) -> Tensor:
            progress.advance()
            return joined(original, [work.made(part) for part in held[original]])

        write_weights(out, described, {"urae": said}, make=make)
    return _policy_beside(work.adapter, out.with_name(f"{out.stem}.policy.json"))


# --- a folder in the diffusers layout ------------------------------------------------------------------------


def _write_folder(work: _Baking, out: Path, said: str) -> Path | None:
    described = work.source.described
    with writing_folder(out) as folder, Progress("baking", total=len(described)) as progress:
        copy_folder(work.source.folder, folder, without=_is_transformers_weights)

        def make(name: str) -> Tensor:
            progress.advance()
            return work.made(name)

        shards = list(_shards(described))
        files = dict(zip(_shard_names(len(shards)), shards, strict=True))
        for file, names in files.items():
            tensors = {name: described[name] for name in names}
            write_weights(folder / "transformer" / file, tensors, {"format": "pt", "urae": said}, make=make)
        if len(files) > 1:
            total = sum(_num_bytes(tensor) for tensor in described.values())
            where = {name: file for file, names in files.items() for name in names}
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2)
            write_text(folder / "transformer" / INDEX, text)
        write_text(folder / "baked.json", said)
        _policy_beside(work.adapter, folder / "policy.json")
    return out / "policy.json" if work.adapter.policy else None


def _is_transformers_weights(place: Path) -> bool:
    return place.parts[0] == "transformer" and ".safetensors" in place.name


def _shards(described: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """The parameters in their order, as many together as make a shard."""
    names: list[str] = []
    room = SHARD
    for name, tensor in described.items():
        if names and _num_bytes(tensor) > room:
            yield names
            names, room = [], SHARD
        names.append(name)
        room -= _num_bytes(tensor)
    yield names


def _shard_names(num: int) -> list[str]:
    stem = WHOLE.removesuffix(".safetensors")
    return [WHOLE] if num == 1 else [f"{stem}-{i:05d}-of-{num:05d}.safetensors" for i in range(1, num + 1)]


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _policy_beside(adapter: Adapter, path: Path) -> Path | None:
    if adapter.policy is None:
        return None
    write_text(path, adapter.policy.to_json())
    return path
