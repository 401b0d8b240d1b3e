"""Muon: momentum whose update is the nearest orthogonal matrix (Jordan et al., 2024).

Orthogonalised in the precision of the training's matrix products: torch.optim.Muon always takes bf16, which
processors without AVX-512 emulate at a hundredth of the speed of fp32. Matrices of one shape are stacked and
orthogonalised together.
"""

from __future__ import annotations

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """For inner matrices and convolution kernels (out, in, h, w), taken as matrices (out, in h w). A step
    changes a weight by 0.2 `lr` in root mean square, about as AdamW at the same `lr` does."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                updates = torch.stack([self._velocity(p, group["momentum"]).flatten(1) for p in parameters])
                size = 0.2 * max(updates.shape[-2:]) ** 0.5 * group["lr"]
                for parameter, update in zip(parameters, orthogonal(updates.to(self.dtype)), strict=True):
                    parameter.mul_(1 - 0.1 * group["lr"]).sub_(update.view_as(parameter), alpha=size)

    def _velocity(self, parameter: nn.Parameter, momentum: float) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        velocity = state.setdefault("velocity", torch.zeros_like(parameter))
        velocity.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(velocity, momentum)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(B, m, n) -> about U V^T of each, by five Newton-Schulz steps."""
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrices.shape[-2] <= matrices.shape[-1] else x.mT
