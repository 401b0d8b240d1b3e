"""The policy's part inside the transformer: one object in front of the stock one that makes the rotary tables.

`PolicyEmbedding` takes its place while a policy is on. Tables are positions x frequencies x factor: the family says
what the axes mean, the policy changes frequencies of rows and columns, and proportional attention is a factor. No
attention processor is touched, so every attention backend keeps working.

Why not forward hooks: a transformer that was compiled before the policy is entered would go on without it,
in silence, because torch.compile does not guard on hooks (`torch._dynamo.config.skip_nnmodule_hook_guards`).
It does guard on the type and the attributes of a submodule.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from urae.families.family import Axis, Family, RotaryCall
from urae.families.registry import family_of
from urae.resolution.frequencies import attention_scale, frequencies
from urae.resolution.policy import ResolutionPolicy

__all__ = [
    "PolicyEmbedding",
    "active_policy",
    "embedding_replaced",
    "embedding_stock",
    "forward_replaced",
    "hookable",
    "named_inputs",
    "proportional_factor",
]


@contextmanager
def embedding_replaced(transformer: nn.Module, policy: ResolutionPolicy) -> Iterator[None]:
    """Let `policy` make the position tables of a stock transformer; the object before is back on exit.

    An inner policy replaces an outer one: both start from the stock object.
    """
    called = transformer
    transformer = extract_model_from_parallel(transformer, keep_torch_compile=False)
    family = family_of(transformer)
    is_module = isinstance(_stock(transformer, family), nn.Module)
    kind = _PolicyModule if is_module else PolicyEmbedding
    embedding = kind(family, transformer, policy, num_shards=_num_sequence_shards(transformer))
    with _embedding(transformer, embedding), ExitStack() as stack:
        if policy.needs_sigma or family.rotary.needs_inputs:
            stack.enter_context(_inputs_told(called, embedding))
        yield


@contextmanager
def embedding_stock(transformer: nn.Module) -> Iterator[None]:
    """Let the stock object make the position tables, inside a policy as well."""
    transformer = extract_model_from_parallel(transformer, keep_torch_compile=False)
    with _embedding(transformer, _stock(transformer, family_of(transformer))):
        yield


def active_policy(pipe: Any) -> ResolutionPolicy | None:
    """The policy that `pipe` runs under at this moment."""
    embedding = getattr(pipe.transformer, family_of(pipe).rotary.attribute)
    return embedding.policy if isinstance(embedding, PolicyEmbedding) else None


class PolicyEmbedding:
    """What the stock object returns for the same call, under a resolution policy.

    `stock` is never modified. With `num_shards` > 1 each call sees that share of the tokens only.
    """

    sigma: Tensor | None = None
    """Noise level of the call, a scalar; only where the policy's tables depend on it."""
    told: Any = None
    """What the family needs to know about the transformer's inputs; only where it does."""

    def __init__(
        self, family: Family, transformer: Any, policy: ResolutionPolicy, *, num_shards: int = 1
    ) -> None:
        self.stock: Any = _stock(transformer, family)
        self.rotary = family.rotary
        self.axes = family.rotary.axes(transformer)
        self.policy = policy
        self.num_shards = num_shards

    def forward(self, *inputs: Any, **named: Any) -> Any:
        assert self.told is not None or not self.rotary.needs_inputs, "called apart from its transformer"
        call = self.rotary.call(*inputs, told=self.told, **named)
        positions = self._positions(call)
        angles = [self._angles(call, positions[:, place], axis) for place, axis in enumerate(self.axes)]
        return self.rotary.tables(torch.cat(angles, dim=1), self._factors(call), call)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.forward(*inputs, **named)

    def _positions(self, call: RotaryCall) -> Tensor:
        """(tokens, axes), fp32; text that moves with the size of the image stands where it would at the native one."""
        policy = self.policy
        positions = self.rotary.restored(call.positions) if policy.exact_ids else call.positions.float()
        scale = policy.scale if policy.rope_scale == 1 or policy.scale > 1 else call.scale
        if call.is_image is None or call.text_offset == 0 or scale == 1:
            return positions
        moved = positions - call.text_offset * (1 - 1 / scale)
        return torch.where(call.is_image[:, None], positions, moved)

    def _angles(self, call: RotaryCall, positions: Tensor, axis: Axis) -> Tensor:
        """(tokens, channels / 2) of one axis: position x frequency, fp64 where the device has it."""
        angles = self._by_policy(positions, axis)
        if call.is_image is None or axis.role == "other":
            return angles
        stock = self.rotary.frequencies(axis, theta_scale=1.0, device=positions.device)
        return torch.where(call.is_image[:, None], angles, positions[:, None].to(stock.dtype) * stock)

    def _by_policy(self, positions: Tensor, axis: Axis) -> Tensor:
        """The same, were all tokens the image's."""
        policy, device = self.policy, positions.device
        if axis.role == "other" or policy.rope == "theta":
            theta_scale = 1.0 if axis.role == "other" else policy.rope_scale
            omega = self.rotary.frequencies(axis, theta_scale=theta_scale, device=device)
        else:
            omega = self._by_rule(axis, device)
        if axis.role == "other" or not (policy.linear or policy.rope_clip):
            return positions[:, None].to(omega.dtype) * omega
        interpolated = (positions / policy.scale)[:, None].to(omega.dtype)
        if policy.linear:
            return interpolated * omega
        # omega_i = max((theta k)^(-s), theta^(-s) / scale), s = 2i / d (I-Max).
        stock = self.rotary.frequencies(axis, theta_scale=1.0, device=device)
        exponents = torch.arange(0, axis.channels, 2, device=device) / axis.channels
        too_low = policy.rope_scale**-exponents < 1 / policy.scale
        return torch.where(too_low, interpolated * stock, positions[:, None].to(omega.dtype) * omega)

    def _by_rule(self, axis: Axis, device: torch.device) -> Tensor:
        assert self.sigma is not None or not self.policy.needs_sigma, "called apart from its transformer"
        sigma = torch.ones((), device=device) if self.sigma is None else self.sigma.to(device)
        return frequencies(
            self.policy.rope,
            theta=axis.theta,
            dim=axis.channels,
            scale=self.policy.scale,
            native=self.policy.native_grid,
            sigma=sigma,
        )

    def _factors(self, call: RotaryCall) -> Tensor | float:
        """What the tables are multiplied by: a number, or (1 or tokens, pairs of channels)."""
        policy, device = self.policy, call.positions.device
        if policy.rope in ("yarn", "dype"):  # which take the place of proportional attention
            scale = attention_scale(policy.rope, policy.scale)
            of_each = [(1.0 if axis.role == "other" else scale, axis.channels // 2) for axis in self.axes]
            return torch.cat([torch.full((1, num), factor, device=device) for factor, num in of_each], dim=1)
        if not policy.proportional:
            return 1.0
        # A family that is told about the transformer's inputs counts tokens before they are shared out.
        shards = 1 if self.rotary.needs_inputs else self.num_shards
        return proportional_factor(call.num_tokens * shards, policy.native_tokens)


class _PolicyModule(nn.Module, PolicyEmbedding):
    """The same in the place of a module. Of an object that is no module it would be in the way: a transformer that has
    had a module under a name takes nothing else there."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        nn.Module.__init__(self)
        PolicyEmbedding.__init__(self, *args, **settings)

    forward = PolicyEmbedding.forward


def proportional_factor(tokens: int | Tensor, native_tokens: int) -> float | Tensor:
    """Factor on cos and on sin that scales the logits by sqrt(log_native(tokens)); (n, 1) for tokens (n,).

    Queries and keys both carry it, so it is the fourth root (FLUX.1-dev* in the paper's Table 1).
    """
    if isinstance(tokens, Tensor):
        return (tokens[:, None].log() / math.log(native_tokens)) ** 0.25
    return math.log(tokens, native_tokens) ** 0.25


@contextmanager
def _embedding(transformer: nn.Module, embedding: Any) -> Iterator[None]:
    attribute = family_of(transformer).rotary.attribute
    before: Any = getattr(transformer, attribute)
    setattr(transformer, attribute, embedding)
    try:
        yield
    finally:
        setattr(transformer, attribute, before)


def hookable(transformer: nn.Module, what: str) -> nn.Module:
    """Return the transformer if a forward hook on it will be obeyed; `what` needs one.

    torch.compile does not guard on hooks, so a module that was compiled in place would go on without them.
    """
    if getattr(transformer, "_compiled_call_impl", None) is not None:
        raise ValueError(
            f"{what} needs a hook, which a transformer compiled in place ignores: "
            "use torch.compile(transformer) instead of transformer.compile()"
        )
    return transformer


def named_inputs(transformer: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a transformer's call, all by name: some stock pipelines give them by their place."""
    if not inputs:
        return dict(named)
    kind = type(extract_model_from_parallel(transformer, keep_torch_compile=False))
    names = [*inspect.signature(kind.forward).parameters][1 : 1 + len(inputs)]
    return {**dict(zip(names, inputs, strict=True)), **named}


@contextmanager
def forward_replaced(
    transformer: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]], *, what: str
) -> Iterator[None]:
    """Call `wrap(forward)` in place of a module's forward, with inputs by name alone; undone on exit.

    Forward hooks see the calls of the outer one. Offloaded and compiled modules, whose forward is not their class's,
    get theirs back. Raises ValueError for a module that was compiled in place, which would ignore it; `what` needs it.
    """
    hookable(transformer, what)
    own, wrapped = vars(transformer).get("forward"), wrap(transformer.forward)

    def replaced(*inputs: Any, **named: Any) -> Any:
        return wrapped(**named_inputs(transformer, inputs, named))

    transformer.forward = replaced
    try:
        yield
    finally:
        if own is None:
            del transformer.forward
        else:
            transformer.forward = own


def _inputs_told(called: nn.Module, embedding: PolicyEmbedding) -> AbstractContextManager[None]:
    """Tell the embedding about the inputs of each call of the transformer: those that it gets in the end, when windows
    are cut and text is repeated."""
    family = family_of(called)

    def telling(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(**inputs: Any) -> Any:
            embedding.told = family.rotary.told(inputs)
            if embedding.policy.needs_sigma:
                embedding.sigma = _one_sigma(family.calls.sigma(inputs), embedding.policy)
            return forward(**inputs)

        return call

    what = "dype" if embedding.policy.needs_sigma else f"a policy on {family.name}"
    return forward_replaced(called, telling, what=what)


def _one_sigma(sigma: Tensor, policy: ResolutionPolicy) -> Tensor:
    """The noise level (B,) of a batch, a scalar."""
    if (sigma != sigma[0]).any():
        raise ValueError(
            f"rope {policy.rope!r} needs one noise level for the whole batch, whose images share "
            "their position tables: give images of other noise levels in calls of their own"
        )
    return sigma[0].float()


def _stock(transformer: Any, family: Family) -> Any:
    embedding = getattr(transformer, family.rotary.attribute)
    return embedding.stock if isinstance(embedding, PolicyEmbedding) else embedding


def _num_sequence_shards(transformer: Any) -> int:
    """Ranks that share one sequence under diffusers' context parallelism; each sees its part of the ids."""
    parallel = getattr(transformer, "_parallel_config", None)
    context = getattr(parallel, "context_parallel_config", None)
    return 1 if context is None else (context.ring_degree or 1) * (context.ulysses_degree or 1)
