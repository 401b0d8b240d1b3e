"""The minor-component adapter agrees with the paper's published code: decomposition, files, one training step."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from rounding import REFERENCE_ROUNDING
from urae.adapters import Adapter, Minor, attach, decompose
from urae.resolution import ResolutionPolicy

GOLDEN = Path(__file__).parents[1] / "golden"
POLICY = ResolutionPolicy(rope_scale=10, proportional=True, native_tokens=4608, exact_ids=False)
TWO_K = GOLDEN / "urae_2k_adapter.safetensors"


@pytest.fixture
def two_k(transformer):
    return Adapter.load(TWO_K, base=transformer)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_decomposition_of_the_weights_with_the_2k_adapter_fused(transformer, two_k, golden_meta):
    golden = load_file(GOLDEN / "minor_decomposition.safetensors")
    for name in golden_meta["adapter_targets"]:
        A, B = two_k.factors[name]
        weight = transformer.get_submodule(name).weight.detach() + B @ A
        triplets = decompose(weight, rank=golden_meta["rank"], kind="smallest")
        A0, B0 = triplets.factors()
        # The golden product comes from an fp32 SVD, which is itself 2e-6 away from the fp64 one.
        assert relative(B0 @ A0, golden[f"{name}.minor"]) < 4e-6
        assert (B0 @ A0 - golden[f"{name}.minor"]).norm() < 1e-6 * weight.norm()
        assert relative(weight - B0 @ A0, golden[f"{name}.residual"]) < 1e-6
        singular = golden[f"{name}.singular_values"]
        assert (triplets.S - singular[-4:]).abs().max() < 1e-6 * singular[0]


@pytest.mark.parametrize(
    ("file", "start", "output"),
    [
        ("urae_2k_adapter", None, "output_lora_2k"),
        ("urae_4k_adapter_lora_conversion", None, "output_lora_conversion"),
        ("urae_4k_adapter", TWO_K, "output_minor_4k"),
    ],
)
def test_published_files_give_the_reference_output(transformer, file, start, output):
    golden = load_file(GOLDEN / "adapters.safetensors")
    adapter = Adapter.load(GOLDEN / f"{file}.safetensors", base=transformer, start=start)
    with torch.no_grad(), adapter.on(transformer, policy=POLICY):
        found = _predict(transformer, golden)
    torch.testing.assert_close(found, golden[output], rtol=0, atol=REFERENCE_ROUNDING)
    with torch.no_grad(), POLICY.on(transformer):
        torch.testing.assert_close(
            _predict(transformer, golden), golden["output_base"], rtol=0, atol=REFERENCE_ROUNDING
        )


def test_published_4k_layout_becomes_the_published_conversion(transformer):
    start = Adapter.load(TWO_K)
    four_k = Adapter.load(GOLDEN / "urae_4k_adapter.safetensors", base=transformer, start=start)
    conversion = Adapter.load(GOLDEN / "urae_4k_adapter_lora_conversion.safetensors")
    assert four_k.spec == Minor(rank=4)
    assert four_k.factors.keys() == conversion.factors.keys()
    for name, (A, B) in conversion.factors.items():
        own_A, own_B = four_k.factors[name]
        assert own_A.shape == A.shape == (12, 32)
        assert relative(own_B @ own_A, B @ A) < 1e-5


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_training_step(transformer, two_k, golden_meta, guidance):
    golden = load_file(GOLDEN / "training_step.safetensors")
    attached = attach(transformer, Minor(rank=4), start=two_k)
    prediction, loss = _step(transformer, golden, golden_meta, guidance)
    loss.backward()
    torch.testing.assert_close(prediction, golden[f"g{guidance}.prediction"], rtol=0, atol=REFERENCE_ROUNDING)
    torch.testing.assert_close(loss.detach().reshape(1), golden[f"g{guidance}.loss"], rtol=1e-5, atol=0)
    parameters = attached.named_parameters()
    for name in golden_meta["adapter_targets"]:
        A, B = parameters[f"{name}.A"], parameters[f"{name}.B"]
        change = (B.grad @ A + B @ A.grad).detach()
        assert relative(change, golden[f"g{guidance}.delta.{name}"]) < 1e-4, name


def _predict(transformer, golden):
    names = (
        "hidden_states",
        "encoder_hidden_states",
        "pooled_projections",
        "timestep",
        "guidance",
        "img_ids",
    )
    return transformer(**{name: golden[name] for name in names}, txt_ids=torch.zeros(7, 3)).sample


def _step(transformer, golden, meta, guidance):
    sampled = golden["latent_mean"] + golden["latent_std"] * golden["posterior_noise"]
    clean = (sampled - meta["vae_shift_factor"]) * meta["vae_scaling_factor"]
    noise, sigma = golden["noise"], golden["sigmas"].view(-1, 1, 1, 1)
    noisy = (1 - sigma) * clean + sigma * noise
    batch, channels, height, width = noisy.shape
    with POLICY.on(transformer):
        packed = transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, batch, channels, height, width),
            encoder_hidden_states=golden["prompt_embeds"],
            pooled_projections=golden["pooled_prompt_embeds"],
            timestep=golden["timesteps"] / 1000,
            guidance=torch.full((batch,), guidance),
            img_ids=FluxPipeline._prepare_latent_image_ids(
                batch, height // 2, width // 2, "cpu", torch.float32
            ),
            txt_ids=torch.zeros(7, 3),
        ).sample
    prediction = FluxPipeline._unpack_latents(packed, height * 8, width * 8, 8)
    return prediction.detach(), ((prediction - (noise - clean)) ** 2).mean()
