"""The optimizers, and their state as tensors and plain numbers, so that no checkpoint needs pickle."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from urae.training.prodigy import ProdigyAtOnce
from urae.training.recipe import Recipe

__all__ = ["OPTIMIZERS", "load_optimizer", "make_optimizer", "optimizer_state", "step_size"]


def _prodigy(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Prodigy with the reference's settings: bias correction and safeguarded warm-up."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what weight_decay says anyway
        return ProdigyAtOnce(
            parameters,
            lr=recipe.lr,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )


def _adamw(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], Recipe], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "prodigy": _prodigy,
}


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over these parameters."""
    return OPTIMIZERS[recipe.optimizer](parameters, recipe)


def step_size(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate in effect: lr, times Prodigy's own estimate d."""
    group = optimizer.param_groups[0]
    return float(group["lr"] * group.get("d", 1.0))


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as tensors, named `<parameter>.<name>`, and the rest as JSON holds it. Floats survive JSON
    exactly."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{parameter}.{name}"] = value
    return tensors, {"numbers": numbers, "groups": state["param_groups"]}


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]
) -> None:
    """Undo `optimizer_state`, on an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **rest["numbers"]}.items():
        parameter, _, key = name.partition(".")
        state.setdefault(int(parameter), {})[key] = value
    groups = [{**group, "betas": tuple(group["betas"])} for group in rest["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
