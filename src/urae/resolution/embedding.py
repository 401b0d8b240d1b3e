"""The policy's part inside the transformer: one module in front of the stock position embedding.

`PolicyEmbedding` takes the place of `transformer.pos_embed` while a policy is on. It computes the cos and sin
tables by the stock module itself, on exact or interpolated position ids, picks between two tables where
frequencies are clipped, and scales both for proportional attention. No attention processor is touched, so
every attention backend keeps working.

Why not forward hooks: a transformer that was compiled before the policy is entered would go on without it,
in silence, because torch.compile does not guard on hooks (`torch._dynamo.config.skip_nnmodule_hook_guards`).
It does guard on the type and the attributes of a submodule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from urae.resolution.frequencies import Rope, attention_scale, frequencies, rotary_tables

if TYPE_CHECKING:
    from urae.resolution.policy import ResolutionPolicy

__all__ = ["PolicyEmbedding", "embedding_replaced", "embedding_stock", "exact_grid_ids", "hookable"]


@contextmanager
def embedding_replaced(transformer: nn.Module, policy: ResolutionPolicy) -> Iterator[None]:
    """Let `policy` make the position tables of a stock transformer; the module before is back on exit.

    An inner policy replaces an outer one: both start from the stock module.
    """
    called = transformer
    transformer = extract_model_from_parallel(transformer, keep_torch_compile=False)
    stock = _stock_embedding(transformer)
    embedding = PolicyEmbedding(stock, policy, num_shards=_num_sequence_shards(transformer))
    with _embedding(transformer, embedding), ExitStack() as stack:
        if policy.rope.startswith("dype"):
            stack.enter_context(_sigma_told(called, embedding))
        yield


@contextmanager
def embedding_stock(transformer: nn.Module) -> Iterator[None]:
    """Let the stock module make the position tables, inside a policy as well."""
    transformer = extract_model_from_parallel(transformer, keep_torch_compile=False)
    with _embedding(transformer, _stock_embedding(transformer)):
        yield


class PolicyEmbedding(nn.Module):
    """Position ids (tokens, axes) -> cos and sin, each (tokens, sum of axes_dim), under a resolution policy.

    `stock` is never modified. With `num_shards` > 1 each call sees that share of the tokens only.
    """

    def __init__(self, stock: Any, policy: ResolutionPolicy, *, num_shards: int = 1) -> None:
        super().__init__()
        self.stock: Any = stock
        self.scaled: Any = type(stock)(stock.theta * policy.rope_scale, stock.axes_dim)
        self.policy = policy
        self.num_shards = num_shards
        self.sigma: Tensor | None = None
        """Noise level of the call, a scalar; only where the policy's tables depend on it."""

    @property
    def theta(self) -> float:
        """The base of the rotary frequencies in effect."""
        return self.scaled.theta

    @property
    def axes_dim(self) -> tuple[int, ...]:
        return self.stock.axes_dim

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        ids = exact_grid_ids(ids) if self.policy.exact_ids else ids.float()
        cos, sin = self._by_theta(ids) if self.policy.rope == "theta" else self._by_rule(ids)
        if self.policy.proportional:
            factor = proportional_factor(ids.shape[0] * self.num_shards, self.policy.native_tokens)
            cos, sin = cos * factor, sin * factor
        return cos, sin

    def _by_theta(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.scaled(interpolated(ids, self.policy.scale) if self.policy.linear else ids)
        return self._clipped(ids, cos, sin) if self.policy.rope_clip else (cos, sin)

    def _by_rule(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        rope, scale = self.policy.rope, self.policy.scale
        assert self.sigma is not None or not rope.startswith("dype"), "called apart from its transformer"
        sigma = torch.ones((), device=ids.device) if self.sigma is None else self.sigma.to(ids.device)
        rules: list[Rope] = ["ntk", *[rope] * (len(self.axes_dim) - 1)]
        # Axis 0 is no place in the image: at scale 1 the NTK rule leaves it as it is.
        scales = [1.0, *[scale] * (len(self.axes_dim) - 1)]
        omegas = [
            frequencies(
                rule,
                theta=self.stock.theta,
                dim=dim,
                scale=its_scale,
                native=self.policy.native_grid,
                sigma=sigma,
            )
            for rule, dim, its_scale in zip(rules, self.axes_dim, scales, strict=True)
        ]
        factor = torch.ones(sum(self.axes_dim), device=ids.device)
        factor[self.axes_dim[0] :] = attention_scale(rope, scale)
        cos, sin = rotary_tables(ids, omegas)
        return cos * factor, sin * factor

    def _clipped(self, ids: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """omega_i = max((theta k)^(-s), theta^(-s) / scale), s = 2i / d (I-Max)."""
        exponents = torch.cat([torch.arange(0, dim, 2, device=ids.device) / dim for dim in self.axes_dim])
        too_low = self.policy.rope_scale**-exponents < 1 / self.policy.scale
        too_low = too_low.repeat_interleave(2)
        low_cos, low_sin = self.stock(interpolated(ids, self.policy.scale))
        return torch.where(too_low, low_cos, cos), torch.where(too_low, low_sin, sin)


def proportional_factor(tokens: int, native_tokens: int) -> float:
    """Factor on cos and on sin that scales the logits by sqrt(log_native(tokens)).

    Queries and keys both carry it, so it is the fourth root (FLUX.1-dev* in the paper's Table 1).
    """
    return math.log(tokens, native_tokens) ** 0.25


def interpolated(ids: Tensor, scale: float) -> Tensor:
    """Position ids with the two image axes divided by `scale`; axis 0 is no place in the image."""
    return torch.cat([ids[:, :1], ids[:, 1:] / scale], dim=1)


def exact_grid_ids(ids: Tensor) -> Tensor:
    """Undo the rounding of image positions to bf16: (tokens, 3) text ids, zeros, then a grid -> fp32.

    bf16 holds no odd number above 256, so from 4128 px on neighbours share a position. The grid comes back
    from its row structure: column 0 is exact and starts each row. Ids that are no rounded grid (offset,
    scaled, several grids) are returned as they are, in fp32. Tensor operations only: nothing waits for the
    device, and a compiled graph does not break.
    """
    ids = ids.float()
    columns = ids[:, 2]
    index = torch.arange(len(columns), device=ids.device)
    is_start = columns == 0
    # The image's first token is the last zero before the first column 1; all text tokens are in front of it.
    first = (~is_start).to(torch.int8).argmax() - 1
    row = (torch.cumsum(is_start, dim=0) - 1 - first).clamp(min=0)
    start = torch.where(is_start, index, 0).cummax(dim=0).values
    grid = torch.stack([ids[:, 0], row.float(), (index - start).float()], dim=1)
    is_rounded_grid = (grid.bfloat16().float() == ids).all()
    return torch.where(is_rounded_grid, grid, ids)


@contextmanager
def _embedding(transformer: nn.Module, embedding: nn.Module) -> Iterator[None]:
    before: Any = transformer.pos_embed
    transformer.pos_embed = embedding
    try:
        yield
    finally:
        transformer.pos_embed = before


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


@contextmanager
def _sigma_told(transformer: nn.Module, embedding: PolicyEmbedding) -> Iterator[None]:
    """Tell the embedding the noise level of each call of the transformer."""

    def tell(module: nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
        timestep = settings["timestep"] if "timestep" in settings else arguments[3]
        if (timestep != timestep[0]).any():
            raise ValueError(
                f"rope {embedding.policy.rope!r} needs one noise level for the whole batch, whose images share "
                "their position tables: give images of other noise levels in calls of their own"
            )
        embedding.sigma = timestep[0].float()

    hook = hookable(transformer, "dype").register_forward_pre_hook(tell, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _stock_embedding(transformer: nn.Module) -> Any:
    embedding: Any = getattr(transformer, "pos_embed", None)
    stock = embedding.stock if isinstance(embedding, PolicyEmbedding) else embedding
    if hasattr(stock, "theta") and hasattr(stock, "axes_dim"):
        return stock
    raise ValueError(
        f"{type(transformer).__name__} has no rotary `pos_embed` with `theta` and `axes_dim`: "
        "a resolution policy needs a FLUX.1 transformer, or a pipeline that holds one"
    )


def _num_sequence_shards(transformer: nn.Module) -> int:
    """Ranks that share one sequence under diffusers' context parallelism; each sees its part of the ids."""
    parallel = getattr(transformer, "_parallel_config", None)
    context = getattr(parallel, "context_parallel_config", None)
    return 1 if context is None else (context.ring_degree or 1) * (context.ulysses_degree or 1)
