"""The rotary tables of a model under a policy: positions x frequencies x factor, in place of ComfyUI's `EmbedND`.

The base frequencies are made by the very operations of ComfyUI, so a policy that changes nothing gives its tables bit
for bit. The rules are those of `urae.resolution.frequencies`; its names and its papers stand there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .models import SPATIAL, Call, Family
from .policy import ByHand, Policy

__all__ = ["PolicyEmbedND"]


class PolicyEmbedND(nn.Module):
    """ids (B, tokens, axes) -> (B, 1, tokens, channels / 2, 2, 2), as `comfy.ldm.flux.layers.EmbedND`.

    `call` and `sigma` are told before each call of the model. Tensors and numbers only, no hooks: torch.compile guards
    on the type and the attributes of a submodule.
    """

    def __init__(self, family: Family, policy: Policy | ByHand, stock: Any = None) -> None:
        super().__init__()
        self.family, self.given = family, policy
        object.__setattr__(self, "stock", stock)  # no submodule, which would change the model's state dict
        self.call: Call | None = None
        self.sigma: Tensor | None = None

    @property
    def policy(self) -> Policy:
        """The policy of the call."""
        if isinstance(self.given, Policy):
            return self.given
        assert self.call is not None, "called apart from its model"
        return self.given.policy(self.family.scale(self.call))

    def forward(self, ids: Tensor) -> Tensor:
        assert self.call is not None, "called apart from its model"
        policy, axes, device = self.policy, range(len(self.family.axes)), ids.device
        if device.type == "mps":  # which has no fp64, and where ComfyUI computes its tables on the CPU
            ids = ids.cpu()
        positions = exact_ids(ids, self.call, self.family) if policy.exact_ids else ids.float()
        angles = [self._angles(positions[..., axis], axis, policy) for axis in axes]
        factor = torch.cat([self._factors(axis, policy) for axis in axes])
        if policy.proportional:
            # Queries and keys both carry it: the fourth root scales the logits by sqrt(log_T L).
            factor = factor * math.log(self.family.num_tokens(self.call), policy.native_tokens) ** 0.25
        joined = torch.cat(angles, dim=-1)
        cos, sin = (values * factor.to(joined.device) for values in (joined.cos(), joined.sin()))
        table = torch.stack([cos, -sin, sin, cos], dim=-1)
        return table.reshape(*table.shape[:-1], 2, 2).unsqueeze(1).to(device, torch.float32)

    def _angles(self, positions: Tensor, axis: int, policy: Policy) -> Tensor:
        """(B, tokens, channels / 2), fp64. Text that moves with the size of the image stands where it would at the
        native one, and all its frequencies stay stock."""
        assert self.call is not None
        stock = base_frequencies(self.family.theta, self.family.axes[axis], positions.device)
        changed = axis in SPATIAL
        angles = self._by_policy(positions, axis, policy) if changed else positions[..., None] * stock
        if (offset := self.family.text_offset(self.call)) == 0:
            return angles
        of_size = policy.rope_scale == 1 or policy.scale > 1
        scale = policy.scale if of_size else self.family.text_scale(self.call)
        text = (positions[:, : self.call.text] - offset * (1 - 1 / scale))[..., None] * stock
        return torch.cat([text, angles[:, self.call.text :]], dim=1)

    def _by_policy(self, positions: Tensor, axis: int, policy: Policy) -> Tensor:
        """(B, tokens, channels / 2), fp64, were all tokens the image's."""
        theta, dim, device = self.family.theta, self.family.axes[axis], positions.device
        if policy.rope != "theta":
            sigma = torch.ones((), device=device) if self.sigma is None else self.sigma.to(device)
            return positions[..., None] * by_rule(policy, theta, dim, sigma)
        scaled = base_frequencies(theta * policy.rope_scale, dim, device)
        interpolated = (positions / policy.scale)[..., None]
        if policy.linear:
            return interpolated * scaled
        if not policy.rope_clip:
            return positions[..., None] * scaled
        # omega_i = max((theta k)^(-s), theta^(-s) / scale), s = 2i / d (I-Max).
        exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
        too_low = policy.rope_scale**-exponents < 1 / policy.scale
        stock = base_frequencies(theta, dim, device)
        return torch.where(too_low, interpolated * stock, positions[..., None] * scaled)

    def _factors(self, axis: int, policy: Policy) -> Tensor:
        """(channels / 2,): what YaRN brings along, on rows and columns."""
        scaled = axis in SPATIAL and policy.rope in ("yarn", "dype")
        factor = 0.1 * math.log(policy.scale) + 1 if scaled else 1.0
        return torch.full((self.family.axes[axis] // 2,), factor, dtype=torch.float64)


def base_frequencies(theta: float, dim: int, device: Any) -> Tensor:
    """1 / theta^(2i / dim), (dim / 2,), fp64, as ComfyUI makes them."""
    return 1.0 / theta ** torch.linspace(
        0, (dim - 2) / dim, steps=dim // 2, dtype=torch.float64, device=device
    )


def by_rule(policy: Policy, theta: float, dim: int, sigma: Tensor) -> Tensor:
    """omega_i of a spatial axis, (dim / 2,), fp64, by NTK, YaRN, or DyPE over both, at a noise level in (0, 1]."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=sigma.device) / dim
    strength = sigma.double() ** 2 if policy.needs_sigma else torch.ones_like(sigma, dtype=torch.float64)
    factor = policy.scale ** (dim / (dim - 2))
    if policy.rope == "ntk":
        return (theta * factor) ** -exponents
    if policy.rope == "dype_ntk":
        return (theta * factor ** (2 * strength)) ** -exponents
    return yarn(exponents, dim, theta, factor, strength, policy)


def yarn(
    exponents: Tensor, dim: int, theta: float, factor: float, strength: Tensor, policy: Policy
) -> Tensor:
    """Native where omega turns often within the native grid, omega / scale where it hardly turns, NTK between."""
    omega, by_ntk, index = theta**-exponents, (theta * factor) ** -exponents, exponents * dim / 2

    def ramp(turns_from: float, turns_to: float) -> Tensor:
        first, last = (
            dim * torch.log(policy.native_grid / (2 * math.pi * turns * strength)) / (2 * math.log(theta))
            for turns in (turns_from, turns_to)
        )
        first, last = first.floor().clamp(min=0), last.ceil()
        return 1 - ((index - first) / (last - first).clamp(min=1e-3)).clamp(0, 1)

    is_ntk, is_native = ramp(1.25, 0.75), ramp(16, 2)
    lowered = omega / policy.scale * (1 - is_ntk) + by_ntk * is_ntk
    return lowered * (1 - is_native) + omega * is_native


def exact_ids(ids: Tensor, call: Call, family: Family) -> Tensor:
    """The positions of the call in fp32.

    ComfyUI 0.3 makes FLUX.1's ids in the type of the latents, and every version rounds Qwen-Image's to it; bf16 holds
    no odd number above 256, so from 4128 px on neighbours share a place. What is no rounding of the positions that the
    model has by itself was made by somebody else, and is refused.
    """
    known = [positions.to(ids.device) for positions in family.positions(call)]
    # A question to the device would break a compiled graph.
    if not torch.compiler.is_compiling():
        eps = torch.finfo(call.dtype if family.rounds else ids.dtype).eps
        if not any(_is_rounding(ids, exact, eps) for exact in known):
            raise ValueError(
                "the positions of the tokens are not those of the latents, so another node changes them: take it out, "
                "or take the URAE policy out"
            )
    # Where there are several, the model rounds none.
    return known[0].expand(ids.shape[0], -1, -1) if len(known) == 1 else ids.float()


def _is_rounding(ids: Tensor, exact: Tensor, eps: float) -> bool:
    # They are rounded before they are counted from the middle. torch.linspace in bf16 may be a step away from the
    # nearest number.
    if ids.shape[1:] != exact.shape:
        return False
    return bool(((ids.float() - exact).abs() <= eps * (exact - exact.amin(dim=0))).all())
