"""Which modules of a stock transformer a list of patterns means, under the names of the bare model.

A model that already carries peft layers answers with the same names as without them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from peft.tuners.lora import LoraLayer
from torch import nn

from urae.adapters.specs import IMAGE_STREAM, PAPER_TARGETS, Spec
from urae.families import family_of

__all__ = ["linear_layers", "matches", "parameter_owners", "resolved", "select", "transformer_of"]


SpecType = TypeVar("SpecType", bound=Spec)


def transformer_of(target: Any) -> nn.Module:
    """The transformer of a pipeline, or the transformer itself; compiled wrappers are looked through."""
    transformer = target if isinstance(target, nn.Module) else target.transformer
    return getattr(transformer, "_orig_mod", transformer)


def resolved(spec: SpecType, transformer: nn.Module) -> SpecType:
    """The spec with the patterns of the transformer's family in the place of words for them."""
    if not set(spec.targets) & {*PAPER_TARGETS, *IMAGE_STREAM}:
        return spec
    layers = family_of(transformer).layers
    words = {PAPER_TARGETS[0]: layers.attention, IMAGE_STREAM[0]: layers.wide}
    patterns = [pattern for target in spec.targets for pattern in words.get(target, (target,))]
    return replace(spec, targets=tuple(dict.fromkeys(patterns)))


def linear_layers(transformer: nn.Module) -> dict[str, Any]:
    """Linear layers by name; a layer inside a peft wrapper appears once, as the wrapper, under its own name."""
    found: dict[str, Any] = {}
    wrapped: tuple[str, ...] = ()
    for name, module in transformer.named_modules():
        if name.startswith(wrapped) and wrapped:
            continue
        if isinstance(module, LoraLayer):
            wrapped = (*wrapped, f"{name}.")
            found[name] = module
        elif isinstance(module, nn.Linear):
            found[name] = module
    return found


def parameter_owners(transformer: nn.Module) -> dict[str, nn.Module]:
    """Modules that hold parameters of their own, by name ("" is the transformer itself)."""
    return {
        name: module
        for name, module in transformer.named_modules()
        if any(True for _ in module.named_parameters(recurse=False))
    }


def select(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that any pattern matches, in model order. A pattern without a match is an error."""
    names = list(names)
    matched: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if matches(name, pattern)]
        if not hits:
            raise ValueError(_no_match(pattern, names))
        matched.update(hits)
    return [name for name in names if name in matched]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern means the layer of this name."""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern.removeprefix("re:"), name) is not None
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _no_match(pattern: str, names: Sequence[str]) -> str:
    close = _close_names(pattern, names)
    hint = f"close names are {', '.join(map(repr, close))}" if close else f"names look like {names[0]!r}"
    return f"target {pattern!r} matches no layer of this transformer: {hint}"


def _close_names(pattern: str, names: Sequence[str]) -> list[str]:
    """Close matches among the names without their block numbers, which would crowd out all variety."""
    generic = {re.sub(r"\b\d+\.", "*.", name): name for name in names}
    tails = {".".join(name.split(".")[-count:]): name for name in generic for count in range(1, 5)}
    wanted = pattern.removeprefix("re:").strip("*^$.")
    return difflib.get_close_matches(wanted, tails, n=4, cutoff=0.5)
