"""What is FLUX.2's own: one number of tokens for two calls, references, normalised latents, the shift's jump, klein."""

import math

import numpy as np
import pytest
import torch
from diffusers import Flux2Transformer2DModel
from safetensors.torch import save_file
from tiny_families import TINY, drawing, embeddings, noisy, tables, velocity
from tiny_flux2 import CONFIG, klein

from ranks import finish, start
from urae.adapters import Lora, attach
from urae.adapters.convert import lost_by_stock, parse, to_layout
from urae.adapters.targets import linear_layers, select
from urae.execution import context_group, context_parallel
from urae.execution.strips import has_strips, vae_run
from urae.families.flux2 import Flux2
from urae.families.flux2.pipelines import Flux2Pipelines
from urae.generation import generate
from urae.resolution import ResolutionPolicy, dynamic_shift, own_shift

FAMILY = Flux2()
DEV, KLEIN = (next(one for one in TINY if one.golden == name) for name in ("flux2_dev", "flux2_klein"))
both = pytest.mark.parametrize("tiny", [DEV, KLEIN], ids=lambda tiny: tiny.golden)
LINEAR = ResolutionPolicy(linear=True, scale=2.0)


# --- positions


def test_text_and_image_have_the_same_factor():
    """That of all tokens of the transformer's call, 8 x 6 of the image and 8 of the text."""
    with ResolutionPolicy(proportional=True, native_tokens=24).on(KLEIN.transformer):
        found = tables(KLEIN)
    for changed, stock in zip(found, tables(KLEIN), strict=True):
        for one, other in zip(changed.tables, stock.tables, strict=True):
            torch.testing.assert_close(one, other * math.log(56, 24) ** 0.25)


def test_pictures_to_refer_to_are_refused_under_a_policy():
    """And drawn with outside of it; never scaled in silence."""
    picture = KLEIN.pipe.image_processor.numpy_to_pil(np.full((1, 64, 64, 3), 0.5, dtype=np.float32))[0]
    asked = {"prompt": "a", "image": picture, "width": 64, "height": 64, "num_inference_steps": 1}
    asked |= {"guidance_scale": 1.0, "max_sequence_length": 8, "output_type": "np"}
    KLEIN.pipe(**asked)
    with pytest.raises(ValueError, match="reference pictures"), LINEAR.on(KLEIN.pipe):
        KLEIN.pipe(**asked)


def test_an_unknown_number_of_axes_is_refused():
    transformer = Flux2Transformer2DModel(**CONFIG, axes_dims_rope=(32, 48, 48))
    with pytest.raises(ValueError, match="FLUX.2 has 4 axes of positions, but this transformer has 3"):
        FAMILY.rotary.axes(transformer)


def test_the_default_policy_scales_theta_by_what_fits_it():
    """2000^(1/4): 10 is that of 10,000. No less than twice the scale, or the clip would have no effect."""
    assert FAMILY.rotary.theta_scale == pytest.approx(2000**0.25, abs=0.05)
    pipe = klein(native=1024)
    found = [ResolutionPolicy.for_size(pipe, size).rope_scale for size in (2048, 4096, 8192)]
    assert found == [6.7, 8.0, 16.0]


# --- latents


@both
def test_latents_are_the_pipelines_own(tiny):
    """Encoded as its references are, and decoded as it decodes."""
    pipe, pixels = tiny.pipe, torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        patches = pipe._encode_vae_image(pixels, None)
        raw = pipe.vae.encode(pixels).latent_dist
    posterior = FAMILY.latents.encode(pipe, pixels)
    assert posterior.mean.shape == (1, 32, 12, 16)
    packed = FAMILY.latents.pack(posterior.mean)
    torch.testing.assert_close(packed, pipe._pack_latents(patches), atol=1e-6, rtol=1e-5)
    width = posterior.std / raw.std
    one_token = width[:, :, :2, :2].repeat(1, 1, 6, 8)
    torch.testing.assert_close(width, one_token)  # the deviation of each number of a token
    with torch.no_grad():
        expected = pipe.vae.decode(raw.mean, return_dict=False)[0]
    torch.testing.assert_close(
        FAMILY.latents.decode(pipe, posterior.mean), expected.clamp(-1, 1), atol=1e-4, rtol=0
    )


