"""ESRGAN: exactly the size that was asked for, and plain words for what is missing."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from urae.adapters import Lora, attach
from urae.errors import BadFile, MissingExtra
from urae.generation import Esrgan, generate
from urae.generation.esrgan import enlarged, open_enlarger
from urae.resolution import ResolutionPolicy

PROMPT = "a flat tiger on a wood background"


class Twice(torch.nn.Upsample):
    """The simplest network that enlarges: every pixel becomes four."""

    scale = 2

    def __init__(self):
        super().__init__(scale_factor=2)


@pytest.fixture
def picture():
    values = np.random.default_rng(0).integers(0, 256, size=(6, 10, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def weights(tmp_path):
    """Of a Real-ESRGAN network that is tiny and random."""
    pytest.importorskip("spandrel", exc_type=ImportError)
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(0)
    network = ESRGAN(num_filters=4, num_blocks=2, scale=4)
    path = tmp_path / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_a_network_of_the_right_factor_has_the_last_word(picture):
    expected = np.asarray(picture).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(np.asarray(enlarged(picture, Twice(), size=(20, 12))), expected)


@pytest.mark.parametrize("size", [(40, 24), (16, 16), (32, 16)])
def test_the_rest_of_the_way_is_lanczos(picture, size):
    twice = enlarged(picture, Twice(), size=(20, 12))
    ours = enlarged(picture, Twice(), size=size)
    assert ours.size == size
    assert np.array_equal(np.asarray(ours), np.asarray(twice.resize(size, Image.Resampling.LANCZOS)))


def test_without_spandrel_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(
        MissingExtra, match=r"needs torchvision, and spandrel is missing: pip install 'urae\[esrgan\]'"
    ):
        open_enlarger(tmp_path / "a.safetensors")


def test_files_that_are_not_read(tmp_path):
    with pytest.raises(
        ValueError, match="esrgan needs the weights of a network: set weights to a .safetensors"
    ):
        open_enlarger("")
    with pytest.raises(
        ValueError, match=r"RealESRGAN_x4plus.pth is not read, as a pickle .*weights_only=True"
    ):
        open_enlarger("RealESRGAN_x4plus.pth")
    with pytest.raises(ValueError, match=r"gone\.safetensors does not exist"):
        open_enlarger("gone.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"123")
    with pytest.raises(BadFile, match=r"cut\.safetensors is not a complete safetensors file"):
        open_enlarger(tmp_path / "cut.safetensors")


def test_weights_are_asked_for_before_the_native_pass(small):
    steps = []
    with pytest.raises(ValueError, match="esrgan needs the weights of a network"):
        generate(small, PROMPT, size=(128, 64), method="esrgan", on_step=lambda: steps.append(1))
    assert not steps


@pytest.mark.parametrize(
    "settings", [{"steps": 4}, {"guidance": 2.0}, {"policy": "none"}, {"policy": ResolutionPolicy()}], ids=str
)
def test_settings_of_a_pass_that_does_not_happen_are_refused(small, settings):
    (name,) = settings
    with pytest.raises(
        ValueError, match=f"{name} has no effect with the esrgan method, which does not denoise"
    ):
        generate(small, PROMPT, size=(128, 64), method="esrgan", **settings)


def test_an_adapter_is_refused(small):
    attached = attach(small.transformer, Lora(rank=2))
    adapter = attached.export()
    attached.detach()
    with pytest.raises(ValueError, match="adapter has no effect with the esrgan method"):
        generate(small, PROMPT, size=(128, 64), method="esrgan", adapter=adapter)


# With spandrel


def test_a_whole_image(small, weights):
    native = Image.linear_gradient("L").resize((96, 48)).convert("RGB")
    ours = generate(small, PROMPT, size=(384, 192), method=Esrgan(weights=str(weights)), native=native)
    network = open_enlarger(weights)
    assert network.scale == 4
    pixels = torch.from_numpy(np.array(native)).permute(2, 0, 1)[None] / 255
    expected = (network(pixels)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    assert np.array_equal(np.asarray(ours), expected.numpy())
    assert len(ours.info["weights_hash"]) == 64
    assert (ours.info["method"], ours.info["steps"], ours.info["policy"]) == ("esrgan", "0", "none")
    fitted = generate(small, PROMPT, size=(128, 64), method=Esrgan(weights=str(weights)), native=native)
    assert fitted.size == (128, 64)


def test_how_the_size_is_reached_is_said(weights):
    said = Esrgan(weights=str(weights)).describe(steps=0, shift=3.0)
    assert said == "tiny.safetensors enlarges 4 times, the rest of the way is Lanczos resampling"


def test_other_networks_are_refused(weights, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(BadFile, match=r"a\.safetensors holds no network that spandrel knows"):
        open_enlarger(tmp_path / "a.safetensors")
