"""A spec made trainable on a stock transformer, without changing one of its weights.

Minor and Major add X (A B - A0 B0) to each target. Written as two branches, two large outputs would cancel, and in
bf16 what training changed would be lost in their rounding. So the difference is taken between the factors instead:
B A - B0 A0 = (B - B0) A + B0 (A - A0). That is one stock LoRA of rank 2r with lora_A = [A; A - A0] and lora_B =
[B - B0, B0], whose weights are computed from the parameters A and B by `torch.nn.utils.parametrize`. It is zero at
the start to the last bit, in every dtype and under autocast, and it is what the file holds.
"""

from __future__ import annotations

import datetime
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.utils import parametrize

from urae.adapters.adapter import Adapter
from urae.adapters.base import Base, base_of
from urae.adapters.decomposition import Kind, decompose_cached
from urae.adapters.factors import Factors, Pair, difference, stacked
from urae.adapters.full import train_changes
from urae.adapters.injection import inject
from urae.adapters.specs import Full, Lora, Major, Mica, Minor, Spec
from urae.adapters.targets import linear_layers, resolved, select, transformer_of
from urae.resolution import ResolutionPolicy

__all__ = ["Attached", "attach"]

PACKAGES = ("urae", "torch", "diffusers", "peft", "transformers")
"""Versions that an exported adapter records."""

DECOMPOSED: dict[type[Spec], Kind] = {Minor: "smallest", Major: "largest", Mica: "smallest"}


def attach(
    transformer: Any,
    spec: Spec,
    *,
    start: Adapter | None = None,
    cache: str | Path | None = None,
    device: torch.device | None = None,
) -> Attached:
    """Make `spec` trainable on a bare stock transformer (or a pipeline's). Undone by `Attached.detach`.

    `start` is an adapter that stays active and frozen underneath, and that the export contains; the triplets of
    Minor, Major and Mica are then those of the effective weight W + B A. `cache` is a folder that keeps
    decompositions, `device` computes them, by default where the weights lie. A Lora draws its A from torch's global
    generator: seed it with `torch.manual_seed`.

    Raises ValueError for a target that matches nothing, a rank that a weight does not have, and a transformer
    that already carries adapters; `WrongBase` where `start` does not belong to it.
    """
    transformer = transformer_of(transformer)
    spec = resolved(spec, transformer)
    _check_bare(transformer)
    _check_start(transformer, start)
    base = base_of(transformer)
    if isinstance(spec, Full):
        return _AttachedChanges(transformer, spec, base, start)
    factors = _initial_factors(transformer, spec, start, cache, device)
    return _AttachedFactors(transformer, spec, base, start, factors)