def test_the_vae_runs_in_strips():
    vae, latents = KLEIN.pipe.vae, torch.randn(1, 32, 12, 16, generator=torch.Generator().manual_seed(0))
    assert has_strips(vae)
    with torch.no_grad():
        whole = vae.decode(latents).sample
        with vae_run(vae, "strips", rows=4):
            torch.testing.assert_close(vae.decode(latents).sample, whole, atol=1e-4, rtol=0)


@both
def test_redrawing_from_the_beginning_is_drawing(tiny):
    """At noise level 1 nothing of the picture is left, and the noise is the pipeline's own."""
    expected = FAMILY.pipelines.draw(tiny.pipe, drawing(tiny))
    picture = tiny.pipe.image_processor.numpy_to_pil(1 - expected[None])[0]
    found = FAMILY.pipelines.redraw(
        tiny.pipe, drawing(tiny), picture, sigmas=np.linspace(1.0, 0.5, 2), start_sigma=1.0
    )
    np.testing.assert_array_equal(found, expected)


# --- the shift


@pytest.mark.parametrize(("size", "steps"), [((64, 64), 2), ((128, 96), 4)])
def test_the_dynamic_shift_is_the_pipelines(size, steps):
    """As its scheduler has it after drawing."""
    pipe = KLEIN.pipe
    generate(pipe, "a", size=size, steps=steps, policy="none", guidance=1)
    shift, before = dynamic_shift(pipe, size, steps=steps), 1 - 1 / steps
    assert float(pipe.scheduler.sigmas[1]) == pytest.approx(
        shift * before / (1 + (shift - 1) * before), rel=1e-5
    )


def test_the_published_shifts():
    """With their jump above 4300 tokens, where the number of steps no longer counts."""
    pipe = klein(native=1024)
    found = [dynamic_shift(pipe, size, steps=28) for size in (1024, 1040, 1056, 2048, 4096)]
    assert found == pytest.approx([8.6, 8.67, 3.3, 25.3, 103_900], rel=0.01)
    assert dynamic_shift(pipe, 1024, steps=50) == pytest.approx(7.56, rel=0.01)
    assert dynamic_shift(pipe, 2048, steps=50) == found[3]
    assert own_shift(pipe) == found[0]
    with ResolutionPolicy(shift=7.0).on(pipe):
        assert dynamic_shift(pipe, 2048) == 7.0
        assert own_shift(pipe) == found[0]


# --- klein


def test_distilled_klein_takes_no_guidance():
    pipe = klein(is_distilled=True)
    pipe.set_progress_bar_config(disable=True)
    assert FAMILY.guidance.kind(pipe) == "none"
    assert own_shift(pipe) == dynamic_shift(pipe, 64, steps=4)
    with pytest.raises(ValueError, match="takes no guidance scale"):
        generate(pipe, "a", size=64, guidance=2.0)
    calls = []
    hook = pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    picture = generate(pipe, "a", size=64, steps=2)
    hook.remove()
    assert len(calls) == 2
    assert picture.info["guidance"] == "none"


@pytest.mark.parametrize(
    ("encoder", "pipeline"),
    [("Qwen3ForCausalLM", "Flux2KleinPipeline"), ("Mistral3ForConditionalGeneration", "Flux2Pipeline")],
)
def test_the_text_encoder_tells_klein_from_dev(encoder, pipeline):
    index = {"_class_name": "Flux2KleinKVPipeline", "text_encoder": ["transformers", encoder]}
    assert Flux2Pipelines().pipeline(index) == pipeline


# --- layers and layouts


def factors_of(transformer, pattern: str = "*"):
    layers = linear_layers(transformer)
    torch.manual_seed(0)
    return {
        name: (torch.randn(2, layers[name].in_features), torch.randn(layers[name].out_features, 2))
        for name in select(layers, (pattern,))
    }


@pytest.mark.parametrize("layout", ["kohya", "comfy"])
def test_flux1_and_flux2_share_names_and_are_told_apart(layout):
    """By the shapes of the layers of their MLPs, as soon as one of these is there."""
    flux = next(one for one in TINY if one.name == "FLUX.1")
    for tiny, pattern in ((flux, "single*"), (KLEIN, "single*"), (flux, "*blocks*"), (KLEIN, "*blocks*")):
        factors = factors_of(tiny.transformer, pattern)
        model = type(tiny.transformer).__name__
        assert parse(to_layout(factors, layout, model=model)).factors.keys() == factors.keys()


