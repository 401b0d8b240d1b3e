import json
import logging
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file

from rounding import REFERENCE_ROUNDING
from tiny import with_text_encoders
from urae.families import Posterior, family_of
from urae.families.flux import Flux
from urae.families.flux.calls import image_ids

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def flux():
    return Flux()


def test_the_family_is_found_by_the_transformer(pipe):
    assert family_of(pipe) == Flux()
    pipe.transformer = torch.nn.Linear(2, 2)
    with pytest.raises(
        ValueError, match="Linear is not a supported model family: expected one of Chroma, FLUX.1"
    ):
        family_of(pipe)


def test_a_compiled_transformer_is_recognised(pipe):
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    assert family_of(pipe) == Flux()
    pipe.transformer = torch.compile(torch.nn.Linear(2, 2), backend="eager")
    with pytest.raises(ValueError, match="Linear is not a supported model family"):
        family_of(pipe)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_images_go_where_an_offloaded_vae_computes(flux, pipe, part):
    seen = []
    getattr(pipe.vae, part).register_forward_pre_hook(lambda module, given: seen.append(given[0].device.type))
    # The one other device that every machine has; it holds shapes alone, so no numbers come back.
    for model in (pipe.transformer, pipe.vae):
        cpu_offload_with_hook(model, execution_device="meta")
    if part == "decoder":
        flux.latents.decode(pipe, torch.zeros(1, 16, 4, 4))
    else:
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            flux.latents.encode(pipe, torch.zeros(1, 3, 32, 32))
    assert seen == ["meta"]


def test_images_go_where_the_vae_lies_when_other_parts_lie_elsewhere(flux, pipe):
    """As in caching: the text encoders are back on the CPU when the VAE is on the GPU, the transformer is nowhere."""
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = flux.latents.encode(with_text_encoders(pipe), pixels)
    for part in (pipe.text_encoder, pipe.text_encoder_2, pipe.transformer):
        part.to("meta")
    found = flux.latents.encode(pipe, pixels)
    assert torch.equal(found.mean, expected.mean)
    assert flux.latents.decode(pipe, found.mean).device == pipe.vae.device


def test_velocity_agrees_with_the_reference(flux, transformer):
    case = next(c for c in json.loads((GOLDEN / "meta.json").read_text())["cases"] if c["name"] == "g1_c0")
    tensors = {k.removeprefix("g1_c0."): v for k, v in load_file(GOLDEN / "forward.safetensors").items()}
    height, width = case["latent_height"], case["latent_width"]
    with torch.no_grad():
        velocity = flux.calls.velocity(
            transformer,
            flux.latents.unpack(tensors["hidden_states"], height, width),
            sigma=tensors["timestep"],
            embeddings={
                "prompt_embeds": tensors["encoder_hidden_states"],
                "pooled_prompt_embeds": tensors["pooled_projections"],
            },
            guidance=tensors["guidance"][0].item(),
        )
    torch.testing.assert_close(
        flux.latents.pack(velocity), tensors["output"], atol=REFERENCE_ROUNDING, rtol=0
    )


def test_packing_is_undone_by_unpacking(flux):
    latents = torch.randn(2, 16, 6, 10)
    tokens = flux.latents.pack(latents)
    assert tokens.shape == (2, 15, 64)
    assert torch.equal(flux.latents.unpack(tokens, 6, 10), latents)
    # The first token is the 2 x 2 patch in the upper left corner, channel by channel.
    assert torch.equal(tokens[0, 0], latents[0, :, :2, :2].flatten())


def test_image_ids_tell_all_positions_apart(flux):
    ids = image_ids(2, 1200)
    assert ids.dtype == torch.float32
    assert ids.shape == (600, 3)
    assert len(ids.unique(dim=0)) == 600


def test_encoding_is_normalised_and_decoding_undoes_it(flux, pipe):
    pixels = torch.rand(2, 3, 64, 48) * 2 - 1
    posterior = flux.latents.encode(pipe, pixels)
    with torch.no_grad():
        raw = pipe.vae.encode(pixels).latent_dist
    assert posterior.mean.shape == (2, 16, 8, 6)
    torch.testing.assert_close(posterior.mean / 0.3611 + 0.1159, raw.mean)
    torch.testing.assert_close(posterior.std / 0.3611, raw.std)
    with torch.no_grad():
        expected = pipe.vae.decode(raw.mean).sample.clamp(-1, 1)
    torch.testing.assert_close(flux.latents.decode(pipe, posterior.mean), expected, atol=1e-4, rtol=1e-4)


def test_a_posterior_is_sampled_with_given_noise():
    posterior = Posterior(mean=torch.full((4,), 2.0), std=torch.full((4,), 0.5))
    assert posterior.sample(torch.tensor([0.0, 1.0, -1.0, 2.0])).tolist() == [2.0, 2.5, 1.5, 3.0]


def test_prompts_are_encoded_as_the_pipeline_does(flux, pipe):
    with_text_encoders(pipe)
    embeddings = flux.text.encode(pipe, ["a b", "c"])
    with torch.no_grad():
        tokens, pooled, _ = pipe.encode_prompt(["a b", "c"], max_sequence_length=8)
    assert torch.equal(embeddings["prompt_embeds"], tokens)
    assert torch.equal(embeddings["pooled_prompt_embeds"], pooled)
    assert tokens.shape == (2, 8, 32)
    assert not torch.equal(tokens[0], tokens[1])


def test_a_caption_beyond_clip_is_no_news_and_one_beyond_t5_is(flux, pipe):
    with_text_encoders(pipe, text_tokens=512)
    said: list[str] = []
    listening = logging.Handler()
    listening.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("diffusers.pipelines.flux.pipeline_flux")
    logger.addHandler(listening)
    try:
        flux.text.encode(pipe, ["a " * 200])
        assert said == []
        flux.text.encode(pipe, ["a " * 600])
        assert ["`max_sequence_length` is set to" in line for line in said] == [True]
        pipe.encode_prompt(["a " * 200])
        assert "CLIP can only handle" in said[-1]
    finally:
        logger.removeHandler(listening)


def test_prompts_without_text_encoders_are_refused(flux, pipe):
    with pytest.raises(ValueError, match="no text encoders"):
        flux.text.encode(pipe, ["a"])


@pytest.mark.parametrize(("embeds_guidance", "guidance"), [(True, None), (False, 3.5)])
def test_guidance_is_given_to_those_who_take_it_and_to_no_other(
    flux, transformer, embeds, embeds_guidance, guidance
):
    transformer = FluxTransformer2DModel.from_config(transformer.config, guidance_embeds=embeds_guidance)
    assert (flux.guidance.kind(transformer) == "embedded") == embeds_guidance
    with pytest.raises(ValueError, match="guidance"):
        flux.calls.velocity(
            transformer, torch.zeros(1, 16, 4, 4), sigma=torch.ones(1), embeddings=embeds, guidance=guidance
        )


def test_identities_change_with_a_single_weight(flux, pipe):
    with_text_encoders(pipe)
    before = flux.latents.identity(pipe), flux.text.identity(pipe)
    assert before == (flux.latents.identity(pipe), flux.text.identity(pipe))
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] += 1e-6
        pipe.text_encoder_2.shared.weight[0, 0] += 1e-6
    after = flux.latents.identity(pipe), flux.text.identity(pipe)
    assert before[0] != after[0]
    assert before[1] != after[1]
