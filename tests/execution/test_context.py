"""Two processes that share an image's tokens compute what one computes: velocity and gradients."""

import pytest
import torch
from diffusers import FluxTransformer2DModel

from ranks import finish, start
from urae.adapters import Lora, Minor, attach
from urae.execution import context_group, context_parallel
from urae.families.flux import Flux
from urae.resolution import ResolutionPolicy

FLUX = Flux()
POLICY = ResolutionPolicy(
    rope_scale=10.0, rope_clip=True, scale=2.0, proportional=True, native_tokens=20, shift=3.0
)


def velocity(transformer, size, num_images=1):
    """Of some latents (tokens) high and wide, with 7 text tokens."""
    rng = torch.Generator().manual_seed(0)
    height, width = (2 * side for side in size)
    embeddings = {
        "prompt_embeds": torch.randn(num_images, 7, 32, generator=rng),
        "pooled_prompt_embeds": torch.randn(num_images, 24, generator=rng),
    }
    noisy = torch.randn(num_images, 16, height, width, generator=rng)
    sigma = torch.rand(num_images, generator=rng)
    return FLUX.calls.velocity(transformer, noisy, sigma=sigma, embeddings=embeddings, guidance=2.0)


def gradients(attached, transformer, size):
    """Of a loss in which every value of the velocity has a weight of its own."""
    for parameter in attached.parameters():
        parameter.grad = None
    found = velocity(transformer, size, num_images=2)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in attached.parameters()])


def compare_velocities(folder):
    group = context_group(2)
    transformer = FluxTransformer2DModel.from_pretrained(folder)
    # Shares of the same size; 18 and 17 image tokens beside 4 and 3 of the text; one row for each.
    with torch.no_grad(), POLICY.on(transformer):
        for size in ((4, 6), (5, 7), (1, 2)):
            alone = velocity(transformer, size)
            with context_parallel(transformer, group) as context:
                shared = velocity(transformer, size)
                with context.paused():
                    assert torch.equal(velocity(transformer, size), alone)
            torch.testing.assert_close(shared, alone, atol=1e-6, rtol=1e-5)
            assert torch.equal(velocity(transformer, size), alone)


def compare_gradients(folder):
    group = context_group(2)
    for spec in (Lora(rank=2, targets=("*",)), Minor(rank=2)):
        transformer = FluxTransformer2DModel.from_pretrained(folder)
        torch.manual_seed(0)
        attached = attach(transformer, spec)
        for parameter in attached.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
        alone = gradients(attached, transformer, (5, 7))
        with context_parallel(transformer, group):
            shared = gradients(attached, transformer, (5, 7)) / 2  # each process has counted the whole loss
        torch.distributed.all_reduce(shared)
        torch.testing.assert_close(shared, alone, atol=1e-5 * alone.abs().max().item(), rtol=1e-4)


def refuse(folder):
    group = context_group(2)
    sizes = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "axes_dims_rope": (4, 6, 6)}
    one_head = FluxTransformer2DModel(num_attention_heads=1, joint_attention_dim=8, **sizes)
    compiled = FluxTransformer2DModel.from_pretrained(folder)
    compiled.transformer_blocks[0].compile()
    for transformer, message in (
        (one_head, "context_parallel is 2: expected at most 1, the transformer's attention heads"),
        (compiled, "the transformer is compiled already"),
    ):
        with pytest.raises(ValueError, match=message), context_parallel(transformer, group):
            pass
    with pytest.raises(ValueError, match="context_parallel is 3 and 2 processes were started"):
        context_group(3)


@pytest.mark.parametrize("check", [compare_velocities, compare_gradients, refuse])
def test_in_two_processes(check, transformer, tmp_path):
    transformer.save_pretrained(tmp_path)
    finish(start(2, check, tmp_path))
