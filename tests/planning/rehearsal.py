"""A training step on fake tensors: nothing is computed or allocated, every operation and byte is counted.

Two things that CUDA does otherwise than a CPU are imitated, since both decide what a block keeps: its autocast
computes norms in fp32, and its RMS norm is one kernel that keeps its input alone.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from urae.adapters import Lora, attach
from urae.adapters.injection import inject
from urae.adapters.targets import linear_layers, resolved, select
from urae.execution import HostCheckpointing, gradient_checkpointing
from urae.execution.carrier import Carrier, Copy
from urae.execution.choices import Checkpointing

aten = torch.ops.aten
ATTENTION_FLOPS = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)
    ),
}
"""The CPU's kernel, which FlopCounterMode does not know."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What is rehearsed: a FLUX of this configuration with a low-rank adapter."""

    config: dict
    targets: tuple[str, ...]
    rank: int
    size: int
    text_tokens: int
    bf16: bool = True
    batch: int = 1


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Beyond the model, its adapter and the inputs."""

    kept: int
    """Alive after the forward pass."""
    saved: int
    """Saved by autograd in the forward pass, each storage once."""
    peak: int
    """Alive at most, in the whole step."""


def count_flops(what: Architecture, mode: Checkpointing) -> tuple[int, int]:
    """Operations of the forward pass, and of the whole step."""
    with ExitStack() as stack:
        transformer, inputs = _ready(what, mode, stack)
        flops = stack.enter_context(FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS))
        predicted = transformer(**inputs, return_dict=False)[0]
        forward = flops.get_total_flops()
        predicted.float().square().mean().backward()
        return forward, flops.get_total_flops()


def count_bytes(what: Architecture, mode: Checkpointing, *, offload: bool = False) -> Bytes:
    """Memory of a step. Not counted together with the operations: FlopCounterMode keeps activations alive."""
    with ExitStack() as stack:
        live = Live()
        transformer, inputs = _ready(
            what, mode, stack, HostCheckpointing(ToNowhere(live)) if offload else None
        )
        for tensor in (*transformer.parameters(), *inputs.values()):
            live.track(tensor)
        before, saved = live.bytes, Saved(live.sizes)
        stack.enter_context(live)
        with saved_tensors_hooks(saved.pack, lambda packed: packed):
            predicted = transformer(**inputs, return_dict=False)[0]
        kept = live.bytes - before
        predicted.float().square().mean().backward()
        return Bytes(kept=kept, saved=saved.bytes, peak=live.peak - before)


def saved_by_compiled_blocks(what: Architecture) -> int:
    """Bytes that autograd saves in a forward pass whose blocks torch's compiler has divided into forward and backward;
    on real tensors, since the compiler takes no fake ones, so for a small architecture only."""
    with torch.random.fork_rng():
        transformer = FluxTransformer2DModel(**what.config).to(torch.bfloat16).requires_grad_(False)
        attach(transformer, Lora(rank=what.rank, targets=what.targets))
        inputs = _inputs(transformer, (what.size // 16) ** 2, what.text_tokens, what.batch, torch.bfloat16)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.compile(backend="aot_eager_decomp_partition")  # all but the code of the kernels
    before = {tensor.untyped_storage()._cdata: 0 for tensor in (*transformer.parameters(), *inputs.values())}
    saved = Saved(before)
    with saved_tensors_hooks(saved.pack, lambda packed: packed), torch.autocast("cpu", torch.bfloat16):
        transformer(**inputs, return_dict=False)
    return saved.bytes


def _ready(
    what: Architecture, mode: Checkpointing, stack: ExitStack, offload: HostCheckpointing | None = None
):
    """The transformer and its inputs, in a world where nothing is computed."""
    fake, dtype = FakeTensorMode(), torch.bfloat16 if what.bf16 else torch.float32
    transformer = _adapted(what.config, fake, what.targets, what.rank, dtype)
    compute_norms_like_cuda(transformer, fp32=what.bf16)
    stack.enter_context(fake)
    stack.enter_context(gradient_checkpointing(transformer, mode, offload=offload))
    stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16, enabled=what.bf16))
    return transformer, _inputs(transformer, (what.size // 16) ** 2, what.text_tokens, what.batch, dtype)


def _adapted(config: dict, fake: FakeTensorMode, targets, rank: int, dtype: torch.dtype):
    with fake:
        torch.set_default_dtype(dtype)
        try:
            transformer = FluxTransformer2DModel(**config)
        finally:
            torch.set_default_dtype(torch.float32)
        layers = linear_layers(transformer)
        factors = {
            name: (torch.empty(rank, layers[name].in_features), torch.empty(layers[name].out_features, rank))
            for name in select(layers, resolved(Lora(targets=targets), transformer).targets)
        }
    injection = inject(transformer, factors)  # outside of the mode: peft makes its layers on the meta device
    transformer.requires_grad_(False)
    for layer in injection.layers.values():
        for factor in (layer.lora_A, layer.lora_B):
            factor[injection.name].weight.requires_grad_(True)
    return transformer


def _inputs(transformer, image_tokens: int, text_tokens: int, batch: int, dtype) -> dict[str, Tensor]:
    config = transformer.config
    guidance = {"guidance": torch.ones(batch)} if config.guidance_embeds else {}
    return {
        "hidden_states": torch.empty(batch, image_tokens, config.in_channels, dtype=dtype),
        "encoder_hidden_states": torch.empty(batch, text_tokens, config.joint_attention_dim, dtype=dtype),
        "pooled_projections": torch.empty(batch, config.pooled_projection_dim, dtype=dtype),
        "timestep": torch.empty(batch),
        "img_ids": torch.zeros(image_tokens, 3),
        "txt_ids": torch.zeros(text_tokens, 3),
        **guidance,
    }


class Live(TorchDispatchMode):
    """Bytes alive, by storage, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak = 0, 0
        self.sizes: dict[int, int] = {}

    def track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._free, storage._cdata)

    def forget(self, tensor: Tensor) -> None:
        key = tensor.untyped_storage()._cdata
        self.bytes, self.sizes[key] = self.bytes - self.sizes[key], 0

    def _free(self, key: int) -> None:
        self.bytes -= self.sizes.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self.track(tensor)
        return result


class ToNowhere(Carrier):
    """Copies to the host that do not count."""

    def __init__(self, live: Live) -> None:
        super().__init__(torch.device("cpu"))
        self.live = live

    def to_host(self, tensor: Tensor) -> Copy:
        copy = super().to_host(tensor)
        self.live.forget(copy.target)
        return copy


class Saved:
    """Storages that autograd saves, without those that were there before."""

    def __init__(self, before: dict[int, int]) -> None:
        self.before, self.sizes = frozenset(before), {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.before:
            self.sizes[storage._cdata] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def compute_norms_like_cuda(transformer: nn.Module, fp32: bool) -> None:
    """In one kernel, and under autocast in fp32."""
    for module in transformer.modules():
        if isinstance(module, nn.RMSNorm):
            module.forward = partial(_rms_norm, weight=module.weight, fp32=fp32)
        if isinstance(module, nn.LayerNorm) and fp32:
            module.forward = partial(_layer_norm, shape=module.normalized_shape)


def _rms_norm(x: Tensor, *, weight: Tensor, fp32: bool) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return FusedRms.apply(x.float() if fp32 else x, weight)


def _layer_norm(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return nn.functional.layer_norm(x.float(), shape)


class FusedRms(torch.autograd.Function):
    """Keeps its input, the weight, and a number a row."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(*x.shape[:-1], 1))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, _, _ = ctx.saved_tensors
        return torch.empty_like(x), None
