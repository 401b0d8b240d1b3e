"""Full fine-tuning as a baseline: an fp32 change beside every parameter, and the changes as a file.

The base's parameters stay where they are, frozen. `torch.nn.utils.parametrize` shows each module W + D, summed in
fp32 and rounded to the base's dtype, and D is trained: updates too small for a bf16 weight are not lost, and the
base is restored by taking the parametrizations away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from urae.adapters.targets import parameter_owners, select
from urae.errors import WrongBase

__all__ = ["Changes", "check_differences", "differences_applied", "train_changes"]


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
    """Add the differences for the duration of a block, in fp32, rounded once to the base's dtype."""
    originals = {name: transformer.get_parameter(name) for name in differences}
    try:
        for name, original in originals.items():
            changed = original.detach().float() + differences[name].to(original.device)
            module, attribute = _place(transformer, name)
            module._parameters[attribute] = nn.Parameter(changed.to(original.dtype), original.requires_grad)
        yield
    finally:
        for name, original in originals.items():
            module, attribute = _place(transformer, name)
            module._parameters[attribute] = original


def check_differences(transformer: nn.Module, differences: Mapping[str, Tensor]) -> None:
    """Raise `WrongBase` where a parameter is missing or has another shape."""
    parameters = dict(transformer.named_parameters()) if differences else {}
    for name, difference in differences.items():
        if name not in parameters:
            raise WrongBase(
                f"the adapter changes {name!r}, which this {type(transformer).__name__} does not have"
            )
        if parameters[name].shape != difference.shape:
            raise WrongBase(
                f"the adapter expects {name!r} to be {tuple(difference.shape)}, but in this model it is "
                f"{tuple(parameters[name].shape)}"
            )


class _Changed(nn.Module):
    def __init__(self, change: nn.Parameter) -> None:
        super().__init__()
        self.change = change

    def forward(self, original: Tensor) -> Tensor:
        return (original.float() + self.change).to(original.dtype)


def _place(transformer: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, attribute = name.rpartition(".")
    return transformer.get_submodule(module), attribute


def _check_trainable(parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if not parameter.is_floating_point() or type(parameter) is not nn.Parameter:
            raise ValueError(
                f"{name} is quantised and cannot be trained in full: use Lora or Minor on this base"
            )
