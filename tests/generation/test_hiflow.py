"""HiFlow in a stock pipeline: identities, the loop written out, and the path of the native pass."""

import cmath
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from latents import SIZE, draw, transformer_call, unpacked
from PIL import Image, ImageFilter

from urae.execution import MemoryPlan
from urae.generation import Hiflow, Sdedit, generate, nominal_strength
from urae.generation.guide import smooth, steps_watched
from urae.generation.hiflow import BLUR, aligned, noised, sharpened
from urae.generation.path import NativePath
from urae.resolution import ResolutionPolicy, active_policy, dynamic_shift

PROMPT = "a flat tiger on a wood background"
LARGE = (128, 64)
NOTHING = {"direction": 0.0, "acceleration": 0.0, "sharpen": 0.0}


def numbers(*shape, seed=9):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def guide():
    return numbers(1, 16, 8, 12)


@pytest.fixture
def path():
    """Of a native pass of three steps at 4 x 6 latents."""
    return NativePath(clean=numbers(3, 1, 16, 4, 6), sigmas=torch.tensor([1.0, 0.7, 0.2]))


def aligned_draw(pipe, embeds, guide, path, *, size=SIZE, num=1, steps=3, **options):
    options = Hiflow(**options)
    strength = nominal_strength(options.start_sigma, shift=dynamic_shift(pipe, size))
    generator = [torch.Generator().manual_seed(seed) for seed in range(num)]
    with aligned(pipe, path, options, size=size):
        images = draw(
            pipe,
            embeds,
            size=size,
            num=num,
            steps=steps,
            latents=noised(pipe, guide, SIZE, sigma=options.start_sigma, generator=generator),
            sigmas=np.linspace(strength, strength / steps, steps),
        )
    return unpacked(pipe, images, size)


# Identities


def test_without_weights_from_pure_noise_it_is_direct(pipe, embeds, guide, path):
    ours = aligned_draw(pipe, embeds, guide, path, start_sigma=1.0, **NOTHING)
    assert torch.equal(ours, unpacked(pipe, draw(pipe, embeds)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_of_all_frequencies_lands_on_the_native_path(pipe, embeds, guide, path, dtype):
    ours = aligned_draw(pipe.to(dtype), embeds, guide, path, steps=1, cutoff=1e3)
    assert ours.dtype == dtype
    there = path.at(torch.tensor(Hiflow.start_sigma))
    expected = F.interpolate(there, size=(8, 12), mode="bicubic")
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(ours.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"shifted_patches": True}, {"reference": "picture"}], ids=str)
def test_a_batch_is_a_loop(pipe, embeds, options):
    guides = numbers(2, 16, 8, 12)
    path = NativePath(clean=numbers(2, 2, 16, 4, 6), sigmas=torch.tensor([0.9, 0.3]))
    first = NativePath(clean=path.clean[:, :1], sigmas=path.sigmas)
    together = aligned_draw(pipe, embeds, guides, path, num=2, **options)
    alone = aligned_draw(pipe, embeds, guides[:1], first, **options)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)
    assert not torch.allclose(together[1:], alone, atol=1e-2)


# The loop, written out


def low_passed(image, cutoff):
    """The Fourier transform by its definition, with matrices."""
    height, width = image.shape[-2:]
    rows, columns = (
        torch.tensor([[cmath.exp(-2j * cmath.pi * k * x / n) for x in range(n)] for k in range(n)])
        for n in (height, width)
    )
    spectrum = rows @ image.to(rows.dtype) @ columns.T
    for k in range(height):
        for m in range(width):
            d2 = (2 * min(k, height - k) / height) ** 2 + (2 * min(m, width - m) / width) ** 2
            spectrum[..., k, m] /= 1 + (d2 / cutoff**2) ** 4
    back = rows.conj().T @ spectrum @ columns.conj()
    return back.real.float() / (height * width)


@pytest.mark.parametrize("shape", [(8, 12), (6, 6), (2, 14)])
@pytest.mark.parametrize("cutoff", [0.2, 0.9])
def test_smooth_is_the_fourier_transform_written_out(shape, cutoff):
    values = numbers(2, 3, *shape)
    torch.testing.assert_close(
        smooth(values, cutoff=cutoff), low_passed(values, cutoff), rtol=1e-4, atol=1e-5
    )


def point(path, sigma):
    """Between the two levels of the path around sigma."""
    levels = path.sigmas.tolist()
    if sigma >= levels[0]:
        return path.clean[0]
    for i in range(len(levels) - 1):
        if levels[i] >= sigma >= levels[i + 1]:
            share = (levels[i] - sigma) / (levels[i] - levels[i + 1])
            return (1 - share) * path.clean[i] + share * path.clean[i + 1]
    return path.clean[-1]