@pytest.mark.parametrize("spelling", ["transformer.{}", "{}", "lora_transformer_{}", "base_model.model.{}"])
def test_diffusers_names_as_trainers_spell_them(spelling):
    """With alphas, as OneTrainer writes them, too."""
    factors = factors_of(KLEIN.transformer, "*blocks*")
    tensors = {}
    for name, (A, B) in factors.items():
        flat = "_" if spelling.startswith("lora") else "."
        module = spelling.format(name.replace(".", flat))
        tensors |= {f"{module}.lora_down.weight": A, f"{module}.lora_up.weight": B}
        tensors[f"{module}.alpha"] = torch.tensor(1.0)
    parsed = parse(tensors)
    assert parsed.layout == "diffusers"
    for name, (A, B) in factors.items():
        found_A, found_B = parsed.factors[name]
        torch.testing.assert_close(found_B @ found_A, B @ A / 2)


@pytest.mark.parametrize("layout", ["kohya", "comfy"])
def test_what_stock_diffusers_leaves_out_or_misreads_is_known(tmp_path, layout):
    factors, model = factors_of(DEV.transformer), type(DEV.transformer).__name__
    save_file(to_layout(factors, layout, model=model), tmp_path / "adapter.safetensors")
    read = type(DEV.pipe).lora_state_dict(tmp_path / "adapter.safetensors")
    lost = []
    for name, (A, B) in factors.items():
        parts = [read.get(f"transformer.{name}.lora_{side}.weight") for side in "AB"]
        same = parts[0] is not None and torch.allclose(parts[1] @ parts[0], B @ A, atol=1e-4)
        lost += [] if same else [name]
    assert sorted(lost_by_stock(factors, layout, model=model)) == sorted(lost)
    assert "norm_out.linear" in lost
    assert not [name for name in lost if "blocks." in name]


# --- several processes

SHARED = {**CONFIG, "num_attention_heads": 3, "attention_head_dim": 16, "axes_dims_rope": (4, 4, 4, 4)}
POLICY = ResolutionPolicy(linear=True, scale=2.0, proportional=True, native_tokens=20)


def predicted(transformer, size, num=1):
    rng = torch.Generator().manual_seed(0)
    text = {"prompt_embeds": torch.randn(num, 7, CONFIG["joint_attention_dim"], generator=rng)}
    latents = torch.randn(num, 32, *(2 * side for side in size), generator=rng)
    return FAMILY.calls.velocity(transformer, latents, sigma=torch.rand(num, generator=rng), embeddings=text)


def compare():
    """Velocities and gradients of two processes that share tokens, heads and the MLP's channels."""
    group = context_group(2)
    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(**SHARED, guidance_embeds=False).eval()
    attached = attach(transformer, Lora(rank=2, targets=("*",)))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))

    def gradients():
        found = predicted(transformer, (5, 7), num=2).square().sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(found, list(attached.parameters()))])

    with POLICY.on(transformer):
        alone, slopes = predicted(transformer, (5, 7)).detach(), gradients()
        with context_parallel(transformer, group):
            shared, halves = predicted(transformer, (5, 7)).detach(), gradients() / 2
    torch.distributed.all_reduce(halves)
    torch.testing.assert_close(shared, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(halves, slopes, atol=1e-5 * slopes.abs().max().item(), rtol=1e-4)


def test_in_two_processes():
    finish(start(2, compare))


def test_text_is_what_the_pipeline_makes_of_it():
    found = embeddings(KLEIN, "a b", "c")
    with torch.no_grad():
        tokens, _ = KLEIN.pipe.encode_prompt(["a b", "c"], max_sequence_length=8)
    assert torch.equal(found["prompt_embeds"], tokens)
    assert tokens.shape == (2, 8, 48)
    with torch.no_grad():
        other = velocity(KLEIN, noisy(KLEIN), text=embeddings(KLEIN, "c"))
    assert not torch.allclose(other, velocity(KLEIN, noisy(KLEIN)), atol=1e-3)
