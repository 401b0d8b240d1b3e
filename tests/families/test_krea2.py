"""What is Krea 2's own: masks, the scale's convention, latents as its pipeline has them, Turbo, shared heads."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import Krea2Transformer2DModel
from safetensors.torch import load_file, save_file
from tiny_families import TINY, drawing, embeddings, noisy, velocity
from tiny_krea2 import CONFIG, krea2

from ranks import finish, start
from urae.adapters import Lora, Minor, attach
from urae.adapters.convert import LAYOUTS, lost_by_stock, to_layout
from urae.adapters.targets import linear_layers, select
from urae.execution import context_group, context_parallel
from urae.execution.checkpointing import gradient_checkpointing
from urae.families.krea2 import Krea2
from urae.generation import generate
from urae.resolution import ResolutionPolicy, dynamic_shift, own_shift
from urae.training.samples import lean_pipeline

FAMILY = Krea2()


@pytest.fixture(scope="module")
def tiny():
    return next(one for one in TINY if one.name == FAMILY.name)


@pytest.fixture(scope="module")
def turbo():
    pipe = krea2(is_distilled=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_padded_text_has_no_effect(tiny):
    text, latents = embeddings(tiny, "a b"), noisy(tiny)
    padding = ~text["prompt_embeds_mask"]
    assert 0 < padding.sum() < padding.numel()
    other = text["prompt_embeds"].clone()
    other[padding] += 3.0
    with torch.no_grad():
        plain = velocity(tiny, latents, text=text)
        assert torch.equal(velocity(tiny, latents, text={**text, "prompt_embeds": other}), plain)
        seen = {**text, "prompt_embeds_mask": torch.ones_like(text["prompt_embeds_mask"])}
        assert not torch.allclose(velocity(tiny, latents, text=seen), plain, atol=1e-3)
        without = {name: tensor[:, ~padding[0]] for name, tensor in text.items()}
        torch.testing.assert_close(velocity(tiny, latents, text=without), plain, atol=1e-5, rtol=0)


def test_text_is_what_the_pipeline_makes_of_it(tiny):
    found = embeddings(tiny, "a b", "c")
    with torch.no_grad():
        tokens, mask = tiny.pipe.encode_prompt(["a b", "c"], max_sequence_length=12)
    assert torch.equal(found["prompt_embeds"], tokens)
    assert torch.equal(found["prompt_embeds_mask"], mask)
    assert tokens.shape == (2, 12, 3, 32)
    # The template's five last tokens come after the padding.
    assert mask.int().tolist() == [[1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]


def test_a_scale_of_1_plus_s_is_the_pipelines_s(tiny):
    """Where the pipeline guides by v(prompt) + s (v(prompt) - v(negative))."""
    settings = {"generator": torch.Generator().manual_seed(0), "output_type": "np"}
    ours = FAMILY.pipelines.draw(tiny.pipe, drawing(tiny, guidance=3.5, negative="c", settings=settings))
    theirs = tiny.pipe(
        "a b",
        negative_prompt="c",
        width=128,
        height=96,
        guidance_scale=2.5,
        num_inference_steps=2,
        max_sequence_length=12,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert (ours == theirs).all()


def test_latents_are_the_pipelines_own(tiny):
    """Encoded without its VAE's mean and deviation of each channel, and decoded as the pipeline decodes."""
    pipe, pixels = tiny.pipe, torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    posterior = FAMILY.latents.encode(pipe, pixels)
    with torch.no_grad():
        raw = pipe.vae.encode(pixels[:, :, None]).latent_dist
    torch.testing.assert_close(posterior.mean * std + mean, raw.mean[:, :, 0])
    torch.testing.assert_close(posterior.std * std, raw.std[:, :, 0])
    packed = FAMILY.latents.pack(posterior.mean)
    assert torch.equal(packed, pipe._pack_latents(posterior.mean, 1, 16, 12, 16))
    assert torch.equal(FAMILY.latents.unpack(packed, 12, 16), pipe._unpack_latents(packed, 96, 128)[:, :, 0])
    one = torch.Generator().manual_seed(3)
    settings = {"generator": torch.Generator().manual_seed(3), "output_type": "latent"}
    drawn = FAMILY.pipelines.draw(pipe, drawing(tiny, settings=settings), return_dict=True)
    picture = pipe(
        prompt="a b",
        width=128,
        height=96,
        guidance_scale=2.5,
        num_inference_steps=2,
        max_sequence_length=12,
        generator=one,
        output_type="pt",
    ).images[0]
    decoded = FAMILY.latents.decode(pipe, FAMILY.latents.unpack(drawn[None], 12, 16))
    assert torch.equal((decoded / 2 + 0.5).clamp(0, 1)[0], picture)


