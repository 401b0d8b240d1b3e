"""Compiled blocks: how many are compiled, in drawing and in training, and that the transformer is as before."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from diffusers import FluxTransformer2DModel
from test_speed import draw, same
from torch._dynamo.testing import CompileCounter

from tiny_calls import inputs
from urae.adapters import Lora, attach
from urae.execution import FirstBlock, TaylorSeer, compiled_blocks, gradient_checkpointing
from urae.execution.modules import repeated_blocks


@pytest.fixture
def counter(monkeypatch):
    """Counts what is compiled; nothing is translated, so results are those of plain Python."""
    torch.compiler.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    yield counter
    torch.compiler.reset()


@pytest.fixture
def uncompiled(monkeypatch):
    """Compiling takes no time and changes nothing."""
    monkeypatch.setattr(torch, "compile", lambda forward: partial(forward))


def test_all_blocks_of_a_kind_share_what_is_compiled_with_and_without_a_cache(small, counter):
    config = {**small.transformer.config, "num_layers": 2, "num_single_layers": 3}
    small.transformer = FluxTransformer2DModel.from_config(config).eval()
    for speed in ("exact", TaylorSeer(interval=2), FirstBlock(threshold=0.5)):
        eager = draw(small, speed=speed)
        assert same(draw(small, speed=speed, compile=True), eager)
        # Not five, and no hook among them. The first single block gets its input as a part of a larger tensor.
        assert counter.frame_count == 3


@pytest.mark.thorough
def test_the_twelfth_adapter_is_compiled_too(small, counter):
    """By default torch runs what is said to be compiled eagerly after eight variants."""
    found = []
    for rank in range(1, 13):
        attached = attach(
            small.transformer, Lora(rank=rank, targets=("single_transformer_blocks.0.attn.to_q",))
        )
        draw(small, steps=1, compile=True)
        attached.detach()
        found.append(counter.frame_count)
    new = [after - before for before, after in pairwise(found)]
    assert min(new) >= 1, new


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", [False, "full"])
def test_training_shares_them_too(transformer, counter, mode):
    config = {**transformer.config, "num_layers": 3, "num_single_layers": 4}
    transformer = FluxTransformer2DModel.from_config(config)
    attach(transformer, Lora(rank=2))
    with compiled_blocks(transformer, True), gradient_checkpointing(transformer, mode, compiled=True):
        transformer(**inputs()).sample.square().mean().backward()
    # Not seven. The first block of all has an input without gradients, the first single one a part of a tensor.
    assert counter.frame_count == 4


@pytest.mark.filterwarnings("ignore")
def test_what_the_owner_compiled_is_as_before(transformer, counter):
    """To the very functions that were compiled."""
    transformer.compile_repeated_blocks()
    before = [block._compiled_call_impl for block in repeated_blocks(transformer)]
    with torch.no_grad():
        expected, num = transformer(**inputs()).sample, counter.frame_count
        with compiled_blocks(transformer, True):
            assert torch.equal(transformer(**inputs()).sample, expected)
        after = [block._compiled_call_impl for block in repeated_blocks(transformer)]
        assert None not in after
        assert all(left is right for left, right in zip(before, after, strict=True))
        assert not any("forward" in vars(block) for block in repeated_blocks(transformer))
        inside = counter.frame_count
        assert torch.equal(transformer(**inputs()).sample, expected)
    assert num > 0
    assert counter.frame_count == inside  # nothing is compiled anew


def test_blocks_are_as_before_afterwards(small, uncompiled):
    before = [vars(block).get("forward") for block in small.transformer.transformer_blocks]
    image = draw(small, compile=True)
    with pytest.raises(KeyboardInterrupt), compiled_blocks(small.transformer, True):
        raise KeyboardInterrupt
    assert [vars(block).get("forward") for block in small.transformer.transformer_blocks] == before
    assert same(draw(small), image)
