"""What a model's modules are, what its owner has done to them, and how that is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from urae.resolution.embedding import forward_replaced

__all__ = [
    "attributes_kept",
    "forward_replaced",
    "has_hooks",
    "hooks_of",
    "inputs_changed",
    "is_compiled",
    "is_offloaded",
    "is_offloaded_by_layer",
    "named_blocks",
    "repeated_blocks",
    "weight_bytes",
]

REPLACED = ("forward", "_diffusers_hook", "_cache_config")
"""Attributes that hooks, caches and compiling put into a module."""


def named_blocks(transformer: Any) -> dict[str, nn.Module]:
    """The blocks that a transformer repeats, by name, in the order in which they run; empty for one that does not say
    which these are."""
    kinds = getattr(transformer, "_repeated_blocks", ())
    return {name: module for name, module in transformer.named_modules() if type(module).__name__ in kinds}


def repeated_blocks(transformer: Any) -> list[nn.Module]:
    """The same without their names."""
    return list(named_blocks(transformer).values())


def weight_bytes(module: nn.Module) -> int:
    """Of a module's parameters and buffers; it may be on the meta device."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def is_compiled(transformer: Any) -> bool:
    """Whether its owner has compiled a transformer, whole or by blocks, in place or around it."""
    return hasattr(transformer, "_orig_mod") or any(
        getattr(module, "_compiled_call_impl", None) for module in transformer.modules()
    )


def is_offloaded(pipe: Any) -> bool:
    """Whether a pipeline's owner has its parts, or their layers, brought to the device when they are needed."""
    return any(hasattr(part, "_hf_hook") for part in pipe.components.values())


def is_offloaded_by_layer(module: nn.Module) -> bool:
    """Whether hooks of accelerate or diffusers bring the weights of its layers or blocks one after the other."""
    return any(
        hasattr(layer, "_hf_hook") or "group_offloading" in hooks_of(layer)
        for layer in module.modules()
        if layer is not module
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether diffusers has hooks on a module itself, such as those of a cache."""
    return bool(hooks_of(module))


@contextmanager
def inputs_changed(
    transformer: nn.Module, change: Callable[[dict[str, Any]], dict[str, Any]], *, what: str
) -> Iterator[None]:
    """Give a transformer `change(inputs)` in place of its inputs by name; undone on exit. Raises ValueError as
    `forward_replaced` does."""

    def changed(forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **inputs: forward(**change(inputs))

    with forward_replaced(transformer, changed, what=what):
        yield


@contextmanager
def attributes_kept(transformer: nn.Module) -> Iterator[None]:
    """Put back what hooks and compiling replace in a transformer's modules; diffusers leaves a bound forward there, and
    the registry of its hooks, after the hooks are gone."""
    before = [
        (module, {name: vars(module)[name] for name in REPLACED if name in vars(module)})
        for module in transformer.modules()
    ]
    try:
        yield
    finally:
        for module, values in before:
            for name in REPLACED:
                vars(module).pop(name, None)
            vars(module).update(values)


def hooks_of(module: nn.Module) -> dict[str, Any]:
    """Those of diffusers, by name; their registry stays when they are gone."""
    registry = getattr(module, "_diffusers_hook", None)
    return registry.hooks if registry else {}
