"""What the contract allows that no family here needs all of: text with positions of its own, samples of several
lengths in one call, and an object without weights that is no module."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from diffusers import FluxTransformer2DModel

from urae.families.family import RotaryCall
from urae.families.flux import Flux
from urae.families.flux.rotary import FluxRotary
from urae.resolution import ResolutionPolicy
from urae.resolution.embedding import PolicyEmbedding

IDS = torch.cartesian_prod(torch.zeros(1), torch.arange(5.0), torch.arange(5.0)) + 1
TEXT = 4
LENGTHS = torch.tensor([20] * 10 + [50] * 15)


@dataclass(frozen=True)
class Placed(FluxRotary):
    """Of 25 tokens the first four are text, at places of their own; two samples, of 20 and of 50 tokens."""

    def call(self, *inputs, told=None, **named):
        return RotaryCall(positions=inputs[0], num_tokens=LENGTHS, is_image=torch.arange(25) >= TEXT)


@pytest.fixture(scope="module")
def transformer():
    return FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=0,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=8,
    )


@pytest.mark.parametrize("rule", ["linear", "clip", "ntk"])
def test_rules_pass_text_by_wherever_it_stands(transformer, rule):
    policy = {
        "linear": ResolutionPolicy(linear=True, scale=2.0),
        "clip": ResolutionPolicy(rope_scale=4.0, rope_clip=True, scale=2.0),
        "ntk": ResolutionPolicy(rope="ntk", scale=2.0),
    }[rule]
    stock = transformer.pos_embed(IDS)
    found, all_alike = (
        PolicyEmbedding(replace(Flux(), rotary=rotary), transformer, policy)(IDS)
        for rotary in (Placed(), FluxRotary())
    )
    for one, other, plain in zip(found, all_alike, stock, strict=True):
        assert torch.equal(one[:TEXT], plain[:TEXT])
        assert torch.equal(one[TEXT:], other[TEXT:])
        assert not torch.equal(other[:TEXT], plain[:TEXT])


def test_each_sample_has_a_factor_of_its_own(transformer):
    policy = ResolutionPolicy(proportional=True, native_tokens=16)
    found = PolicyEmbedding(replace(Flux(), rotary=Placed()), transformer, policy)(IDS)
    factors = torch.tensor([math.log(num, 16) ** 0.25 for num in LENGTHS.tolist()])
    for table, plain in zip(found, transformer.pos_embed(IDS), strict=True):
        torch.testing.assert_close(table, plain * factors[:, None])


class Plain:
    """Makes the tables, and is no module."""

    def __init__(self, module):
        self.module = [module]

    def __call__(self, ids):
        return self.module[0](ids)


@pytest.mark.parametrize("is_module", [True, False])
def test_what_makes_the_tables_may_be_no_module(transformer, is_module):
    stock = transformer.pos_embed
    own = stock if is_module else Plain(stock)
    del transformer.pos_embed
    transformer.pos_embed = own
    try:
        with ResolutionPolicy(linear=True, scale=2.0).on(transformer):
            assert torch.equal(transformer.pos_embed(2 * IDS)[0][:, 16:], stock(IDS)[0][:, 16:])
            assert isinstance(transformer.pos_embed, PolicyEmbedding)
        assert transformer.pos_embed is own
        assert ("pos_embed" in transformer._modules) == is_module
    finally:
        del transformer.pos_embed
        transformer.pos_embed = stock
