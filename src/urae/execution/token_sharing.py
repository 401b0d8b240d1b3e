"""Context parallelism: several processes share the tokens of one image, on a stock transformer.

Outside of attention a transformer treats every token by itself, so each process works on a share of the text tokens
and a share of the image tokens. For attention tokens and heads change places: each process gets all tokens for a share
of the heads, and afterwards all heads for its own tokens (Ulysses; Jacobs et al., 2023, arXiv:2309.14509). So every
attention kernel serves as it is, and position ids, position tables and the policy that makes them see the whole
image. Heads of queries stay with the head of keys and values that they share. Neither tokens nor such groups of heads
need to divide evenly; a process has at least one group.

The family names the modules at which this happens, and hooks on these do it: the model stays stock. All exchanges can
be differentiated. With one loss on each process, the sum over processes of a parameter's gradients is the gradient of
the sum of the losses.

diffusers has context parallelism of its own (`enable_parallelism`). Its backward pass needs equal shares, which
pictures of varied shapes do not have; it splits position ids, from a part of which nobody can tell the grid that
exact ids restore; and it cannot be switched off again, nor on without an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd

from urae.execution.modules import is_compiled
from urae.execution.processes import PATIENCE, num_groups, this_process
from urae.families import Exchange, family_of
from urae.families.family import Stream

__all__ = ["TokenSharing", "context_group", "context_parallel"]


class TokenSharing:
    """The processes that share a call's tokens, and the tensors' ways between them.

    Tensors are (B, tokens, features). "All" tokens are in their natural order, those of the text first.
    """

    def __init__(self, group: Any, *, num_heads: int) -> None:
        """num_heads: groups of heads that stay together."""
        self.group = group
        self.num, self.rank = (dist.get_world_size(group), dist.get_rank(group)) if group else (1, 0)
        self.heads = _shares(num_heads, self.num)
        self.tokens: dict[Stream, int] = {}
        self.counts: list[tuple[nn.Module, str, int]] = []
        """Attributes of modules that count heads, and what they count in the whole transformer."""
        self.is_on = False

    @contextmanager
    def switched(self, is_on: bool) -> Iterator[None]:
        """Exchange tensors, or not."""
        before, self.is_on = self.is_on, is_on
        self._count_heads()
        try:
            yield
        finally:
            self.is_on = before
            self._count_heads()

    def paused(self) -> AbstractContextManager[None]:
        """Let this process call the transformer alone."""
        return self.switched(False)

    def _count_heads(self) -> None:
        share = (self.heads[self.rank], sum(self.heads)) if self.is_on else (1, 1)
        for module, name, whole in self.counts:
            setattr(module, name, whole * share[0] // share[1])

    # --- what an Exchange may name ---------------------------------------------------------------------------

    def share(self, x: Tensor, streams: Sequence[Stream]) -> Tensor:
        """This process's tokens, out of all of one stream."""
        (stream,) = streams
        self.tokens[stream] = x.shape[1]
        return x.split(_shares(x.shape[1], self.num), dim=1)[self.rank]

    def gather(self, x: Tensor, streams: Sequence[Stream]) -> Tensor:
        """All tokens of some streams, out of each process's own."""
        rows = x.transpose(0, 1)
        of_each = [list(sizes) for sizes in zip(*self._sizes(streams), strict=True)]
        shapes = [(sum(sizes), *rows.shape[1:]) for sizes in of_each]
        return _in_order(self._exchange([rows] * self.num, shapes), of_each).transpose(0, 1)

    def own_heads(self, x: Tensor, streams: Sequence[Stream]) -> Tensor:
        """This process's heads, out of all, of whatever tokens."""
        return x.unflatten(2, (sum(self.heads), -1)).split(self.heads, dim=2)[self.rank].flatten(2)

    def to_heads(self, x: Tensor, streams: Sequence[Stream], parts: Sequence[int] = (1,)) -> Tensor:
        """All tokens for this process's heads, out of its own tokens for all heads. `parts` are the widths of what lies
        side by side, each with something of all heads."""
        found = self._to_heads(_by_head(x, parts, sum(self.heads)), streams)
        return _by_part(found, parts, self.heads[self.rank])

    def to_tokens(self, x: Tensor, streams: Sequence[Stream], parts: Sequence[int] = (1,)) -> Tensor:
        """All heads for this process's tokens, out of its own heads for all tokens: undoes `to_heads`."""
        found = self._to_tokens(_by_head(x, parts, self.heads[self.rank]), streams)
        return _by_part(found, parts, sum(self.heads))

    # --- how they do it -------------------------------------------------------------------------------------

    def _to_heads(self, x: Tensor, streams: Sequence[Stream]) -> Tensor:
        parts = x.transpose(0, 1).unflatten(2, (sum(self.heads), -1)).split(self.heads, dim=2)
        _, batch, num_heads, width = parts[self.rank].shape
        of_each = [list(sizes) for sizes in zip(*self._sizes(streams), strict=True)]
        received = self._exchange(parts, [(sum(sizes), batch, num_heads * width) for sizes in of_each])
        return _in_order(received, of_each).transpose(0, 1)

    def _to_tokens(self, x: Tensor, streams: Sequence[Stream]) -> Tensor:
        rows, sizes = x.transpose(0, 1), self._sizes(streams)
        pieces = rows.split([size for stream in sizes for size in stream])
        parts = [torch.cat(pieces[rank :: self.num]) for rank in range(self.num)]
        width = rows.shape[2] // self.heads[self.rank]
        received = self._exchange(
            parts, [(*parts[self.rank].shape[:2], heads * width) for heads in self.heads]
        )
        return torch.cat(received, dim=2).transpose(0, 1)

    def _sizes(self, streams: Sequence[Stream]) -> list[list[int]]:
        """Tokens of each process, stream by stream."""
        return [_shares(self.tokens[stream], self.num) for stream in streams]

    def _exchange(self, parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Give one part to each process; returns what each had for this one, in these shapes."""
        given = torch.cat([part.flatten() for part in parts])
        sizes = [math.prod(shape) for shape in shapes]
        received = all_to_all_single_autograd(given, sizes, [part.numel() for part in parts], self.group)
        return [one.view(shape) for one, shape in zip(received.split(sizes), shapes, strict=True)]


def context_group(context_parallel: int) -> Any:
    """The group of that many neighbouring processes which this one belongs to; None for 1, which is no group.

    All processes have to call it, since they make the groups together. Raises ValueError for a number that does not
    divide that of all processes.
    """
    if context_parallel == 1:
        return None
    num_groups(this_process().num_processes, context_parallel)
    return dist.new_subgroups(context_parallel, timeout=PATIENCE)[0]


@contextmanager
def context_parallel(transformer: Any, group: Any) -> Iterator[TokenSharing]:
    """Let the processes of a `context_group` share the tokens of every call of the transformer.

    All processes of the group make the same calls, with the same inputs, and get the same output. Adapters have to be
    attached before, and blocks compiled inside. None for a group changes nothing. Raises ValueError for more processes
    than attention heads, and for a transformer that is compiled already.
    """
    layers = family_of(transformer).layers
    sharing = TokenSharing(group, num_heads=layers.head_groups(transformer))
    if not group:
        yield sharing
        return
    _check(transformer, sharing)
    exchanges = list(layers.exchanges(transformer))
    sharing.counts = [
        (exchange.module, name, getattr(exchange.module, name))
        for exchange in exchanges
        for name in exchange.counts
    ]
    handles = [_hooked(exchange, sharing) for exchange in exchanges if not exchange.counts]
    try:
        with sharing.switched(True):
            yield sharing
    finally:
        for handle in handles:
            handle.remove()


def _hooked(exchange: Exchange, sharing: TokenSharing) -> Any:
    given = (exchange.streams, exchange.parts) if exchange.parts else (exchange.streams,)

    def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not sharing.is_on:
            return None
        change = getattr(sharing, exchange.before)
        if exchange.argument:
            return inputs, named | {exchange.argument: change(named[exchange.argument], *given)}
        return (change(inputs[0], *given), *inputs[1:]), named

    def after(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return getattr(sharing, exchange.after)(output, *given) if sharing.is_on else None

    if exchange.before:
        return exchange.module.register_forward_pre_hook(before, with_kwargs=True)
    return exchange.module.register_forward_hook(after)


def _in_order(parts: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> Tensor:
    """All tokens, stream by stream, out of what each process has, which is cut into streams of these sizes."""
    pieces = [part.split(list(of_part)) for part, of_part in zip(parts, sizes, strict=True)]
    return torch.cat([piece for stream in zip(*pieces, strict=True) for piece in stream])


def _by_head(x: Tensor, parts: Sequence[int], heads: int) -> Tensor:
    """(B, tokens, features), each part by heads -> each head by parts."""
    return torch.cat([part.unflatten(2, (heads, -1)) for part in _split(x, parts)], dim=3).flatten(2)


def _by_part(x: Tensor, parts: Sequence[int], heads: int) -> Tensor:
    """Undoes `_by_head`."""
    return torch.cat([part.flatten(2) for part in _split(x.unflatten(2, (heads, -1)), parts)], dim=2)


def _split(x: Tensor, parts: Sequence[int]) -> Sequence[Tensor]:
    """The last dimension in parts of these relative widths."""
    return x.split([x.shape[-1] * part // sum(parts) for part in parts], dim=-1)


def _shares(num: int, parts: int) -> list[int]:
    """`num` things dealt out as evenly as they can be."""
    return [num // parts + (part < num % parts) for part in range(parts)]


def _check(transformer: Any, sharing: TokenSharing) -> None:
    if sharing.num > sum(sharing.heads):
        raise ValueError(
            f"context_parallel is {sharing.num}: expected at most {sum(sharing.heads)}, the transformer's attention "
            "heads, those of keys and values where they are fewer"
        )
    if is_compiled(transformer):
        raise ValueError(
            f"context_parallel is {sharing.num}, but the transformer is compiled already, and compiled code ignores "
            "hooks: compile its blocks afterwards"
        )
