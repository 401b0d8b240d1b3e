"""Metrics with weights: the real loading code on tiny networks in the real formats, against plain torch."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import TRUNKS, clip_folder, inception_file, lpips_file, open_clip_folder, tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil

from urae.errors import BadFile, MissingExtra
from urae.metrics import METRICS, LocalWeights, Options
from urae.metrics.clip import MEAN, middle_square, whole
from urae.metrics.hps import padded_square
from urae.metrics.inception import inception_features, resized
from urae.metrics.iqa import IqaReader
from urae.metrics.pictures import LazyPicture, MeasuredPicture
from urae.mini import render, scene

CPU = Options(device="cpu", num_crops=3)


def sample(
    picture: Image.Image, prompt: str = "a tiger", partner: Image.Image | None = None
) -> MeasuredPicture:
    return MeasuredPicture(
        picture=LazyPicture(picture),
        name="0",
        prompt=prompt,
        partner=LazyPicture(partner) if partner else None,
    )


def samples(size: int = 96) -> list[MeasuredPicture]:
    prompts = ("a tiger on wood", "an owl", "three words more")
    return [sample(render(scene(i), size), prompt) for i, prompt in enumerate(prompts)]


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1))[None]


# --- Inception ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    return path, inception_file(path)


def test_inception_is_that_of_the_paper_s_table(inception):
    path, network = inception
    given = torch.cat([pixels(render(scene(i), 299)) for i in range(2)])
    with torch.inference_mode():
        expected = network(given)
        found = inception_features(given, LocalWeights(path).tensors())
    assert (expected[0] - expected[1]).abs().mean() > 0.003 * expected.abs().mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_fid_sees_the_resized_picture_and_patch_fid_native_crops(inception):
    path, network = inception
    picture = render(scene(0), 512)
    (whole_features,) = METRICS["fid"].open(LocalWeights(path), CPU).read([sample(picture)])
    crops = METRICS["patch_fid"].open(LocalWeights(path), CPU).read([sample(picture), sample(picture)])
    with torch.inference_mode():
        expected = network(torch.from_numpy(resized(picture, 299))[None])
    np.testing.assert_allclose(whole_features, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert [rows.shape for rows in crops] == [(3, 18), (3, 18)]
    # The same places of pictures of one size, and different places of one picture.
    np.testing.assert_allclose(crops[0], crops[1], rtol=1e-4, atol=1e-6)
    assert np.abs(crops[0][0] - crops[0][1]).max() > 1e-3


def test_the_resize_is_antialiased_and_does_not_round():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1196, 1196, 3), dtype=np.uint8))
    small = resized(noise, 299)
    assert small.std() < 0.4 * np.asarray(noise).std()
    assert np.abs(small - small.round()).max() > 0.4
    reference = F.interpolate(pixels(noise), size=(299, 299), mode="bicubic", antialias=True)[0]
    np.testing.assert_allclose(small, reference, atol=0.01)


def test_the_resize_does_not_overshoot_at_edges():
    """As the published code of the clean resize has it."""
    edge = Image.fromarray(np.repeat(np.uint8([[0] * 300 + [255] * 300]), 600, axis=0)).convert("RGB")
    small = resized(edge, 299)
    assert (small.min(), small.max()) == (0, 255)
    free = F.interpolate(pixels(edge), size=(299, 299), mode="bicubic", antialias=True)
    assert free.min() < -1
    assert free.max() > 256


# --- CLIP -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return folder, clip_folder(folder)


def test_clip_score_and_pickscore_are_the_model_s_own_logits(clip):
    folder, model = clip
    given = samples()
    tokens = tokenizer()([s.prompt for s in given], padding=True, return_tensors="pt")
    seen = torch.stack([middle_square(s.image, 32) for s in given])
    with torch.inference_mode():
        logits = model(pixel_values=seen, **tokens).logits_per_image.diag()
    scale = model.logit_scale.exp().item()
    pick = METRICS["pickscore"].open(LocalWeights(folder), CPU).read(given)
    score = METRICS["clip"].open(LocalWeights(folder), CPU).read(given)
    np.testing.assert_allclose(pick, logits, rtol=1e-4)
    np.testing.assert_allclose(score, (100 * logits / scale).clamp(min=0), rtol=1e-4)
    assert logits.std() > 1e-3


@pytest.mark.parametrize("size", [(96, 96), (120, 75), (75, 121)])
def test_preparation_is_that_of_clip_s_own_processor(size):
    picture = render(scene(1), 128).resize(size)
    own = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = own(picture, return_tensors="np").pixel_values[0]
    np.testing.assert_allclose(middle_square(picture, 32), expected, atol=1e-6)


def test_long_prompts_are_cut_at_77_tokens(clip):
    folder, _ = clip
    reader = METRICS["clip"].open(LocalWeights(folder), CPU)
    picture = samples()[0].image
    long = "a " * 90
    cut, longer = reader.read([sample(picture, long), sample(picture, long + "owl")])
    assert cut == longer


def test_cmmd_embeds_whole_pictures_with_length_1(clip):
    folder, model = clip
    given = samples()
    rows = METRICS["cmmd"].open(LocalWeights(folder), CPU).read(given)
    with torch.inference_mode():
        seen = model.vision_model(pixel_values=whole(given[0].image, 32)[None]).pooler_output
        expected = F.normalize(model.visual_projection(seen), dim=1)
    np.testing.assert_allclose(rows[0], expected, rtol=1e-4, atol=1e-6)
    assert [row.shape for row in rows] == [(1, 8)] * 3


# --- HPS ------------------------------------------------------------------------------------------------------------


def test_hps_is_open_clip_s_cosine(tmp_path):
    model = open_clip_folder(tmp_path)
    given = samples()
    ids = tokenizer()([s.prompt for s in given], padding=True, return_tensors="pt").input_ids
    seen = torch.stack([padded_square(s.image, 32) for s in given])
    with torch.inference_mode():
        expected = 100 * model.cosine(seen, ids)
    found = METRICS["hps"].open(LocalWeights(tmp_path), CPU).read(given)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("an “owl”, ‘grey’", "an \"owl\", 'grey'"),
        ("a ﬁsh &amp;amp; an owl", "a fish & an owl"),
        ("cafÃ©  au\tlait", "café au lait"),
        ("an owl<|endoftext|>, asleep", "an owl<| endoftext |>, asleep"),
        ("a plain owl", "a plain owl"),
    ],
)
def test_hps_published_reads_a_prompt_as_open_clip_does(given, read, tmp_path):
    """Its own cleaning: straight quotes, letters for ligatures, entities unfolded twice, no end inside a prompt."""
    pytest.importorskip("ftfy", reason="ftfy is not installed: pip install 'urae[hps]'")
    open_clip_folder(tmp_path)
    picture = samples()[0].image
    ours, published = (METRICS[name].open(LocalWeights(tmp_path), CPU) for name in ("hps", "hps_published"))
    assert published.clean(given) == read
    assert published.read([sample(picture, given)]) == ours.read([sample(picture, read)])
    assert ours.clean(given) == given
    assert ours.identity != published.identity


def test_hps_published_without_ftfy_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingExtra, match=r"ftfy: pip install 'urae\[hps\]'"):
        METRICS["hps_published"].open(LocalWeights(tmp_path), CPU)


def test_hps_pads_a_wide_picture_with_black_to_a_square():
    white = Image.new("RGB", (64, 32), "white")
    seen = padded_square(white, 32)
    black = -torch.tensor(MEAN).view(3, 1, 1)
    deviation = (1 + black) / seen[:, 16, 16].view(3, 1, 1)
    torch.testing.assert_close(seen[:, :8] * deviation, black.expand(3, 8, 32))
    torch.testing.assert_close(seen[:, 24:] * deviation, black.expand(3, 8, 32))
    torch.testing.assert_close(seen[:, 8:24], seen[:, 16:17, 16:17].expand(3, 16, 32))


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path):
    open_clip_folder(tmp_path)
    file = tmp_path / "open_clip_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if name != "visual.proj"}, file)
    with pytest.raises(BadFile, match=r"does not fit its configuration: visual_projection.weight"):
        METRICS["hps"].open(LocalWeights(tmp_path), CPU).read(samples())
    save_file({**tensors, "visual.attnpool.weight": torch.ones(1)}, file)
    with pytest.raises(BadFile, match=r"visual.attnpool.weight is not a tensor of an open_clip model"):
        METRICS["hps"].open(LocalWeights(tmp_path), CPU).read(samples())


# --- LPIPS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", list(TRUNKS))
def test_lpips_is_the_weighted_distance_of_unit_features(net, tmp_path):
    trunk, heads = lpips_file(tmp_path / "lpips.safetensors", net)
    a, b = render(scene(0), 96), render(scene(1), 96)
    reader = METRICS["lpips"].open(LocalWeights(tmp_path / "lpips.safetensors"), CPU)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    expected = 0.0
    x, y = ((pixels(i) / 127.5 - 1 - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1) for i in (a, b))
    with torch.inference_mode():
        for place, layer in enumerate(trunk):
            x, y = layer(x), layer(y)
            if place in TRUNKS[net][1]:
                head = heads[TRUNKS[net][1].index(place)]
                difference = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
                expected += float((difference * head).sum(1).mean())
    there, back, same = reader.read([sample(a, partner=b), sample(b, partner=a), sample(a, partner=a)])
    assert there == pytest.approx(expected, rel=1e-4)
    assert there == pytest.approx(float(back), rel=1e-5)
    assert same == 0


def test_lpips_refuses_another_size(tmp_path):
    lpips_file(tmp_path / "lpips.safetensors", "alex")
    reader = METRICS["lpips"].open(LocalWeights(tmp_path / "lpips.safetensors"), CPU)
    with pytest.raises(ValueError, match="96x96 px and its reference 64x64: expected equal sizes"):
        reader.read([sample(render(scene(0), 96), partner=render(scene(0), 64))])


# --- weights --------------------------------------------------------------------------------------------------------


def test_untrained_weights_are_known(tmp_path, clip, inception):
    clip_folder(tmp_path / "fresh", trained=False)
    lpips_file(tmp_path / "marked.safetensors", "alex", trained=False)
    lpips_file(tmp_path / "lpips.safetensors", "alex")
    assert LocalWeights(tmp_path / "fresh").untrained
    assert LocalWeights(tmp_path / "marked.safetensors").untrained
    assert not LocalWeights(clip[0]).untrained
    assert not LocalWeights(inception[0]).untrained
    assert not LocalWeights(tmp_path / "lpips.safetensors").untrained
    # The published Inception has no scales: they are 1 in its file.
    tensors = load_file(inception[0])
    ones = {name: t if ".bn.weight" not in name else torch.ones_like(t) for name, t in tensors.items()}
    save_file(ones, tmp_path / "scaleless.safetensors")
    assert not LocalWeights(tmp_path / "scaleless.safetensors").untrained


def test_the_hash_of_weights_is_that_of_their_files(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        clip_folder(folder)
    assert LocalWeights(a).sha256 == LocalWeights(b).sha256
    hashes = {LocalWeights(a).sha256}
    for name in ("config.json", "chat_template.jinja", "tokenizer.model"):
        with (b / name).open("a") as file:
            file.write(" ")
        hashes.add(LocalWeights(b).sha256)
    assert len(hashes) == 4


def test_cmmd_as_published_sees_the_middle_square(tmp_path):
    """Of a square picture both see all; of a wide one the published code cuts the sides off first."""
    clip_folder(tmp_path / "clip")
    ours, published = (
        METRICS[name].open(LocalWeights(tmp_path / "clip"), CPU) for name in ("cmmd", "cmmd_published")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    wide, square = Image.fromarray(pixels), Image.fromarray(pixels[:, 16:80])
    np.testing.assert_array_equal(published.read([sample(wide)])[0], ours.read([sample(square)])[0])
    np.testing.assert_array_equal(published.read([sample(square)])[0], ours.read([sample(square)])[0])
    assert not np.array_equal(ours.read([sample(wide)])[0], ours.read([sample(square)])[0])
    assert ours.identity != published.identity


def test_only_safetensors_are_read(tmp_path):
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth is not a .safetensors file"):
        LocalWeights(tmp_path / "weights.pth").tensors()
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadFile, match="broken.safetensors is not a complete safetensors file"):
        LocalWeights(tmp_path / "broken.safetensors").tensors()
    with pytest.raises(BadFile, match=r"holds no model.safetensors"):
        METRICS["clip"].open(LocalWeights(tmp_path / "weights.pth"), CPU).read(samples())
    with pytest.raises(FileNotFoundError, match="no weights at"):
        LocalWeights(tmp_path / "nowhere")
    with pytest.raises(
        BadFile, match=r"not the weights of the FID Inception: Conv2d_1a_3x3.conv.weight is missing"
    ):
        inception_features(torch.zeros(1, 3, 299, 299), {})


def test_pyiqa_has_one_folder_of_weights(tmp_path, monkeypatch):
    """It fixes its folder when it is imported, so a second one would be taken for the first in silence."""
    monkeypatch.setitem(sys.modules, "pyiqa", ModuleType("pyiqa"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "first")
    reader = IqaReader(name="qualiclip", weights=LocalWeights(tmp_path), device="cpu")
    with pytest.raises(ValueError, match=r"qualiclip has its weights in .*, and pyiqa already reads first"):
        reader.metric  # noqa: B018


def test_a_missing_extra_says_how_to_install_it(tmp_path):
    with pytest.raises(MissingExtra, match=r"allows no commercial use.*pip install 'urae\[iqa\]'"):
        METRICS["maniqa"].open(LocalWeights(tmp_path), CPU)
