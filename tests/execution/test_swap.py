"""Weights that come and go: the same numbers, and no more of them on the device than are in use."""

import weakref

import pytest
import torch
from torch import Tensor

from tiny_calls import inputs
from urae.adapters import Full, Lora, Minor, attach
from urae.execution import Carrier, gradient_checkpointing, quantised
from urae.execution.modules import repeated_blocks
from urae.execution.swap import spread, swapped_blocks

CPU = torch.device("cpu")
LEAST = 4096
"""Bytes: the tiny transformer's matrices are as large, its biases and adapters are not."""


class Counted(Carrier):
    """Knows which of its copies are alive on the "device", and how many it made."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.copies: list[weakref.ref] = []
        self.most = 0

    def to_device(self, tensor: Tensor):
        copy = super().to_device(tensor)
        self.copies.append(weakref.ref(copy.target.untyped_storage()))
        self.most = max(self.most, self.alive())
        return copy

    def alive(self) -> int:
        return sum(storage.nbytes() for storage in (copy() for copy in self.copies) if storage is not None)


def swapped_bytes(block) -> int:
    return sum(w.nbytes for w in block.parameters() if not w.requires_grad and w.nbytes >= LEAST)


def train(transformer, mode, *, steps: int = 1) -> None:
    with gradient_checkpointing(transformer, mode):
        for _ in range(steps):
            transformer(**inputs()).sample.square().mean().backward()


def gradients(transformer, spec, mode, num: int) -> list[Tensor]:
    torch.manual_seed(0)
    attached = attach(transformer, spec)
    with swapped_blocks(transformer, num, Carrier(CPU), least=LEAST):
        train(transformer, mode, steps=2)
    attached.detach()
    return [parameter.grad for parameter in attached.parameters()]


@pytest.mark.parametrize(
    ("mode", "spec"),
    [("full", Lora(rank=2)), ("attention", Minor(rank=2)), ("attention", Full(targets=("attn.to_q",)))],
)
def test_gradients_are_the_same_to_the_bit(transformer, spec, mode):
    blocks = len(repeated_blocks(transformer))
    own, some, every = (gradients(transformer, spec, mode, num) for num in (0, 2, blocks))
    assert any(gradient.abs().max() > 0 for gradient in own)
    for swapped in (some, every):
        assert all(torch.equal(a, b) for a, b in zip(own, swapped, strict=True))


@pytest.mark.parametrize("mode", ["full", "attention"])
def test_two_blocks_are_on_the_device_at_most(transformer, mode):
    attach(transformer, Lora(rank=2))
    blocks, carrier = repeated_blocks(transformer), Counted()
    sizes = [swapped_bytes(block) for block in blocks]
    with swapped_blocks(transformer, len(blocks), carrier, least=LEAST):
        assert carrier.alive() == 0
        train(transformer, mode, steps=3)
        neighbours = [a + b for a, b in zip(sizes, sizes[1:], strict=False)]
        assert max(sizes) < carrier.most <= max(neighbours)
    assert carrier.alive() == 0


def test_a_block_is_copied_twice_a_step_and_the_last_one_once(transformer):
    attach(transformer, Lora(rank=2))
    blocks, carrier = repeated_blocks(transformer), Counted()
    per_block = [sum(w.nbytes >= LEAST and not w.requires_grad for w in b.parameters()) for b in blocks]
    with swapped_blocks(transformer, len(blocks), carrier, least=LEAST):
        train(transformer, "full", steps=2)
        before = len(carrier.copies)
        train(transformer, "full")
    # The first block too: its last use of a step is followed by its first of the next.
    assert len(carrier.copies) - before == 2 * sum(per_block) - per_block[0] - per_block[-1]


def test_the_next_block_is_on_its_way_when_a_block_begins(transformer):
    attach(transformer, Lora(rank=2))
    carrier, made = Counted(), []
    with swapped_blocks(transformer, 2, carrier, least=LEAST):
        train(transformer, "full", steps=2)
        for block in (repeated_blocks(transformer)[index] for index in spread(2, 5)):
            block.register_forward_hook(lambda *_: made.append(len(carrier.copies)), always_call=True)
        train(transformer, "full")
    # Two forward and two back: the second is asked for while the first runs, and stays for the way back, where the
    # first is asked for while the second runs again.
    forward, turn, back, end = made
    assert forward == turn < back == end


def test_everything_is_where_it_was(transformer):
    attached = attach(transformer, Minor(rank=2))
    before = {name: (id(p), p.detach().clone()) for name, p in transformer.named_parameters()}
    with swapped_blocks(transformer, 3, Carrier(CPU), least=LEAST):
        train(transformer, "full")
    for name, parameter in transformer.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert not any(block._forward_pre_hooks for block in repeated_blocks(transformer))
    attached.detach()


def test_without_gradients_the_output_is_the_same(transformer):
    with torch.no_grad():
        own = transformer(**inputs()).sample
        transformer.requires_grad_(False)
        carrier = Counted()
        with swapped_blocks(transformer, 3, carrier, least=LEAST):
            outputs = [transformer(**inputs()).sample for _ in range(3)]
    assert all(torch.equal(output, own) for output in outputs)
    assert len(carrier.copies) > 0


@pytest.mark.parametrize("num", range(1, 58))
def test_places_are_spread_and_the_last_is_one(num):
    places = spread(num, 57)
    gaps = [b - a for a, b in zip([-1, *places], places, strict=False)]
    assert (len(set(places)), places[-1]) == (num, 56)
    assert max(gaps) - min(gaps) <= 1


def test_more_blocks_than_there_are_are_refused(transformer):
    with (
        pytest.raises(ValueError, match="swap_blocks is 6: expected at most 5, the blocks of this"),
        swapped_blocks(transformer, 6, Carrier(CPU)),
    ):
        pass


def test_quantised_weights_are_swapped_as_they_are_stored(transformer):
    attached = attach(transformer, Lora(rank=2))
    with quantised(transformer, "nf4"):
        train(transformer, "full")
        own = [parameter.grad.clone() for parameter in attached.parameters()]
        stored = [
            sum(w.nbytes for w in b.parameters() if w.nbytes >= 512) for b in repeated_blocks(transformer)
        ]
        for parameter in attached.parameters():
            parameter.grad = None
        carrier = Counted()
        with swapped_blocks(transformer, 5, carrier, least=512):
            train(transformer, "full")
        assert max(stored) <= carrier.most < 2 * max(stored) + 1
    assert all(torch.equal(a, p.grad) for a, p in zip(own, attached.parameters(), strict=True))