def test_redrawing_from_the_beginning_is_drawing(tiny):
    """At noise level 1 nothing of the picture is left, and the noise is the pipeline's own."""
    expected = FAMILY.pipelines.draw(tiny.pipe, drawing(tiny))
    picture = tiny.pipe.image_processor.numpy_to_pil(1 - expected[None])[0]
    found = FAMILY.pipelines.redraw(
        tiny.pipe, drawing(tiny), picture, sigmas=np.linspace(1.0, 0.5, 2), start_sigma=1.0
    )
    np.testing.assert_array_equal(found, expected)


# --- the shift


def test_the_dynamic_shift_is_the_pipelines(tiny, turbo):
    """As its scheduler has it after drawing."""
    for pipe in (tiny.pipe, turbo):
        for size in ((64, 64), (128, 96)):
            generate(pipe, "a", size=size, steps=2, policy="none")
            shift = dynamic_shift(pipe, size, steps=2)
            sigma = shift * 0.5 / (1 + (shift - 1) * 0.5)
            assert float(pipe.scheduler.sigmas[1]) == pytest.approx(sigma, rel=1e-5)


def test_own_shift_is_that_of_the_native_size(tiny, turbo):
    assert own_shift(tiny.pipe) == dynamic_shift(tiny.pipe, 64)
    assert own_shift(turbo) == pytest.approx(math.exp(1.15))
    with ResolutionPolicy(shift=7.0).on(turbo):
        assert dynamic_shift(turbo, 64) == 7.0
        assert own_shift(turbo) == pytest.approx(3.158, abs=1e-3)


def test_the_published_shifts():
    pipe = krea2(native=0)
    assert FAMILY.latents.native_size(pipe) == 1024
    found = [dynamic_shift(pipe, size) for size in (1024, 2048, 4096)]
    assert found == pytest.approx([2.475, 9.02, 1595], rel=0.1)
    assert own_shift(pipe) == found[0]


# --- Turbo


def test_turbo_takes_no_guidance(turbo):
    assert FAMILY.guidance.kind(turbo) == "none"
    with pytest.raises(ValueError, match="takes no guidance scale"):
        generate(turbo, "a", size=64, guidance=2.0)
    calls = []
    hook = turbo.transformer.register_forward_hook(lambda *_: calls.append(1))
    picture = generate(turbo, "a", size=64, steps=2)
    hook.remove()
    assert len(calls) == 2
    assert picture.info["guidance"] == "none"


def test_a_lean_pipeline_is_turbo_too(turbo):
    lean = lean_pipeline(turbo)
    assert lean.text_encoder is None
    assert lean.config.is_distilled
    assert tuple(lean.config.text_encoder_select_layers) == (0, 1, 2)


# --- several processes

GROUPED = {**CONFIG, "num_attention_heads": 6, "num_key_value_heads": 3, "attention_head_dim": 16}
"""Three heads of keys and values for two processes."""
POLICY = ResolutionPolicy(
    rope_scale=10.0, linear=True, scale=2.0, proportional=True, native_tokens=20, shift=3.0
)


def grouped() -> Krea2Transformer2DModel:
    torch.manual_seed(0)
    return Krea2Transformer2DModel(**GROUPED, axes_dims_rope=(4, 6, 6)).eval()


