import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tiny_calls import gradients, inputs
from urae.adapters import Lora, Minor, attach
from urae.execution import gradient_checkpointing

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@pytest.mark.parametrize("mode", [True, "full", "attention"])
@pytest.mark.parametrize("spec", [Lora(rank=4), Minor(rank=4)])
def test_what_is_computed_again_gives_the_same_gradients(transformer, spec, mode):
    kept, recomputed = (gradients(transformer, spec, how) for how in (False, mode))
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)
    assert any(gradient.abs().max() > 0 for gradient in kept.values())


@pytest.mark.parametrize(("mode", "times"), [(False, 1), ("attention", 1), ("full", 2), (True, 2)])
def test_attention_is_computed_again_only_where_asked(transformer, mode, times):
    calls = []

    def counted(query, key, *rest, **named):
        calls.append(query)
        return sdpa_flop_count(query, key, rest[0])

    attach(transformer, Lora(rank=4))
    with (
        gradient_checkpointing(transformer, mode),
        FlopCounterMode(display=False, custom_mapping={ATTENTION: counted}),
    ):
        transformer(**inputs()).sample.square().mean().backward()
    blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    assert len(calls) == times * blocks


def test_nothing_below_the_first_adapter_has_a_gradient(transformer):
    reached = {}

    def note(name):
        return lambda module, arguments, output: reached.update({name: output.requires_grad})

    transformer.x_embedder.register_forward_hook(note("image"))
    transformer.context_embedder.register_forward_hook(note("text"))
    transformer.transformer_blocks[0].attn.to_q.register_forward_hook(note("block 0"))
    attach(transformer, Lora(rank=4, targets=("re:transformer_blocks\\.1\\.attn\\.to_q",)))
    transformer.transformer_blocks[1].attn.to_q.register_forward_hook(note("block 1"))
    transformer(**inputs())
    assert reached == {"image": False, "text": False, "block 0": False, "block 1": True}


@pytest.mark.parametrize("spec", [Lora(rank=4), Minor(rank=4)])
def test_frozen_weights_have_no_gradient(transformer, spec):
    attached = attach(transformer, spec)
    transformer(**inputs()).sample.square().mean().backward()
    trained = {id(parameter) for parameter in attached.parameters()}
    having = {id(parameter) for parameter in transformer.parameters() if parameter.grad is not None}
    assert having == trained
    weight = transformer.transformer_blocks[0].attn.to_q.base_layer.weight
    assert not weight.requires_grad


def test_the_transformer_is_as_before(transformer):
    def run(block, *arguments):
        return block(*arguments)

    transformer.enable_gradient_checkpointing(run)
    with gradient_checkpointing(transformer, "attention"):
        assert transformer._gradient_checkpointing_func is not run
    assert transformer._gradient_checkpointing_func is run
    with gradient_checkpointing(transformer, False):
        assert not transformer.is_gradient_checkpointing
    assert transformer.is_gradient_checkpointing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", [False, "full", "attention"])
def test_compiled_blocks_give_the_same_gradients(transformer, mode):
    eager = gradients(transformer, Lora(rank=4), mode)
    fast = gradients(transformer, Lora(rank=4), mode, compile=True)
    for name, gradient in eager.items():
        torch.testing.assert_close(fast[name], gradient, atol=1e-5, rtol=1e-4)
