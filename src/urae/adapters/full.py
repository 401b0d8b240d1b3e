"""Full fine-tuning as a baseline: an fp32 change beside every parameter, and the changes as a file.

The base's parameters stay where they are, frozen. `torch.nn.utils.parametrize` shows each module W + D, summed in
fp32 and rounded to the base's dtype, and D is trained: updates too small for a bf16 weight are not lost, and the
base is restored by taking the parametrizations away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from urae.adapters.factors import Pair
from urae.adapters.targets import parameter_owners, select
from urae.errors import WrongBase

__all__ = ["Changes", "by_holder", "check_differences", "differences_applied", "train_changes"]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Trainable fp32 changes of a transformer's parameters."""

    transformer: nn.Module
    trainable: dict[str, nn.Parameter]
    """Change by parameter name."""
    flags: list[tuple[nn.Parameter, bool]]

    def remove(self) -> None:
        for name in self.trainable:
            parametrize.remove_parametrizations(*_place(self.transformer, name), leave_parametrized=False)
        for parameter, flag in self.flags:
            parameter.requires_grad_(flag)


def train_changes(transformer: nn.Module, patterns: Sequence[str], initial: Mapping[str, Tensor]) -> Changes:
    """Freeze the transformer and train a change of every parameter of the matching modules, from 0 or `initial`."""
    owners = parameter_owners(transformer)
    parameters = {
        f"{name}.{attribute}" if name else attribute: parameter
        for name in select(owners, patterns)
        for attribute, parameter in owners[name].named_parameters(recurse=False)
    }
    _check_trainable(parameters)
    if missing := [name for name in initial if name not in parameters]:
        raise ValueError(f"start changes {missing[0]!r}, which targets leaves out: add it to the targets")
    flags = [(parameter, parameter.requires_grad) for parameter in transformer.parameters()]
    transformer.requires_grad_(False)
    trainable = {}
    for name, parameter in parameters.items():
        change = initial.get(name, torch.zeros_like(parameter, dtype=torch.float32)).to(parameter.device)
        trainable[name] = nn.Parameter(change.clone())
        parametrize.register_parametrization(*_place(transformer, name), _Changed(trainable[name]))
    return Changes(transformer=transformer, trainable=trainable, flags=flags)


@contextmanager
def differences_applied(transformer: nn.Module, differences: Mapping[str, Tensor]) -> Iterator[None]:
    """Add the differences for the duration of a block, in fp32, rounded once to the base's dtype.

    They may lie under adapters that peft has attached; what holds no plain parameter is to be left out (`by_holder`).
    """
    places = {name: _place(transformer, name) for name in differences}
    originals: dict[str, Any] = {name: getattr(*place) for name, place in places.items()}
    try:
        for name, original in originals.items():
            module, attribute = places[name]
            changed = original.detach().float() + differences[name].to(original.device)
            module._parameters[attribute] = nn.Parameter(changed.to(original.dtype), original.requires_grad)
        yield
    finally:
        for name, original in originals.items():
            module, attribute = places[name]
            module._parameters[attribute] = original


def by_holder(
    transformer: nn.Module, differences: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Pair]]:
    """The differences of plain parameters; and those of rounded matrices, which cannot be added to, as factors of full
    rank by module name. ValueError for another parameter that is rounded."""
    dense: dict[str, Tensor] = {}
    rounded: dict[str, Pair] = {}
    for name, change in differences.items():
        module, attribute = _place(transformer, name)
        if _is_plain(module._parameters.get(attribute)):
            dense[name] = change
        elif attribute == "weight" and isinstance(module, nn.Linear):
            rounded[name.removesuffix(".weight")] = _of_full_rank(change)
        else:
            raise ValueError(
                f"{name} is rounded and not a matrix of a linear layer: load the model unrounded"
            )
    return dense, rounded


def check_differences(transformer: nn.Module, differences: Mapping[str, Tensor]) -> None:
    """Raise `WrongBase` where a parameter is missing or has another shape."""
    for name, difference in differences.items():
        shape = _shape(transformer, name)
        if shape is None:
            raise WrongBase(
                f"the adapter changes {name!r}, which this {type(transformer).__name__} does not have"
            )
        if shape != difference.shape:
            raise WrongBase(
                f"the adapter expects {name!r} to be {tuple(difference.shape)}, but in this model it is "
                f"{tuple(shape)}"
            )


def _shape(transformer: nn.Module, name: str) -> tuple[int, ...] | None:
    """Of a parameter, without restoring a rounded matrix; None where there is none."""
    try:
        module, attribute = _place(transformer, name)
    except AttributeError:
        return None
    if attribute == "weight" and isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    parameter = module._parameters.get(attribute)
    return None if parameter is None else tuple(parameter.shape)


def _is_plain(parameter: Any) -> bool:
    return type(parameter) is nn.Parameter and parameter.is_floating_point()


def _of_full_rank(change: Tensor) -> Pair:
    """A and B whose product is the matrix (out, in), one of them the identity."""
    rows, columns = change.shape
    return (torch.eye(columns), change) if columns <= rows else (change, torch.eye(rows))


class _Changed(nn.Module):
    def __init__(self, change: nn.Parameter) -> None:
        super().__init__()
        self.change = change

    def forward(self, original: Tensor) -> Tensor:
        return (original.float() + self.change).to(original.dtype)


def _place(transformer: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter of the bare model, inside a wrapper of peft's if there is one."""
    owner, _, attribute = name.rpartition(".")
    module = transformer.get_submodule(owner)
    return getattr(module, "base_layer", module) if isinstance(module, LoraLayer) else module, attribute


def _check_trainable(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if not _is_plain(parameter):
            raise ValueError(
                f"{name} is quantised and cannot be trained in full: use Lora or Minor on this base"
            )
