"""The matrices inside a transformer's blocks, frozen, in one byte a weight or little more than half of one.

    fp8            8 bits: e4m3, a scale for each row
    fp8_dynamic    the same, and tokens are rounded to e4m3 too, with a scale for each
    int8           8.25 bits: a scale for each 64 weights
    nf4            4.25 bits: the 16 levels of QLoRA's NF4 (Dettmers et al., 2023), a scale for each 64 weights

A matrix is restored to the type that is computed in just before it is multiplied with, and dropped after it; the
backward pass restores it again. So autograd keeps no whole matrix, which is why this is written here: torchao's
weight-only layers (0.18) save the restored matrix for the backward pass, and bitsandbytes (0.50) has no fp8 and rounds
activations too in its int8. Activations are not rounded, so this saves memory and no time, but for fp8_dynamic: it
multiplies tokens in fp8, forward and backward, at up to twice the rate of bf16 on GPUs that can.

Scales are bf16 numbers and values are rounded against them, so restoring in fp32 adds no error of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import ScalingType, scaled_mm

from urae.adapters.base import base_remembered
from urae.adapters.targets import linear_layers, transformer_of
from urae.execution.choices import Format
from urae.execution.modules import named_blocks, weight_bytes

__all__ = [
    "QuantisedLinear",
    "check_can_multiply",
    "quantised",
    "quantised_bytes",
    "stored_as",
]


@contextmanager
def quantised(target: Any, kind: Format, *, device: torch.device | str | None = None) -> Iterator[None]:
    """Hold every matrix inside the blocks of a stock transformer (or of a pipeline's), those of modulation among them,
    in this format for the duration of a with statement. Embeddings, the output layer, biases and norms stay as they
    are.

    Meant for frozen weights: gradients reach the inputs, never the matrices. Adapters may be attached before or
    inside, for the model that it was before; those that are decompositions of the weights must come before, to see them
    unrounded. `device` is where the quantised matrices go, one at a time, by default where they are; everything else
    stays where it is. The originals wait in the host's memory and are back in their places on exit, to the bit.

    Raises ValueError for an unknown format, for a matrix that is quantised already or not there (quantise before
    sequential offloading), for one whose weights do not divide into blocks of 64 (int8, nf4) or whose sides are no
    multiples of 16 (fp8_dynamic), and for fp8_dynamic on a device that cannot multiply in it.
    """
    transformer = transformer_of(target)
    _check_format(kind)
    places = _places(transformer)
    for name, place in places.items():
        _check_plain(name, place.dense, kind)
        check_can_multiply(kind, torch.device(device or place.dense.weight.device))
    with ExitStack() as undo:
        undo.enter_context(base_remembered(transformer))
        for place in places.values():
            undo.callback(place.restore, place.dense.weight.device)
            place.put(QuantisedLinear(place.dense, kind, device=device))
            place.dense.weight.data = place.dense.weight.data.cpu()
        yield


class QuantisedLinear(nn.Linear):
    """A linear layer with a frozen, quantised weight, made from a dense one, whose bias it shares."""

    def __init__(self, dense: nn.Linear, kind: Format, *, device: torch.device | str | None = None) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a dense weight
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.kind, self.loaded_as = kind, dense.weight.dtype
        self.bias = dense.bias
        values, scales = _quantise(dense.weight.detach().to(device), FORMATS[kind])
        # Integers, whatever they stand for: a later `.to(dtype)` casts what is floating.
        self.values = nn.Parameter(values, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The restored matrix (out, in) in the type of the original; made anew at each look."""
        return self.restored(self.loaded_as)

    def restored(self, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in) in a floating type."""
        blocks = FORMATS[self.kind].restored(self.values, dtype)
        return blocks.mul_(self.scales.to(dtype)).view(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out), in autocast's type where it is on, otherwise in the input's."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        # The vector that modulates a whole sample costs nothing to multiply, and its error would be in every token.
        product = _Fp8Product if self.kind == "fp8_dynamic" and input.ndim > 2 else _Product
        return product.apply(input.to(dtype), self)


def stored_as(target: Any) -> str:
    """The format of a transformer's matrices, "as_loaded" outside of `quantised`."""
    layers = (layer for layer in transformer_of(target).modules() if isinstance(layer, QuantisedLinear))
    return next((layer.kind for layer in layers), "as_loaded")


def check_can_multiply(kind: str, device: torch.device) -> None:
    """Raise a ValueError if the device that is to multiply with such matrices, wherever they are kept, cannot.

    Only fp8_dynamic asks something of it: that it be a CPU, or a GPU of compute capability 8.9 or above.
    """
    if kind != "fp8_dynamic" or device.type == "cpu":
        return
    if device.type != "cuda":
        raise ValueError(
            f"fp8_dynamic multiplies in fp8 on CUDA GPUs and on CPUs, not on {device.type}: choose fp8"
        )
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < (8, 9):
        raise ValueError(
            f"fp8_dynamic needs a GPU that multiplies in fp8, compute capability 8.9 or above; this one has "
            f"{major}.{minor}: choose fp8"
        )


def quantised_bytes(transformer: nn.Module, kind: Format) -> int:
    """Bytes of a transformer's parameters and buffers under `quantised`; it may be on the meta device."""
    weights = [place.dense.weight for place in _places(transformer).values()]
    return weight_bytes(transformer) + sum(
        FORMATS[kind].num_bytes(weight) - weight.nbytes for weight in weights
    )


class _Product(torch.autograd.Function):
    """X W^T + b, of which only the layer is kept: what it holds when the gradient comes is restored again."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(inputs.dtype)
        return functional.linear(inputs, layer.restored(inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.restored(gradient.dtype), None


class _Fp8Product(torch.autograd.Function):
    """The same in e4m3, rows of the inputs rounded against a scale each; bf16 out, as no GPU gives more."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        rows, scales = _in_e4m3(inputs)
        product = scaled_mm(
            rows,
            layer.values.view(torch.float8_e4m3fn).t(),
            scale_a=scales,
            scale_recipe_a=ScalingType.RowWise,
            scale_b=layer.scales.float().t(),
            scale_recipe_b=ScalingType.RowWise,
            bias=None if layer.bias is None else layer.bias.bfloat16(),
            output_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return product.to(inputs.dtype).unflatten(0, inputs.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        # The sum goes over the matrix's rows, whose scales therefore belong to the gradient.
        rows, scales = _in_e4m3(gradient * ctx.layer.scales.float().t())
        one = scales.new_ones(1)
        # Exact sums, for which scales by row have no fast kernel; and GPUs want columns side by side.
        product = scaled_mm(
            rows,
            ctx.layer.values.view(torch.float8_e4m3fn).t().contiguous().t(),
            scale_a=one,
            scale_recipe_a=ScalingType.TensorWise,
            scale_b=one,
            scale_recipe_b=ScalingType.TensorWise,
            output_dtype=torch.bfloat16,
        )
        return (product * scales).to(gradient.dtype).unflatten(0, gradient.shape[:-1]), None


def _in_e4m3(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(..., width) -> rows (num, width), whose largest magnitudes are e4m3's largest, and their scales (num, 1)."""
    rows = inputs.flatten(0, -2).float()
    largest = torch.finfo(torch.float8_e4m3fn).max
    scales = (rows.abs().amax(dim=1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows / scales).clamp(-largest, largest).to(torch.float8_e4m3fn), scales


# --- formats -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Format:
    """Weights share a scale in blocks; a block's largest magnitude becomes `largest`."""

    block: int
    """Weights in a block; 0 for those of a row."""
    bits: int
    """Of a weight, without its share of the scale."""
    multiple: int = 1
    """What both sides of a matrix must be a multiple of."""
    largest: float
    stored: Callable[[Tensor], Tensor]
    """Blocks (num, weights) in [-largest, largest], fp32 -> integers."""
    restored: Callable[[Tensor, torch.dtype], Tensor]
    """The inverse: a new tensor."""

    def num_bytes(self, weight: Tensor) -> int:
        num_scales = weight.numel() // (self.block or weight.shape[1])
        return weight.numel() * self.bits // 8 + num_scales * torch.bfloat16.itemsize


def _quantise(weight: Tensor, how: _Format) -> tuple[Tensor, Tensor]:
    """Values, and scales (blocks, 1) in bf16."""
    blocks = weight.float().reshape(-1, how.block or weight.shape[1])
    smallest = torch.finfo(torch.bfloat16).tiny  # a block of zeros has a scale too
    scales = (blocks.abs().amax(dim=1, keepdim=True) / how.largest).clamp(min=smallest).bfloat16()
    # The scale was rounded, so that the largest may now lie a little beyond.
    return how.stored((blocks / scales.float()).clamp(-how.largest, how.largest)), scales


def _stored_fp8(blocks: Tensor) -> Tensor:
    return blocks.to(torch.float8_e4m3fn).view(torch.uint8)


def _restored_fp8(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.view(torch.float8_e4m3fn).to(dtype)


def _stored_int8(blocks: Tensor) -> Tensor:
    return blocks.round().to(torch.int8)


def _restored_int8(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype)


def _stored_nf4(blocks: Tensor) -> Tensor:
    levels = _levels().to(blocks.device)
    nearest = torch.bucketize(blocks, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    return nearest[:, 0::2] * 16 + nearest[:, 1::2]


def _restored_nf4(values: Tensor, dtype: torch.dtype) -> Tensor:
    pairs = torch.index_select(_pairs(values.device, dtype), 0, values.flatten().int())
    return pairs.view(dtype).view(len(values), -1)


@functools.cache
def _pairs(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(256,): the two levels that a byte stands for, seen as one integer, which makes looking them up fast. Kept,
    because to send it each time would make a GPU wait for the host."""
    levels = _levels().to(device, dtype)
    byte = torch.arange(256, device=device)
    pairs = torch.stack([levels[byte // 16], levels[byte % 16]], dim=1)
    return pairs.view({2: torch.int32, 4: torch.int64}[dtype.itemsize]).flatten()


def _levels() -> Tensor:
    """NF4's levels, ascending: quantiles of the standard normal distribution, 0 among them, scaled to [-1, 1]."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    below, above = (
        torch.special.ndtri(torch.linspace(0.5, outermost, num, dtype=torch.float64)) for num in (8, 9)
    )
    return torch.cat([-below[1:].flip(0), above]).div(above[-1]).float()


_FP8 = _Format(block=0, bits=8, largest=448, stored=_stored_fp8, restored=_restored_fp8)
FORMATS: dict[str, _Format] = {
    "fp8": _FP8,
    "fp8_dynamic": replace(_FP8, multiple=16),
    "int8": _Format(block=64, bits=8, largest=127, stored=_stored_int8, restored=_restored_int8),
    "nf4": _Format(block=64, bits=4, largest=1, stored=_stored_nf4, restored=_restored_nf4),
}


# --- where the matrices are ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A linear layer inside a block, and the module that holds it."""

    dense: nn.Linear
    parent: nn.Module
    attribute: str

    def put(self, layer: nn.Linear) -> None:
        setattr(self.parent, self.attribute, layer)

    def restore(self, device: torch.device) -> None:
        self.dense.weight.data = self.dense.weight.data.to(device)
        self.put(self.dense)


def _places(transformer: nn.Module) -> dict[str, _Place]:
    blocks = tuple(f"{name}." for name in named_blocks(transformer))
    if not blocks:
        raise ValueError(
            f"{type(transformer).__name__} does not say which of its parts are blocks: its weights cannot be quantised"
        )
    layers = linear_layers(transformer)
    return {name: _place(transformer, name, layers[name]) for name in layers if name.startswith(blocks)}


def _place(transformer: nn.Module, name: str, layer: Any) -> _Place:
    if isinstance(layer, LoraLayer):
        return _Place(dense=layer.base_layer, parent=layer, attribute="base_layer")
    parent, _, attribute = name.rpartition(".")
    return _Place(dense=layer, parent=transformer.get_submodule(parent), attribute=attribute)


def _check_format(kind: str) -> None:
    if kind not in FORMATS:
        raise ValueError(
            f"weights cannot be stored as {kind!r}: expected one of {', '.join(get_args(Format))}"
        )


def _check_plain(name: str, layer: nn.Linear, kind: Format) -> None:
    if type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter:
        raise ValueError(
            f"{name} is a {type(layer).__name__} that holds a {type(layer.weight).__name__}, expected a plain linear "
            "layer: load the model without quantisation"
        )
    if layer.weight.is_meta:
        raise ValueError(f"{name} has no weights yet: quantise before enable_sequential_cpu_offload()")
    if layer.weight.numel() % (FORMATS[kind].block or 1):
        raise ValueError(
            f"{name} is {layer.out_features} x {layer.in_features}, which {kind} cannot store in blocks of "
            f"{FORMATS[kind].block} weights: choose fp8"
        )
    if any(side % FORMATS[kind].multiple for side in layer.weight.shape):
        raise ValueError(
            f"{name} is {layer.out_features} x {layer.in_features}, which {kind} cannot multiply with: it takes "
            f"multiples of {FORMATS[kind].multiple}: choose fp8"
        )