def dense(pipe, embeds, guide, path, *, shift, steps, start_sigma, direction, acceleration, cutoff):
    noise = torch.randn(guide.shape, generator=torch.Generator().manual_seed(0))
    noisy = (1 - start_sigma) * guide + start_sigma * noise
    first = start_sigma / (shift - (shift - 1) * start_sigma)
    u = [first * (steps - i) / steps for i in range(steps)] + [0.0]
    sigmas = [shift * x / (1 + (shift - 1) * x) for x in u]
    text, text_ids = embeds["prompt_embeds"], torch.zeros(7, 3)
    taken = []
    for i, sigma in enumerate(sigmas[:-1]):
        predicted = noisy - sigma * transformer_call(pipe, embeds, noisy, sigma, text, text_ids, 3.5)
        reference = F.interpolate(point(path, sigma), size=noisy.shape[-2:], mode="bicubic")
        a, b = direction * (steps - i) / steps, acceleration * (steps - i) / steps
        clean = predicted + a * (low_passed(reference, cutoff) - low_passed(predicted, cutoff))
        velocity, towards = (noisy - clean) / sigma, (noisy - reference) / sigma
        if taken:
            velocity_before, towards_before = taken[-1]
            velocity = velocity + b * ((velocity_before + towards - towards_before) - velocity)
        taken.append((velocity, towards))
        noisy = noisy + (sigmas[i + 1] - sigma) * velocity
    return noisy


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize(
    "options",
    [
        {"direction": 1.0, "acceleration": 0.5, "cutoff": 0.2},
        {"direction": 0.25, "acceleration": 0.0, "cutoff": 0.6},
        {"direction": 0.0, "acceleration": 1.0, "cutoff": 0.2},
    ],
    ids=str,
)
def test_it_is_the_loop_written_out(pipe, embeds, guide, path, steps, options):
    with ResolutionPolicy(shift=3.0).on(pipe):
        ours = aligned_draw(pipe, embeds, guide, path, steps=steps, start_sigma=0.8, **options)
    expected = dense(pipe, embeds, guide, path, shift=3.0, steps=steps, start_sigma=0.8, **options)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)
    plain = dense(
        pipe, embeds, guide, path, shift=3.0, steps=steps, start_sigma=0.8, **options | NOTHING_PULLS
    )
    assert not torch.allclose(ours, plain, atol=1e-2)


NOTHING_PULLS = {"direction": 0.0, "acceleration": 0.0}


