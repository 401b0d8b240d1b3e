"""Every family's calls: training shows the transformer what the stock pipeline shows it; batches, guidance,
checkpointing."""

from contextlib import contextmanager

import pytest
import torch
from tiny_families import LARGE, NATIVE, drawing, drawn, embeddings, noisy, velocity

from urae.execution.checkpointing import gradient_checkpointing
from urae.families import family_of, open_architecture, open_encoders, open_pipeline
from urae.resolution import ResolutionPolicy, num_tokens
from urae.resolution.embedding import named_inputs

PROMPTS = ["a", "a b c d e f"]
"""Of other lengths, so that their masks differ."""


@contextmanager
def calls_watched(tiny):
    """(inputs, output) of each call of the transformer."""
    seen = []

    def watch(module, inputs, named, output):
        seen.append((named_inputs(module, inputs, named), output[0]))

    hook = tiny.transformer.register_forward_hook(watch, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_training_shows_what_the_pipeline_shows(tiny, prompt):
    """The same inputs, so the same velocity to the bit, from cached embeddings."""
    calls, height, width = tiny.family.calls, *tiny.family.latents.shape(tiny.pipe, LARGE)
    with calls_watched(tiny) as seen:
        drawn(tiny, prompt=prompt, guidance=1.0 if tiny.guiding == "cfg" else 3.5)
    inputs, output = seen[0]
    sigma = float(calls.sigma(inputs)[0])
    found = velocity(tiny, calls.latents(inputs, height, width), text=embeddings(tiny, prompt), sigma=sigma)
    assert torch.equal(found, calls.velocity_in(output, height, width))


def test_pictures_from_prompts_and_from_their_embeddings_are_the_same(tiny):
    assert (drawn(tiny) == drawn(tiny, prompt=embeddings(tiny, "a b"))).all()


@pytest.mark.parametrize("size", [NATIVE, LARGE])
def test_two_at_once_are_two_by_themselves(tiny, size):
    latents = noisy(tiny, size, num=2)
    with torch.no_grad():
        both = velocity(tiny, latents, text=embeddings(tiny, *PROMPTS))
        for place, prompt in enumerate(PROMPTS):
            alone = velocity(tiny, latents[place : place + 1], text=embeddings(tiny, prompt))
            torch.testing.assert_close(both[place : place + 1], alone, atol=1e-5, rtol=0)


def test_latents_pack_and_unpack(tiny):
    latents = noisy(tiny)
    packed = tiny.family.latents.pack(latents)
    assert torch.equal(tiny.family.latents.unpack(packed, *latents.shape[-2:]), latents)
    assert packed.shape[1:] == tiny.family.latents.noise(tiny.pipe, LARGE, None).shape[1:]


def test_pictures_are_encoded_and_decoded_at_their_size(tiny):
    pixels = torch.rand(1, 3, *reversed(LARGE), generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = tiny.family.latents.encode(tiny.pipe, pixels)
    assert posterior.mean.shape[-2:] == tiny.family.latents.shape(tiny.pipe, LARGE)
    assert (posterior.std > 0).all()
    decoded = tiny.family.latents.decode(tiny.pipe, posterior.mean)
    assert decoded.shape == pixels.shape
    assert decoded.abs().max() <= 1


def test_a_folder_opens_as_a_whole_without_its_transformer_or_as_sizes(tiny, tmp_path):
    tiny.pipe.save_pretrained(tmp_path)
    whole, latents = open_pipeline(tmp_path, dtype="float32"), noisy(tiny)
    assert type(whole) is type(tiny.pipe)
    for name, tensor in tiny.transformer.state_dict().items():
        assert torch.equal(whole.transformer.state_dict()[name], tensor)
    with torch.no_grad():
        found = velocity(tiny, latents, transformer=whole.transformer)
        torch.testing.assert_close(found, velocity(tiny, latents), atol=1e-6, rtol=0)
    encoders = open_encoders(tmp_path, dtype="float32")
    assert encoders.transformer.device.type == "meta"
    for name, tensor in tiny.family.text.encode(encoders, ["a b"]).items():
        assert torch.equal(tensor, embeddings(tiny, "a b")[name])
    sizes = open_architecture(str(tmp_path), dtype=torch.float32)
    assert sizes.num_encoder_values == sum(
        value.numel() for name in tiny.family.text.encoders for value in getattr(whole, name).parameters()
    )
    assert num_tokens(sizes, LARGE) == num_tokens(tiny.pipe, LARGE)


# --- guidance


def num_calls(tiny, **changes) -> int:
    with calls_watched(tiny) as seen:
        drawn(tiny, **changes)
    return len(seen)


def calls_a_guided_step(tiny) -> int:
    return 2 if tiny.guiding == "cfg" and not tiny.guided_at_once else 1


def test_guidance_1_is_a_single_call_a_step(tiny):
    assert tiny.family.guidance.kind(tiny.transformer) == tiny.guiding
    assert num_calls(tiny, guidance=1.0) == 2
    assert num_calls(tiny, guidance=3.0) == 2 * calls_a_guided_step(tiny)


def test_guidance_is_the_usual_scale(tiny):
    """v(negative) + scale (v(prompt) - v(negative)): in one step the picture's latents are linear in the scale."""
    if tiny.guiding != "cfg" or tiny.rescales_guidance:
        return
    latents = [
        torch.as_tensor(
            drawn(
                tiny,
                guidance=scale,
                steps=1,
                settings={"generator": torch.Generator().manual_seed(0), "output_type": "latent"},
            )
        )
        for scale in (1.0, 2.0, 4.0)
    ]
    one, two, four = latents
    assert (two - one).abs().max() > 1e-3
    torch.testing.assert_close(four - one, 3 * (two - one), atol=1e-4, rtol=0)


def test_a_negative_prompt_counts_or_is_refused(tiny):
    if tiny.guiding != "cfg":
        with pytest.raises(ValueError, match="negative prompt 'c' has no effect"):
            drawn(tiny, negative="c")
        return
    picture = drawn(tiny, negative="c")
    assert abs(picture - drawn(tiny)).max() > 1e-4
    assert (picture == drawn(tiny, negative=embeddings(tiny, "c"))).all()
    with pytest.raises(ValueError, match="no effect at guidance 1"):
        drawn(tiny, negative="c", guidance=1.0)


def test_a_picture_is_drawn_again_from_a_noise_level(tiny):
    """Nearly from its beginning another picture, nearly from its end the same."""
    picture = tiny.pipe.image_processor.numpy_to_pil(drawn(tiny)[None])[0]

    def redrawn(start: float):
        sigmas = torch.linspace(start, start / 2, 2).numpy()
        scheduler = tiny.family.schedule.static(tiny.pipe.scheduler, 1.0)
        before, tiny.pipe.scheduler = tiny.pipe.scheduler, scheduler
        try:
            return tiny.family.pipelines.redraw(
                tiny.pipe, drawing(tiny), picture, sigmas=sigmas, start_sigma=start
            )
        finally:
            tiny.pipe.scheduler = before

    far, near = (abs(redrawn(start) - redrawn(0.01)).mean() for start in (0.99, 0.02))
    assert near < far / 2


# --- gradients


def gradients(tiny, mode, policy) -> dict[str, torch.Tensor]:
    parameters = {name: value for name, value in tiny.transformer.named_parameters() if value.requires_grad}
    with gradient_checkpointing(tiny.transformer, mode), policy.on(tiny.transformer):
        error = velocity(tiny, noisy(tiny, num=2), text=embeddings(tiny, *PROMPTS)).square().mean()
        found = torch.autograd.grad(error, list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("mode", ["full", "attention"])
def test_checkpointing_computes_the_same_gradients(tiny, mode):
    policy = ResolutionPolicy(linear=True, scale=2.0)
    kept, again = gradients(tiny, False, policy), gradients(tiny, mode, policy)
    for name, gradient in kept.items():
        assert (gradient is None) == (again[name] is None)
        if gradient is not None:
            torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_a_compiled_transformer_is_of_its_family(tiny):
    plain, pipe = tiny.transformer, tiny.pipe
    compiled = torch.compile(plain, backend="eager")
    assert family_of(compiled) is family_of(plain) is tiny.family
    assert tiny.family.name == tiny.name
    pipe.transformer = compiled
    try:
        assert family_of(pipe) is family_of(plain)
    finally:
        pipe.transformer = plain
