"""The native pass: its size, its picture, keeping it, and reusing it."""

import math

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file, save

from urae.adapters import Lora, attach
from urae.execution import MemoryPlan, quantised
from urae.generation import Hiflow, Imax, Sdedit, generate, native_picture_size, read_png_metadata, save_png
from urae.io import Unreadable
from urae.resolution import ResolutionPolicy

TIGER = "a flat tiger on a wood background"
WHALE = "a glossy whale on a dotted background"
SIZE = (128, 64)
QUICK = Sdedit(native_steps=2)


def draw(pipe, prompt=TIGER, **settings):
    return generate(pipe, prompt, **{"size": SIZE, "method": QUICK, "steps": 1, **settings})


def same(left, right):
    return np.array_equal(np.asarray(left.convert("RGB")), np.asarray(right.convert("RGB")))


@pytest.fixture
def adapter(small):
    attached = attach(small.transformer, Lora(rank=2))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    exported = attached.export(policy=ResolutionPolicy(linear=True, scale=2.0))
    attached.detach()
    return exported


def native_picture(pipe, seed=0, prompt=TIGER, **settings):
    return generate(pipe, prompt, size=(96, 48), seed=seed, **{"steps": 2, "policy": "none", **settings})


# Its size


@pytest.mark.parametrize(
    ("native", "size", "expected"),
    [
        (128, (512, 512), (128, 128)),
        (128, (256, 128), (192, 96)),
        (1024, (4096, 4096), (1024, 1024)),
        (1024, (4096, 2048), (1440, 720)),
        (1024, (2048, 4096), (720, 1440)),
    ],
)
def test_size_of_the_native_picture(pipe, native, size, expected):
    pipe.vae.register_to_config(sample_size=native)
    assert native_picture_size(pipe, size) == expected


def test_sizes_keep_shape_and_area(pipe):
    pipe.vae.register_to_config(sample_size=1024)
    for size in [(2048, 1152), (3840, 2160), (4096, 1760), (1536, 2048), (4096, 4080)]:
        width, height = native_picture_size(pipe, size)
        assert width % 16 == height % 16 == 0
        assert abs(math.log(width / height * size[1] / size[0])) < 0.01
        assert 0.8 <= width * height / 1024**2 <= 1.25


def test_sizes_without_a_native_picture_are_refused(pipe):
    with pytest.raises(ValueError, match="size 64x64 is not above the model's native 64x64: use the direct"):
        native_picture_size(pipe, (64, 64))
    with pytest.raises(ValueError, match="size 4096x64 has no native picture of its shape, the nearest is"):
        native_picture_size(pipe, (4096, 64))


# The picture


def test_it_is_what_direct_makes_at_that_size(small):
    pictures = []
    image = draw(small, seed=4, on_native=pictures.append)
    assert same(pictures[0], native_picture(small, seed=4))
    assert same(image, draw(small, seed=4, native=native_picture(small, seed=4)))


def test_the_native_pass_has_its_own_settings(small):
    pictures = []
    policy = ResolutionPolicy(shift=1.5)
    method = Imax(native_steps=3, native_guidance=1.0, native_policy=policy)
    draw(small, method=method, on_native=pictures.append)
    assert same(pictures[0], native_picture(small, steps=3, guidance=1.0, policy=policy))
    assert not same(pictures[0], native_picture(small, steps=3, guidance=1.0))


def test_it_is_made_without_adapter_and_policy(small, adapter):
    pictures = []
    with_adapter = draw(small, adapter=adapter, on_native=pictures.append)
    assert same(pictures[0], native_picture(small))
    assert not same(with_adapter, draw(small, policy=adapter.policy))
    with adapter.policy.on(small):
        draw(small, on_native=pictures.append)
    assert same(pictures[1], pictures[0])


def test_company_does_not_change_an_image(small):
    grid = draw(small, [TIGER, WHALE], seed=[3, 4])
    assert same(grid[1], draw(small, seed=4))
    assert same(grid[2], draw(small, WHALE, seed=3))


