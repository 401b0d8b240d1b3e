"""Prodigy without waiting: prodigyopt's optimizer, whose two sums over all parameters are read at once.

The step size d grows by sums over all parameters (Mishchenko and Defazio, "Prodigy", 2024, Algorithm 4):

    numerator   <- beta3 numerator + sum (d / d0) dlr <gradient, p0 - p>         denominator = sum |s|

prodigyopt reads each parameter's share on its own, so that a GPU stands still 760 times in a step of FLUX.1's
adapter. Here a step waits for the device once, and goes over all parameters by torch's multi-tensor operations.
Settings, state and results are prodigyopt's, on a CPU to the last bit (tests/training/test_optimizer.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from prodigyopt import Prodigy
from torch import Tensor

__all__ = ["ProdigyAtOnce"]


class ProdigyAtOnce(Prodigy):
    """prodigyopt's Prodigy for one group of parameters, with decoupled weight decay, bias correction, safeguarded
    warm-up and beta1 > 0."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step of all parameters that have a gradient."""
        assert closure is None
        (group,) = self.param_groups
        parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        states = [self._state(parameter) for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        dlr = _step_size(group)
        shares = self._averaged(group, parameters, gradients, states)
        if self._grown(group, shares, dlr):
            _moved(group, parameters, states, dlr)

    def _state(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            # Where all is zero, one zero is enough to say where the parameter started.
            start = parameter.flatten().clone() if parameter.any() else parameter.new_zeros(())
            state |= {"step": 0, "s": torch.zeros_like(parameter).flatten(), "p0": start}
            state |= {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return state

    def _averaged(
        self, group: dict[str, Any], parameters: list[Any], gradients: list[Any], states: list[dict[str, Any]]
    ) -> list[list[float]]:
        """Take the gradients into the running averages; each parameter's <gradient, p0 - p>, and its |s|."""
        d, d0, (beta1, beta2), beta3 = group["d"], group["d0"], group["betas"], _beta3(group)
        flat = [gradient.flatten() for gradient in gradients]
        dots = [
            torch.dot(gradient, state["p0"] - parameter.flatten())
            for gradient, state, parameter in zip(flat, states, parameters, strict=True)
        ]
        first, second, sums = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "s"))
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, gradients, alpha=d * (1 - beta1))
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, value=d * d * (1 - beta2))
        torch._foreach_mul_(sums, beta3)
        torch._foreach_add_(sums, flat, alpha=d / d0 * d)
        sizes = [total.abs().sum() for total in sums]
        return torch.stack([torch.stack(dots), torch.stack(sizes)]).tolist()  # the one wait

    def _grown(self, group: dict[str, Any], shares: list[list[float]], dlr: float) -> bool:
        """Let d grow by the shares of all parameters; False, and nothing done, where all gradients were zero."""
        d, d0 = group["d"], group["d0"]
        dots, sizes = shares
        added = sum(((d / d0) * dlr * dot for dot in dots), 0.0)
        numerator, denominator = group["d_numerator"] * _beta3(group) + added, sum(sizes, 0.0)
        if denominator == 0:
            return False
        d_hat = group["d_coef"] * numerator / denominator
        d = max(d, d_hat) if d == d0 else d
        d_max = max(group["d_max"], d_hat)
        group |= {"d_numerator": numerator, "d_denom": denominator, "d_hat": d_hat}
        group |= {"d": min(d_max, d * group["growth_rate"]), "d_max": d_max}
        return True


def _moved(group: dict[str, Any], parameters: list[Tensor], states: list[dict[str, Any]], dlr: float) -> None:
    """Move the parameters by the step of length `dlr`."""
    roots = torch._foreach_sqrt([state["exp_avg_sq"] for state in states])
    torch._foreach_add_(roots, group["d"] * group["eps"])
    torch._foreach_add_(parameters, parameters, alpha=-group["weight_decay"] * dlr)
    torch._foreach_addcdiv_(parameters, [state["exp_avg"] for state in states], roots, value=-dlr)
    for state in states:
        state["step"] += 1
    group["k"] += 1


def _step_size(group: dict[str, Any]) -> float:
    (beta1, beta2), steps = group["betas"], group["k"] + 1
    correction = ((1 - beta2**steps) ** 0.5) / (1 - beta1**steps)
    return group["d"] * group["lr"] * correction


def _beta3(group: dict[str, Any]) -> float:
    return math.sqrt(group["betas"][1])
