"""Activations on the host: the same gradients, and the device free of them between forward and backward pass."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from tiny_calls import inputs
from urae.adapters import Lora, Minor, attach
from urae.execution import Carrier, HostCheckpointing, compiled_blocks, gradient_checkpointing
from urae.execution.checkpointing import ATTENTION
from urae.execution.modules import repeated_blocks
from urae.execution.swap import swapped_blocks

CPU = torch.device("cpu")
LEAST = 512
"""Bytes: the text's tokens are more, the embedding of the time is less."""


class Watched(Carrier):
    """Knows which tensors left and came back, and which of them the "device" and the "host" still hold."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.left: list[tuple[int, ...]] = []
        self.on_device, self.on_host, self.back = [], [], []
        self.most_back = 0

    def to_host(self, tensor: Tensor):
        copy = super().to_host(tensor)
        self.left.append(tuple(tensor.shape))
        self.on_device.append(weakref.ref(tensor.untyped_storage()))
        self.on_host.append(weakref.ref(copy.target.untyped_storage()))
        return copy

    def to_device(self, tensor: Tensor):
        copy = super().to_device(tensor)
        self.back.append(weakref.ref(copy.target.untyped_storage()))
        self.most_back = max(self.most_back, len(alive(self.back)))
        return copy


def alive(storages: list[weakref.ref]) -> set[int]:
    return {storage._cdata for storage in (reference() for reference in storages) if storage is not None}


def loss_of(transformer) -> Tensor:
    return transformer(**inputs()).sample.square().mean()


def gradients(transformer, spec, mode, offload) -> list[Tensor]:
    torch.manual_seed(0)
    attached = attach(transformer, spec)
    with gradient_checkpointing(transformer, mode, offload=offload):
        for _ in range(2):
            loss_of(transformer).backward()
    attached.detach()
    return [parameter.grad for parameter in attached.parameters()]


@pytest.mark.parametrize(
    ("mode", "spec"), [("full", Lora(rank=2)), ("attention", Lora(rank=2)), ("attention", Minor(rank=2))]
)
def test_gradients_are_the_same_to_the_bit(transformer, spec, mode):
    carrier = Watched()
    own = gradients(transformer, spec, mode, None)
    offloaded = gradients(transformer, spec, mode, HostCheckpointing(carrier, least=LEAST))
    assert len(carrier.back) > 0
    assert any(gradient.abs().max() > 0 for gradient in own)
    assert all(torch.equal(a, b) for a, b in zip(own, offloaded, strict=True))


@pytest.mark.parametrize(("mode", "per_block"), [("full", 2), ("attention", 4)])
def test_the_device_holds_the_last_block_only(transformer, mode, per_block):
    """Per block: image and text; with "attention" its result and the logarithms of its sums too."""
    attach(transformer, Lora(rank=2))
    carrier, blocks = Watched(), len(repeated_blocks(transformer))
    with gradient_checkpointing(transformer, mode, offload=HostCheckpointing(carrier, least=LEAST)):
        loss = loss_of(transformer)
        assert len(carrier.left) == len(carrier.on_host) == per_block * blocks
        assert alive(carrier.on_device) <= {
            storage()._cdata for storage in carrier.on_device[-per_block:] if storage() is not None
        }
        assert len(alive(carrier.on_host)) == per_block * blocks
        loss.backward()
    assert len(carrier.back) == per_block * (blocks - 1)
    assert carrier.most_back <= 2 * per_block
    assert not alive(carrier.on_device) | alive(carrier.on_host) | alive(carrier.back)


def test_the_block_below_is_on_its_way_when_a_block_is_needed(transformer):
    attach(transformer, Lora(rank=2))
    carrier, seen = Watched(), []
    with gradient_checkpointing(transformer, "full", offload=HostCheckpointing(carrier, least=LEAST)):
        loss = loss_of(transformer)
        for block in repeated_blocks(transformer):
            block.register_forward_pre_hook(lambda *_: seen.append(len(carrier.back)))
        loss.backward()
    assert seen == [2, 4, 6, 8, 8]


def test_small_tensors_and_parameters_stay(transformer):
    attach(transformer, Lora(rank=2))
    carrier = Watched()
    least = 4 * 2 * 64 * 32  # of the image's tokens; those of the text are fewer
    with gradient_checkpointing(transformer, "full", offload=HostCheckpointing(carrier, least=least)):
        loss_of(transformer).backward()
    assert carrier.left == [(2, 64, 32)] * len(repeated_blocks(transformer))
    weight = nn.Parameter(torch.ones(64, 64))
    HostCheckpointing(carrier, least=1).checkpoint(
        lambda x, w: x @ w, torch.ones(64, 64), weight
    ).sum().backward()
    assert len(carrier.left) == len(repeated_blocks(transformer)) + 1
    assert torch.equal(weight.grad, torch.full((64, 64), 64.0))


def test_a_graph_without_backward_leaves_nothing(transformer):
    attach(transformer, Lora(rank=2, targets=("re:single_transformer_blocks\\.2\\.attn\\.to_q",)))
    carrier = Watched()
    with gradient_checkpointing(transformer, "attention", offload=HostCheckpointing(carrier, least=LEAST)):
        loss = loss_of(transformer)
        # Below the first adapter nothing is kept.
        assert len(alive(carrier.on_host)) == 4
        del loss
        assert not alive(carrier.on_host) | alive(carrier.on_device)


def test_what_is_kept_of_attention_is_not_computed_again(transformer):
    attach(transformer, Lora(rank=2))
    calls = []

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.extend([function] if function in ATTENTION else [])
            return function(*args, **(kwargs or {}))

    offload = HostCheckpointing(Carrier(CPU), least=LEAST)
    with gradient_checkpointing(transformer, "attention", offload=offload), Count():
        loss_of(transformer).backward()
    assert len(calls) == len(repeated_blocks(transformer))


@pytest.mark.parametrize("mode", ["full", "attention"])
def test_together_with_swapped_weights(transformer, mode):
    own = gradients(transformer, Lora(rank=2), mode, None)
    torch.manual_seed(0)
    attached = attach(transformer, Lora(rank=2))
    offload = HostCheckpointing(Carrier(CPU), least=LEAST)
    with (
        swapped_blocks(transformer, 3, Carrier(CPU), least=LEAST),
        gradient_checkpointing(transformer, mode, offload=offload),
    ):
        for _ in range(2):
            loss_of(transformer).backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(own, attached.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_give_what_they_keep_too(transformer):
    own = gradients(transformer, Lora(rank=2), "full", None)
    carrier = Watched()
    with compiled_blocks(transformer, True):
        offloaded = gradients(transformer, Lora(rank=2), "full", HostCheckpointing(carrier, least=LEAST))
    assert len(carrier.back) > 0
    for a, b in zip(own, offloaded, strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-4)