def test_sharpening_adds_the_difference_to_a_gaussian_blur():
    values = np.random.default_rng(0).integers(80, 170, size=(9, 11, 3), dtype=np.uint8)
    weights = np.array([[math.exp(-(x * x + y * y) / (2 * BLUR**2)) for x in (-1, 0, 1)] for y in (-1, 0, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(float), (3, 3), axis=(0, 1))
    blurred = (windows * weights / weights.sum()).sum(axis=(-2, -1))
    inside = values[1:-1, 1:-1].astype(float)
    ours = np.asarray(sharpened(Image.fromarray(values), amount=1.0), dtype=float)
    assert abs(ours[1:-1, 1:-1] - (2 * inside - blurred)).max() <= 0.51
    assert np.array_equal(ours[0], values[0])
    untouched = sharpened(Image.fromarray(values), amount=0.0)
    assert np.array_equal(np.asarray(untouched), values)
    assert not np.array_equal(ours, np.asarray(Image.fromarray(values).filter(ImageFilter.SHARPEN)))


# The path


def test_a_path_is_linear_between_its_levels(path):
    for sigma in (1.0, 0.95, 0.7, 0.5, 0.2, 0.05):
        torch.testing.assert_close(path.at(torch.tensor(sigma)), point(path, sigma))
    assert torch.equal(path.at(torch.tensor(0.7)), path.clean[1])


def test_a_path_round_trips_through_a_file(path, tmp_path):
    path.save(tmp_path / "a.safetensors")
    again = NativePath.load(tmp_path / "a.safetensors")
    assert torch.equal(again.clean, path.clean)
    assert torch.equal(again.sigmas, path.sigmas)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_watching_changes_nothing_and_sees_each_prediction(pipe, embeds, dtype):
    pipe.to(dtype)
    expected, seen = draw(pipe, embeds, num=2), []
    with steps_watched(pipe, seen.append, size=SIZE):
        images = draw(pipe, embeds, num=2)
    assert torch.equal(images, expected)
    assert [step.index for step in seen] == [0, 1, 2]
    # The last step goes to sigma 0, where the prediction is the image.
    last = seen[-1].noisy - seen[-1].sigma * seen[-1].velocity
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(last, unpacked(pipe, images).float(), rtol=tolerance, atol=tolerance)


# Through generate


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


def test_without_weights_the_image_is_the_direct_one(small):
    method = Hiflow(native_steps=1, start_sigma=1.0, **NOTHING)
    settings = {"size": LARGE, "steps": 3, "guidance": 2.0}
    assert same(generate(small, PROMPT, method=method, **settings), generate(small, PROMPT, **settings))


def test_the_native_picture_is_the_one_of_the_other_methods(small):
    pictures = []
    for method in (Hiflow(native_steps=2), Sdedit(native_steps=2)):
        generate(small, PROMPT, size=LARGE, method=method, steps=1, on_native=pictures.append)
    assert same(*pictures)


def test_the_path_is_kept_beside_the_picture_and_really_taken(small, tmp_path):
    settings = {"size": LARGE, "steps": 2, "natives": tmp_path}
    method = Hiflow(native_steps=2)
    generate(small, PROMPT, method=Sdedit(native_steps=2), **settings)
    assert [file.suffix for file in tmp_path.iterdir()] == [".png"]
    steps = []
    first = generate(small, PROMPT, method=method, on_step=lambda: steps.append(1), **settings)
    picture, path = sorted(tmp_path.iterdir())
    assert (picture.stem, path.suffix) == (path.stem, ".safetensors")
    assert same(first, generate(small, PROMPT, method=method, on_step=lambda: steps.append(1), **settings))
    assert len(steps) == 8
    kept = NativePath.load(path)
    assert kept.clean.shape == (2, 1, 16, 6, 12)
    NativePath(clean=kept.clean + 1, sigmas=kept.sigmas).save(path)
    assert not same(first, generate(small, PROMPT, method=method, **settings))


def test_a_given_picture_has_no_path(small):
    native = Image.linear_gradient("L").resize((96, 48)).convert("RGB")
    settings = {"size": LARGE, "steps": 1, "native": native}
    with pytest.raises(
        ValueError, match="hiflow follows the native pass step by step, which a given picture"
    ):
        generate(small, PROMPT, method="hiflow", **settings)
    image = generate(small, PROMPT, method=Hiflow(reference="picture"), **settings)
    assert image.info["guidance"] == "4.5"
    assert not same(image, generate(small, PROMPT, method=Hiflow(reference="picture", **NOTHING), **settings))


@pytest.mark.parametrize("policy", ["none", ResolutionPolicy(shift=6.0)])
def test_it_starts_at_the_start_sigma_whatever_the_shift(small, policy):
    seen = []
    method = Hiflow(reference="picture")
    hook = small.transformer.register_forward_pre_hook(
        lambda module, arguments, settings: seen.append(settings["timestep"].item()), with_kwargs=True
    )
    native = Image.new("RGB", (96, 48))
    generate(small, PROMPT, size=LARGE, method=method, native=native, policy=policy, steps=3)
    hook.remove()
    assert len(seen) == 3
    assert seen[0] == pytest.approx(0.783, abs=1e-6)


def test_an_offloaded_pipeline_gives_the_same(small):
    settings = {"size": LARGE, "method": Hiflow(native_steps=2), "steps": 2}
    plan = MemoryPlan(device="cpu", offload="model")
    assert same(generate(small, PROMPT, **settings, memory=plan), generate(small, PROMPT, **settings))


def test_everything_is_restored(small, pipe, embeds, guide, path):
    before = (small.transformer.pos_embed, small.scheduler, set(small.components))
    generate(small, PROMPT, size=LARGE, method=Hiflow(native_steps=1, shifted_patches=True), steps=2)
    assert (small.transformer.pos_embed, small.scheduler, set(small.components)) == before
    assert active_policy(small) is None
    assert not small.transformer._forward_pre_hooks
    assert not small.transformer._forward_hooks
    plain, scheduler = draw(pipe, embeds), pipe.scheduler
    with pytest.raises(KeyError), aligned(pipe, path, Hiflow(shifted_patches=True), size=SIZE):
        raise KeyError
    assert pipe.scheduler is scheduler
    assert torch.equal(draw(pipe, embeds), plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_sigma": 0.0}, r"start_sigma is 0.0: expected a noise level in \(0, 1\]"),
        ({"direction": 1.5}, r"direction is 1.5: expected a weight in \[0, 1\]"),
        ({"acceleration": -0.1}, r"acceleration is -0.1: expected a weight in \[0, 1\]"),
        ({"cutoff": 0.0}, "cutoff is 0.0: expected a share of the highest frequency above 0"),
        ({"sharpen": -1.0}, "sharpen is -1.0: expected a number of 0 or more"),
        ({"reference": "image"}, "reference is 'image': expected one of path, picture"),
        ({"native_steps": 0}, "native_steps is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Hiflow(**options)
