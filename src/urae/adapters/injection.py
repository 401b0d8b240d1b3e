"""Low-rank factors put into a stock transformer through peft, and taken out again without a trace.

peft wraps each target and leaves marks on the model: `peft_config`, `requires_grad` flags, the list of active
adapters. `inject` notes all of them first, and `Injection.remove` puts the very same module objects and flags back.
Factors stay fp32 on any base: peft then casts the input to fp32 and the sum back to the base's dtype.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from urae.adapters.factors import Factors
from urae.adapters.targets import linear_layers
from urae.errors import WrongBase

__all__ = ["Injection", "check_fits", "inject", "injected"]


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One peft adapter inside a transformer."""

    transformer: nn.Module
    name: str
    layers: dict[str, LoraLayer]
    """The peft layers by module name."""
    before: _Before

    def remove(self) -> None:
        """Take the adapter out. Later injections must have been removed before."""
        for layer in self._created():
            if others := set(layer.lora_A) - {self.name}:
                raise ValueError(
                    f"adapter {', '.join(map(repr, sorted(others)))} was added later and is still attached: "
                    "detach adapters in the reverse order"
                )
        self.before.restore(self.transformer, self.name)

    def _created(self) -> Iterator[LoraLayer]:
        for name, layer in self.layers.items():
            if self.before.modules[name] is not layer:
                yield layer


def inject(transformer: nn.Module, factors: Factors, *, init: bool | str = False) -> Injection:
    """Add the factors as one active, frozen peft adapter of weight 1, on top of those already active.

    `init` is peft's `init_lora_weights`, for variants such as "mica" that carry behaviour; its values are not used.
    """
    _check_receptive(transformer)
    check_fits(transformer, factors)
    before = _Before.of(transformer, factors)
    before.check_placed()
    name = _free_name(transformer)
    try:
        layers = _wrapped(transformer, name, factors, init)
        for module, (A, B) in factors.items():
            device = before.modules[module].weight.device
            layers[module].lora_A[name].weight = _frozen(A, device)
            layers[module].lora_B[name].weight = _frozen(B, device)
        before.activate(transformer, name)
    except BaseException:
        before.restore(transformer, name)
        raise
    _maybe_remove_and_reapply_group_offloading(transformer)
    return Injection(transformer=transformer, name=name, layers=layers, before=before)


@contextmanager
def injected(transformer: nn.Module, factors: Factors) -> Iterator[None]:
    """`inject` for the duration of a block."""
    injection = inject(transformer, factors)
    try:
        yield
    finally:
        injection.remove()


def check_fits(transformer: nn.Module, factors: Factors) -> None:
    """Raise `WrongBase` where a module is missing or has another shape."""
    layers = linear_layers(transformer)
    for name, (A, B) in factors.items():
        if name not in layers:
            raise WrongBase(
                f"the adapter changes {name!r}, which this {type(transformer).__name__} does not have"
            )
        shape = (layers[name].out_features, layers[name].in_features)
        if shape != (B.shape[0], A.shape[1]):
            raise WrongBase(
                f"the adapter expects {name!r} to be {B.shape[0]} x {A.shape[1]}, but in this model it is "
                f"{shape[0]} x {shape[1]}"
            )


def _wrapped(transformer: nn.Module, name: str, factors: Factors, init: bool | str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several are meant
        # On the meta device: peft's own initial values would cost time and random numbers, and are replaced.
        inject_adapter_in_model(_config(factors, init), transformer, name, low_cpu_mem_usage=True)
    transformer.__dict__["_hf_peft_config_loaded"] = True
    return {module: transformer.get_submodule(module) for module in factors}


def _check_receptive(transformer: nn.Module) -> None:
    """Refuse states in which a new adapter would have no effect."""
    for name, module in transformer.named_modules():
        if getattr(module, "fused_projections", False):
            raise ValueError(f"{name} has fused projections: call transformer.unfuse_qkv_projections() first")
        if isinstance(module, LoraLayer) and module.merged:
            raise ValueError(
                f"{name} carries a fused LoRA: call pipe.unload_lora_weights() after pipe.fuse_lora()"
            )
        if isinstance(module, LoraLayer) and module.disable_adapters:
            raise ValueError(f"{name} has its adapters disabled: call transformer.enable_lora() first")


def _free_name(transformer: nn.Module) -> str:
    taken = getattr(transformer, "peft_config", {})
    return next(name for name in (f"urae_{index}" for index in range(len(taken) + 1)) if name not in taken)


def _config(factors: Factors, init: bool | str) -> LoraConfig:
    ranks = {name: A.shape[0] for name, (A, _) in factors.items()}
    rank = max(ranks.values())
    # peft matches a name as a regular expression and as a suffix, so "proj_out" alone would also mean
    # "single_transformer_blocks.0.proj_out"; the anchor prevents that.
    pattern = {f"^{re.escape(name)}": value for name, value in ranks.items() if value != rank}
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules="|".join(map(re.escape, factors)),
        init_lora_weights=init,
    )


def _frozen(tensor: Tensor, device: torch.device) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to(device, torch.float32, copy=True), requires_grad=False)


@dataclass(frozen=True, kw_only=True)
class _Before:
    """The state of a transformer before an injection."""

    modules: dict[str, Any]
    flags: list[tuple[nn.Parameter, bool]]
    active: list[tuple[LoraLayer, str | list[str]]]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, transformer: nn.Module, factors: Factors) -> _Before:
        kept = ("peft_config", "_hf_peft_config_loaded")
        attributes = {name: transformer.__dict__[name] for name in kept if name in transformer.__dict__}
        if "peft_config" in attributes:
            attributes["peft_config"] = dict(attributes["peft_config"])
        return cls(
            modules={name: transformer.get_submodule(name) for name in factors},
            flags=[(parameter, parameter.requires_grad) for parameter in transformer.parameters()],
            active=[
                (module, module.active_adapter)
                for module in transformer.modules()
                if isinstance(module, LoraLayer)
            ],
            attributes=attributes,
        )

    def check_placed(self) -> None:
        for name, module in self.modules.items():
            if module.weight.is_meta:
                raise ValueError(
                    f"{name} has no weights yet: use the adapter before enable_sequential_cpu_offload()"
                )

    def activate(self, transformer: nn.Module, name: str) -> None:
        """Make the new adapter active beside those that were."""
        for layer, active in self.active:
            layer.set_adapter([*([active] if isinstance(active, str) else active), name])
        self._restore_flags()
        for parameter_name, parameter in transformer.named_parameters():
            if f".{name}." in parameter_name:
                parameter.requires_grad_(False)

    def restore(self, transformer: nn.Module, name: str) -> None:
        kept = {id(layer) for layer, _ in self.active}
        for layer, active in self.active:
            layer.set_adapter(active)
            layer._active_adapter = active  # set_adapter turns one name into a list
            layer.delete_adapter(name)
        for module_name, module in self.modules.items():
            if id(module) not in kept:
                parent, _, child = module_name.rpartition(".")
                setattr(transformer.get_submodule(parent), child, module)
        for attribute in ("peft_config", "_hf_peft_config_loaded"):
            transformer.__dict__.pop(attribute, None)
        transformer.__dict__.update(self.attributes)
        self._restore_flags()
        _maybe_remove_and_reapply_group_offloading(transformer)

    def _restore_flags(self) -> None:
        for parameter, flag in self.flags:
            parameter.requires_grad_(flag)
