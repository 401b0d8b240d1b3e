"""A transformer from one file: what it is called, how it is rounded, and the sentence where it is another model's."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_families import TINY

from urae.adapters.convert import to_layout
from urae.errors import BadFile
from urae.families.single_file import fill

WEIGHT = "double_blocks.0.img_attn.qkv"
FAMILIES = {tiny.name: tiny for tiny in TINY}


def original(transformer):
    """The weights under the names of the original repository, which those of an adapter for ComfyUI contain."""
    tensors = {}
    written = to_layout({}, "comfy", differences=transformer.state_dict())
    for key, tensor in written.items():
        if key.replace(".diff", ".scale.diff") in written:
            continue  # what newer versions of ComfyUI call a norm
        name = key.removeprefix("diffusion_model.")
        if name.endswith(".diff_b"):
            name = name.replace(".diff_b", ".bias")
        else:
            name = name.removesuffix(".diff") + ("" if name.endswith(".scale.diff") else ".weight")
        tensors[name] = tensor.detach()
    return tensors


@pytest.fixture(scope="module")
def flux():
    return FAMILIES["FLUX.1"]


@pytest.fixture
def opened(flux, tmp_path):
    """Write tensors and read them back into an empty transformer of FLUX.1's kind."""

    def open_(tensors, *, dtype=torch.float32, tiny=flux):
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / "model.safetensors")
        with torch.device("meta"):
            transformer = type(tiny.transformer).from_config(tiny.transformer.config)
        fill(transformer, tmp_path / "model.safetensors", tiny.family, dtype)
        return transformer.state_dict()

    return open_


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("name", ["FLUX.1", "Chroma", "FLUX.2"])
def test_original_names(opened, name, prefix):
    expected = FAMILIES[name].transformer.state_dict()
    tensors = {f"{prefix}{key}": tensor for key, tensor in original(FAMILIES[name].transformer).items()}
    if prefix:
        tensors["vae.encoder.conv_in.weight"] = torch.ones(2, 2)  # of the other parts of a checkpoint
    assert_same(opened(tensors, tiny=FAMILIES[name]), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_diffusers_names(opened, name):
    expected = FAMILIES[name].transformer.state_dict()
    assert_same(opened(expected, tiny=FAMILIES[name]), expected)
    rounded = opened(expected, tiny=FAMILIES[name], dtype=torch.bfloat16)
    assert_same(rounded, {key: tensor.to(torch.bfloat16) for key, tensor in expected.items()})


@pytest.mark.parametrize(("scale_name", "per_row"), [("scale_weight", False), ("weight_scale", True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_fp8(opened, flux, scale_name, per_row, dtype):
    """Every fp8 weight comes out within fp8's rounding of what it was, whichever way its scale is stored."""
    exact = original(flux.transformer)
    tensors = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, tensor in exact.items():
        tensors[key] = tensor
        if tensor.ndim == 2:
            scale = (tensor.abs().amax(dim=1, keepdim=True) if per_row else tensor.abs().max()) / 448
            tensors[key] = (tensor / scale).to(torch.float8_e4m3fn)
            tensors[key.replace(".weight", f".{scale_name}")] = scale
            tensors[key.replace(".weight", ".scale_input")] = torch.ones(())
    found = opened(tensors, dtype=dtype)
    for name, tensor in flux.transformer.state_dict().items():
        assert found[name].dtype == dtype
        error = (found[name].float() - tensor).abs().max() / tensor.abs().max()
        assert error < (0.04 if tensor.ndim == 2 else 0.004), name


def test_fp8_without_scales_is_what_it_says(opened, flux):
    tensors = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in flux.transformer.state_dict().items()}
    assert_same(opened(tensors), {key: tensor.float() for key, tensor in tensors.items()})


def lacking(tensors):
    del tensors["final_layer.linear.weight"]


def renamed(tensors):
    tensors["final_layer.magic.weight"] = tensors.pop("final_layer.linear.weight")


def wider(tensors):
    tensors["img_in.weight"] = torch.ones(7, 7)


def other_rows(tensors):
    tensors[f"{WEIGHT}.weight"] = torch.ones(7, 7)


def twice(tensors):
    tensors["x_embedder.weight"] = tensors["img_in.weight"]


def deeper(tensors):
    tensors["double_blocks.7.img_attn.proj.weight"] = torch.ones(2, 2)


def quantised(tensors):
    tensors[f"{WEIGHT}.weight"] = torch.ones(7, 7, dtype=torch.uint8)


def lone_scale(tensors):
    tensors["double_blocks.0.nothing.scale_weight"] = torch.ones(())


def odd_scale(tensors):
    tensors[f"{WEIGHT}.scale_weight"] = torch.ones(5)


def nan_scale(tensors):
    tensors[f"{WEIGHT}.scale_weight"] = torch.tensor(float("nan"))


def lora(tensors):
    tensors.clear()
    tensors["transformer.x_embedder.lora_A.weight"] = torch.ones(2, 2)


def difference(tensors):
    tensors.clear()
    tensors["diffusion_model.img_in.diff"] = torch.ones(2, 2)


def kohya(tensors):
    tensors.clear()
    tensors["lora_unet_img_in.lora_down.weight"] = torch.ones(2, 2)


def empty(tensors):
    tensors.clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking, "lacks 1 of the .* tensors of the base's FLUX.1 transformer, such as 'proj_out.weight'"),
        (renamed, "holds 1 tensors that are not of the base's .*'final_layer.magic.weight'"),
        (wider, r"holds 'x_embedder.weight' of shape \(7, 7\), where the base's has"),
        (other_rows, r"holds 'double_blocks.0.img_attn.qkv.weight' of shape \(7, 7\): the base has 384 rows"),
        (twice, "holds 'x_embedder.weight' in two spellings"),
        (deeper, "'double_blocks.7.img_attn.proj.weight'"),
        (quantised, "as torch.uint8 of shape .*: of quantised models only those in fp8 are read"),
        (lone_scale, "'double_blocks.0.nothing.scale_weight', but no weight in fp8"),
        (odd_scale, "of 5 numbers: expected one, or 384, all finite"),
        (nan_scale, "of 1 numbers: expected one, or 384, all finite"),
        (lora, "is an adapter, as 'transformer.x_embedder.lora_A.weight' shows: give a model here"),
        (difference, "is an adapter"),
        (kohya, "is an adapter"),
        (empty, "lacks .* of the .* tensors"),
    ],
)
def test_other_files_are_one_sentence(opened, flux, change, message):
    tensors = original(flux.transformer)
    change(tensors)
    with pytest.raises(BadFile, match=message) as caught:
        opened(tensors)
    assert "\n" not in str(caught.value)