def predicted(transformer, size, num=1):
    rng = torch.Generator().manual_seed(0)
    text = {
        "prompt_embeds": torch.randn(num, 7, 3, 32, generator=rng),
        "prompt_embeds_mask": torch.tensor([[True] * 4 + [False] * 2 + [True]] * num),
    }
    height, width = (2 * side for side in size)
    latents = torch.randn(num, 16, height, width, generator=rng)
    return FAMILY.calls.velocity(transformer, latents, sigma=torch.rand(num, generator=rng), embeddings=text)


def gradients(attached, transformer):
    for parameter in attached.parameters():
        parameter.grad = None
    found = predicted(transformer, (5, 7), num=2)
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in attached.parameters()])


def compare_velocities():
    group, transformer = context_group(2), grouped()
    with torch.no_grad(), POLICY.on(transformer):
        for size in ((4, 6), (5, 7), (1, 2)):
            alone = predicted(transformer, size)
            with context_parallel(transformer, group) as context:
                shared = predicted(transformer, size)
                with context.paused():
                    assert torch.equal(predicted(transformer, size), alone)
            torch.testing.assert_close(shared, alone, atol=1e-6, rtol=1e-5)
            assert torch.equal(predicted(transformer, size), alone)


def compare_gradients():
    group = context_group(2)
    for spec, mode in ((Lora(rank=2, targets=("*",)), False), (Minor(rank=2), "full")):
        transformer = grouped()
        torch.manual_seed(0)
        attached = attach(transformer, spec)
        for parameter in attached.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
        alone = gradients(attached, transformer)
        with context_parallel(transformer, group), gradient_checkpointing(transformer, mode):
            shared = gradients(attached, transformer) / 2  # each process has counted the whole loss
        torch.distributed.all_reduce(shared)
        torch.testing.assert_close(shared, alone, atol=1e-5 * alone.abs().max().item(), rtol=1e-4)


def refuse():
    group, one = context_group(2), Krea2Transformer2DModel(**CONFIG)
    message = "expected at most 1, the transformer's attention heads, those of keys and values"
    with pytest.raises(ValueError, match=message), context_parallel(one, group):
        pass


@pytest.mark.parametrize("check", [compare_velocities, compare_gradients, refuse])
def test_in_two_processes(check):
    finish(start(2, check))


# --- layers


def test_targets_leave_the_text_fusion_alone(tiny):
    """Whose attention has layers of the same names."""
    layers = linear_layers(tiny.transformer)
    assert "text_fusion.refiner_blocks.0.attn.to_gate" in layers
    chosen = select(layers, FAMILY.layers.wide)
    assert chosen == [name for name in layers if name.startswith("transformer_blocks.")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stock_diffusers_leaves_out_is_known(tiny, tmp_path, layout):
    factors = {
        name: (torch.ones(1, layer.in_features), torch.ones(layer.out_features, 1))
        for name, layer in linear_layers(tiny.transformer).items()
    }
    model = type(tiny.transformer).__name__
    save_file(to_layout(factors, layout, model=model), tmp_path / "adapter.safetensors")
    read = type(tiny.pipe).lora_state_dict(tmp_path / "adapter.safetensors")
    lost = [name for name in factors if f"transformer.{name}.lora_A.weight" not in read]
    assert lost_by_stock(factors, layout, model=model) == lost
    assert bool(lost) == (layout == "kohya")


def test_an_adapter_that_does_not_say_its_base_is_not_taken_for_flux(tiny, tmp_path):
    """Whose double blocks have modules of these names, four of which it fuses."""
    attached = attach(tiny.transformer, Lora(rank=1, targets=("transformer_blocks.*.attn.to_q",)))
    adapter = attached.export()
    attached.detach()
    keys = adapter.save(tmp_path / "known.safetensors", layout="kohya")
    assert {key.rpartition(".lora")[0] or key for key in load_file(keys)} >= {"lora_unet_blocks_0_attn_wq"}
    with pytest.raises(
        ValueError, match="does not say its base, and .*FLUX.1, .*Krea 2, Qwen-Image have modules"
    ):
        replace(adapter, base=None).save(tmp_path / "unknown.safetensors", layout="kohya")
