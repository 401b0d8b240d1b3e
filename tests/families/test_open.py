"""Opening models by name, and the sentence where there is none."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from urae import mini
from urae.errors import BadFile, UraeError
from urae.families import model_name, open_pipeline
from urae.generation import generate


@pytest.fixture(scope="module")
def folder(untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-flux"
    untrained.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def single_file(folder, untrained):
    """A fine-tuned transformer in one file, prefixed as tools do that save whole checkpoints."""
    tensors = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    path = folder.parent / "tuned.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, path)
    return path


def weight(pipe):
    return pipe.transformer.x_embedder.weight


def test_a_folder(folder, untrained):
    pipe = open_pipeline(folder)
    assert torch.equal(weight(pipe), weight(untrained))
    assert model_name(pipe) == "tiny-flux"
    assert generate(pipe, "a tiger", size=(64, 64), steps=1).info["model"] == "tiny-flux"


@pytest.mark.skipif(
    not (mini.WEIGHTS / "model_index.json").is_file(), reason="the miniature is not trained yet"
)
def test_the_miniature():
    pipe = open_pipeline("mini")
    assert model_name(pipe) == "mini"
    assert pipe.transformer.dtype == torch.float32
    assert generate(pipe, "a tiger", size=(64, 64), steps=1).info["model"] == "mini"


def test_a_single_file_with_its_base(folder, single_file, untrained):
    pipe = open_pipeline(single_file, base=folder)
    assert torch.equal(weight(pipe), 1.5 * weight(untrained))
    assert torch.equal(pipe.text_encoder_2.shared.weight, untrained.text_encoder_2.shared.weight)
    assert model_name(pipe) == "tuned.safetensors"
    assert generate(pipe, "a tiger", size=(64, 64), steps=1).size == (64, 64)


def test_dtypes(folder, single_file):
    assert open_pipeline(folder, dtype="bfloat16").transformer.dtype == torch.bfloat16
    assert open_pipeline(single_file, base=folder, dtype="bfloat16").transformer.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype is 'fp8': expected one of auto, bfloat16, float16, float32"):
        open_pipeline(folder, dtype="fp8")


def test_a_single_file_without_base_is_refused(single_file):
    with pytest.raises(ValueError, match="holds a transformer alone: name the model that it was made from"):
        open_pipeline(single_file)


def test_a_base_without_effect_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"base 'other' has no effect .* only a \.safetensors file needs one"
    ):
        open_pipeline(folder, base="other")


def test_a_truncated_file_is_refused(single_file, folder, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(single_file.read_bytes()[:1000])
    with pytest.raises(BadFile, match=r"broken\.safetensors is not a complete safetensors file"):
        open_pipeline(broken, base=folder)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(BadFile, match=r"has no model_index\.json"):
        open_pipeline(tmp_path)


def test_a_pickle_is_refused():
    with pytest.raises(ValueError, match=r"model\.ckpt is a pickle"):
        open_pipeline("model.ckpt")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./nowhere"])
def test_a_name_that_is_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"there is no model '{name}': expected mini, a folder"):
        open_pipeline(name)


def test_a_file_that_is_not_there_is_refused(folder):
    with pytest.raises(ValueError, match=r"there is no file gone\.safetensors"):
        open_pipeline("gone.safetensors", base=folder)


def test_a_repository_that_is_not_here_is_refused_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UraeError, match="nobody-here/nothing cannot be downloaded: model_index.json is not in"
    ):
        open_pipeline("nobody-here/nothing")


def test_only_safetensors_are_read(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "pickled")
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(BadFile, match="is incomplete and cannot be opened"):
        open_pipeline(copy)