class Attached(ABC):
    """Trainable parameters on a transformer; made by `attach`."""

    def __init__(self, transformer: nn.Module, spec: Spec, base: Base, start: Adapter | None) -> None:
        self.transformer = transformer
        self.spec = spec
        self.base = base
        self.start = start

    @abstractmethod
    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters, fp32: ``<module>.A`` (r, in) and ``<module>.B`` (out, r); for Full by their own
        names."""

    def parameters(self) -> list[nn.Parameter]:
        """`named_parameters` without the names, in the same order."""
        return list(self.named_parameters().values())

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that defines the state, for a checkpoint: the trainable parameters, and frozen factors
        (``A0``, ``B0``), since a decomposition on another machine may differ in its last bits. Not copies."""
        return {
            name: tensor.detach()
            for name, tensor in (*self.named_parameters().items(), *self._frozen().items())
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a `state_dict` into the parameters. Names and shapes must agree, or nothing is changed."""
        own = self.state_dict()
        _check_same_tensors(own, state)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def export(
        self,
        *,
        policy: ResolutionPolicy | None = None,
        recipe: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Adapter:
        """The present state as a self-contained adapter, copied to the CPU: rank r, or 2r for Minor and Major, plus
        the rank of `start`. `policy`, `recipe` and `data` (JSON types) are stored with it."""
        return Adapter(
            **self._weights(),
            spec=self.spec,
            policy=policy,
            recipe=_as_json("recipe", recipe or {}),
            data=_as_json("data", data or {}),
            base=self.base,
            start=self.start.hash if self.start else "",
            versions={package: version(package) for package in PACKAGES},
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    @abstractmethod
    def detach(self) -> None:
        """Put the transformer back as it was: modules, weights, flags."""

    @abstractmethod
    def _frozen(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _weights(self) -> dict[str, Any]: ...


class _AttachedFactors(Attached):
    def __init__(
        self, transformer: nn.Module, spec: Spec, base: Base, start: Adapter | None, factors: Factors
    ) -> None:
        super().__init__(transformer, spec, base, start)
        self._below = inject(transformer, start.factors) if start else None
        self._own = inject(transformer, factors, init="mica" if isinstance(spec, Mica) else False)
        self._has_difference = isinstance(spec, Minor | Major)
        transformer.requires_grad_(False)
        for layer in self._own.layers.values():
            self._prepare(layer)
        for parameter in self.named_parameters().values():
            parameter.requires_grad_(True)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        trained = ("A",) if isinstance(self.spec, Mica) else ("A", "B")
        return {
            f"{name}.{factor}": _parameter(self._factor(layer, factor))
            for name, layer in self._own.layers.items()
            for factor in trained
        }

    def detach(self) -> None:
        self._own.remove()
        if self._below is not None:
            self._below.remove()

    def _prepare(self, layer: LoraLayer) -> None:
        name = self._own.name
        if isinstance(self.spec, Lora | Mica):
            layer.scaling[name] = self.spec.scaling
        if self._has_difference:
            _take_difference(self._factor(layer, "A"), rows=True)
            _take_difference(self._factor(layer, "B"), rows=False)

    def _factor(self, layer: LoraLayer, factor: str) -> Any:
        return (layer.lora_A if factor == "A" else layer.lora_B)[self._own.name]

    def _frozen(self) -> dict[str, Tensor]:
        layers = self._own.layers.items()
        if isinstance(self.spec, Mica):
            return {f"{name}.B": self._factor(layer, "B").weight for name, layer in layers}
        if not self._has_difference:
            return {}
        return {
            f"{name}.{factor}0": self._factor(layer, factor).parametrizations["weight"][0].start
            for name, layer in layers
            for factor in ("A", "B")
        }

    def _weights(self) -> dict[str, Any]:
        factors = {name: self._exported(layer) for name, layer in self._own.layers.items()}
        return {"factors": stacked(factors, self.start.factors) if self.start else factors}

    def _exported(self, layer: LoraLayer) -> tuple[Tensor, Tensor]:
        A, B = (self._factor(layer, factor).weight.detach().cpu().clone() for factor in ("A", "B"))
        return A, B * layer.scaling[self._own.name]


class _AttachedChanges(Attached):
    def __init__(self, transformer: nn.Module, spec: Full, base: Base, start: Adapter | None) -> None:
        super().__init__(transformer, spec, base, start)
        initial = {f"{name}.weight": B @ A for name, (A, B) in start.factors.items()} if start else {}
        self._changes = train_changes(transformer, spec.targets, initial)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._changes.trainable)

    def detach(self) -> None:
        self._changes.remove()

    def _frozen(self) -> dict[str, Tensor]:
        return {}

    def _weights(self) -> dict[str, Any]:
        differences = {
            name: change.detach().cpu().clone() for name, change in self._changes.trainable.items()
        }
        return {"differences": differences}


def _initial_factors(
    transformer: nn.Module,
    spec: Any,
    start: Adapter | None,
    cache: str | Path | None,
    device: torch.device | None,
) -> Factors:
    layers = linear_layers(transformer)
    names = select(layers, spec.targets)
    if isinstance(spec, Lora):
        return {name: _gaussian(layers[name], spec.rank) for name in names}
    for name in names:
        _check_rank(name, layers[name], spec.rank)
    console = Console(stderr=True)
    shown = track(
        names, "decomposing weights", console=console, transient=True, disable=not console.is_terminal
    )
    return {name: _decomposed(name, layers[name], spec, start, cache, device) for name in shown}


def _gaussian(layer: Any, rank: int) -> Pair:
    return torch.randn(rank, layer.in_features) / rank, torch.zeros(layer.out_features, rank)


def _decomposed(
    name: str,
    layer: Any,
    spec: Any,
    start: Adapter | None,
    cache: str | Path | None,
    device: torch.device | None,
) -> Pair:
    weight = dequantize_module_weight(layer).detach().to(device)
    if start is not None and name in start.factors:
        A, B = (factor.to(weight.device) for factor in start.factors[name])
        weight = weight.float() + B @ A
    triplets = decompose_cached(weight, rank=spec.rank, kind=DECOMPOSED[type(spec)], cache=cache)
    if isinstance(spec, Mica):
        return torch.zeros(spec.rank, weight.shape[1]), triplets.U.float()
    if triplets.S[0] <= 1e-12 * weight.float().norm():
        raise ValueError(
            f"the {spec.rank} {DECOMPOSED[type(spec)]} singular values of {name} are zero, so {spec.kind} factors "
            "would stay zero: leave it out of the targets, or train a Lora"
        )
    A0, B0 = triplets.factors()
    return difference((A0, B0), (A0, B0))


class _Difference(nn.Module):
    """Half of `difference` as a parametrization: A -> [A; A - A0], or B -> [B - B0, B0]."""

    start: Tensor

    def __init__(self, start: Tensor, *, rows: bool) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.rows = rows

    def forward(self, trained: Tensor) -> Tensor:
        change = trained - self.start
        return torch.cat([trained, change]) if self.rows else torch.cat([change, self.start], dim=1)


def _take_difference(factor: nn.Linear, *, rows: bool) -> None:
    halves = factor.weight.detach().chunk(2, dim=0 if rows else 1)
    start = halves[0 if rows else 1].clone()
    factor.weight = nn.Parameter(start.clone())
    # unsafe: a parametrization may not change the shape otherwise, and that is what this one is for.
    parametrize.register_parametrization(factor, "weight", _Difference(start, rows=rows), unsafe=True)


def _parameter(factor: Any) -> nn.Parameter:
    if parametrize.is_parametrized(factor):
        return factor.parametrizations["weight"].original
    return factor.weight


def _as_json(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as a file gives them back; what a file cannot hold is refused now, not when it is written."""
    try:
        return json.loads(json.dumps(dict(values)))
    except TypeError as error:
        raise ValueError(f"{name} cannot be stored in a file ({error}): give it in JSON types") from error


def _check_bare(transformer: nn.Module) -> None:
    for name, module in transformer.named_modules():
        if isinstance(module, LoraLayer) or parametrize.is_parametrized(module):
            raise ValueError(
                f"{name} already carries an adapter: detach or unload it first, "
                "or pass its file as start= to train on top of it"
            )


def _check_start(transformer: nn.Module, start: Adapter | None) -> None:
    if start is None:
        return
    if start.is_full:
        raise ValueError(
            "start is a full adapter, on which no other can be trained: bake it into a model first"
        )
    start.check(transformer)


def _check_rank(name: str, layer: Any, rank: int) -> None:
    largest = min(layer.out_features, layer.in_features)
    if rank > largest:
        raise ValueError(f"rank {rank} is impossible for {name}, which has {largest} singular values")


def _check_same_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    if own.keys() != state.keys():
        name = sorted(own.keys() ^ state.keys())[0]
        raise ValueError(f"the state does not belong to this adapter: {name!r} is in only one of the two")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"the state does not belong to this adapter: {name!r} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