def test_steps_of_both_passes_are_reported(small):
    events = []
    draw(
        small,
        [TIGER, WHALE],
        steps=3,
        on_step=lambda: events.append("step"),
        on_native=lambda image: events.append("native"),
        on_image=lambda image: events.append("image"),
    )
    first = ["step"] * 2 + ["native"]
    second = ["step"] * 3 + ["image"]
    assert events == 2 * first + 2 * second


@pytest.mark.parametrize("method", [QUICK, Imax(native_steps=2)], ids=["sdedit", "imax"])
def test_an_offloaded_pipeline_gives_the_same(small, method):
    expected = draw(small, method=method)
    plan = MemoryPlan(device="cpu", offload="model")
    assert same(draw(small, method=method, memory=plan), expected)
    assert not hasattr(small.transformer, "_hf_hook")
    small.enable_model_cpu_offload(device="cpu")
    assert same(draw(small, method=method), expected)
    small.remove_all_hooks()


# Given


def test_pictures_and_files_may_be_given_for_each_or_for_all(small, tmp_path):
    pictures = [native_picture(small, seed=seed) for seed in (3, 4)]
    files = [save_png(picture, tmp_path / f"{i}.png") for i, picture in enumerate(pictures)]
    for_each = draw(small, seed=[3, 4], native=files)
    assert [same(a, b) for a, b in zip(for_each, draw(small, seed=[3, 4]), strict=True)] == [True, True]
    for_all = draw(small, seed=[3, 4], native=pictures[0])
    assert [same(a, b) for a, b in zip(for_all, for_each, strict=True)] == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"native": Image.new("RGB", (96, 96))}, "picture is 96x96, of another shape than 128x64: crop it"),
        ({"native": [Image.new("RGB", (96, 48))] * 2}, "there are 2 native pictures for 1 images"),
        ({"native": []}, "native is an empty list"),
        ({"native": Image.new("RGB", (96, 48)), "natives": "kept"}, "natives has no effect where"),
        ({"native": Image.new("RGB", (96, 48)), "method": "direct"}, "no effect with the direct method"),
        ({"natives": "kept", "method": "direct"}, "no effect with the direct method"),
        ({"size": (64, 64)}, "size 64x64 is not above the model's native 64x64"),
    ],
)
def test_what_cannot_be_followed_is_refused(small, settings, message):
    with pytest.raises(ValueError, match=message):
        draw(small, **settings)


@pytest.mark.parametrize("kind", ["turned", "sixteen bits", "opaque alpha"])
def test_a_file_is_read_upright_and_in_eight_bits(small, tmp_path, kind):
    upright = Image.fromarray((np.indices((48, 96)).sum(axis=0) * 1.7).astype(np.uint8)).convert("RGB")
    file = tmp_path / "given.png"
    if kind == "turned":
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    elif kind == "sixteen bits":
        Image.fromarray(np.asarray(upright)[..., 0].astype(np.uint16) * 257).save(file)
    else:
        upright.convert("RGBA").save(file)
    assert same(draw(small, native=file), draw(small, native=upright))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 48\nshowpage\n", "is none of JPEG, PNG"),
        (b"", "has no bytes"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read as an image"),
        (None, "cannot be opened"),
    ],
)
def test_a_file_that_is_no_picture_is_refused_by_name(small, tmp_path, content, message):
    file = tmp_path / "given.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unreadable, match=f"given.png {message}"):
        draw(small, native=file)


# Kept


def test_what_is_damaged_is_made_anew(small, tmp_path, caplog):
    """A picture cut short, a path with a changed header, without a tensor, or with another's."""
    method = Hiflow(native_steps=2)
    first = draw(small, method=method, natives=tmp_path)
    picture, path = (next(tmp_path.glob(f"*{ending}")) for ending in (".png", ".safetensors"))
    whole = {file: file.read_bytes() for file in (picture, path)}
    clean = load_file(path)["clean"]
    damaged = [(picture, whole[picture][:-20]), (picture, b""), (path, whole[path][:-4]), (path, b"x" * 99)]
    damaged += [(path, save({"clean": clean})), (path, save({"clean": clean, "sigmas": torch.ones(1)}))]
    for file, content in damaged:
        file.write_bytes(content)
        caplog.clear()
        assert same(draw(small, method=method, natives=tmp_path), first)
        assert f"made again, because {file}" in caplog.text
        assert {file: file.read_bytes() for file in (picture, path)} == whole


def test_a_kept_picture_is_taken_by_every_method_and_adapter(small, adapter, tmp_path):
    steps = []
    first = draw(small, natives=tmp_path, on_step=lambda: steps.append(1))
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert same(Image.open(file), native_picture(small))
    assert read_png_metadata(file).method == "direct"
    assert len(steps) == 3
    again = draw(small, natives=tmp_path, on_step=lambda: steps.append(1))
    assert same(first, again)
    assert len(steps) == 6
    draw(small, natives=tmp_path, method=Imax(native_steps=2))
    draw(small, natives=tmp_path, adapter=adapter)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [written]


def test_a_kept_picture_is_really_taken(small, tmp_path):
    draw(small, natives=tmp_path)
    (file,) = tmp_path.iterdir()
    other = Image.new("RGB", (96, 48), "red")
    other.save(file)
    assert same(draw(small, natives=tmp_path), draw(small, native=other))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"prompt": WHALE},
        {"size": (64, 128)},
        {"method": Sdedit(native_steps=1)},
        {"method": Sdedit(native_steps=2, native_guidance=2.0)},
        {"method": Sdedit(native_steps=2, native_policy=ResolutionPolicy(shift=2.0))},
    ],
    ids=str,
)
def test_another_picture_is_kept_for_other_settings(small, tmp_path, change):
    draw(small, natives=tmp_path)
    draw(small, natives=tmp_path, **change)
    assert len(list(tmp_path.iterdir())) == 2


def test_another_picture_is_kept_for_another_model(small, tmp_path):
    draw(small, natives=tmp_path)
    weight = small.transformer.x_embedder.weight
    weight.data += 1
    draw(small, natives=tmp_path)
    weight.data -= 1
    assert len(list(tmp_path.iterdir())) == 2


def test_another_picture_is_kept_for_each_way_to_store_the_weights(small, tmp_path):
    draw(small, natives=tmp_path)
    for num, kind in [(2, "fp8"), (3, "int8"), (3, "fp8")]:
        with quantised(small, kind):
            draw(small, natives=tmp_path)
        assert len(list(tmp_path.iterdir())) == num
    weight = small.transformer.x_embedder.weight
    weight.data += 1
    with quantised(small, "fp8"):
        draw(small, natives=tmp_path)
    weight.data -= 1
    assert len(list(tmp_path.iterdir())) == 4


def test_nothing_is_kept_of_a_model_with_an_adapter_attached_by_hand(small, adapter, tmp_path):
    with (
        adapter.on(small),
        pytest.raises(ValueError, match="while an adapter is attached by hand: give it as adapter"),
    ):
        draw(small, natives=tmp_path)


# Provenance


def test_an_image_says_how_both_passes_were_made(small, tmp_path):
    method = Imax(native_steps=2, weight=0.5, native_policy=ResolutionPolicy(shift=2.0))
    image = draw(small, method=method, steps=2)
    made = read_png_metadata(save_png(image, tmp_path / "a.png"))
    assert (made.method, made.steps, made.guidance, made.policy.shift) == ("imax", 2, 7.0, 6.0)
    assert made.options["weight"] == 0.5
    assert made.options["native_policy"]["shift"] == 2.0
    assert len(made.native) == 64
    assert draw(small, steps=2, seed=1).info["native"] != made.native
