"""What goes wrong around a policy inside the real ComfyUI: clones, other nodes, compiling. `inside.py` runs it."""

from __future__ import annotations

import inspect
import logging
import math
import sys

import pytest

sys.argv = [sys.argv[0], "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.flux.layers import EmbedND  # noqa: E402
from comfy.ldm.flux.model import Flux  # noqa: E402
from comfy.model_sampling import ModelSamplingFlux  # noqa: E402
from comfy_api.torch_helpers import set_torch_compile_wrapper  # noqa: E402
from comfyui.models import FLUX_1  # noqa: E402
from comfyui.patching import apply_adapter, apply_policy, apply_shift, shift_of  # noqa: E402
from comfyui.policy import ByHand, Policy  # noqa: E402
from policies import POLICIES  # noqa: E402
from probe import HIDDEN, POOLED, TEXT, random_weights, tiny  # noqa: E402

CLIP = Policy(**POLICIES["clip"])


@pytest.fixture(scope="module")
def weights():
    return random_weights("flux")


@pytest.fixture
def model(weights):
    return tiny("flux", weights)


def sampled(model, *, size=(12, 16), text=7, references=None, batch=1):
    """Latents of two Euler steps from one noise."""
    generator = torch.Generator().manual_seed(1)
    prompt = {"pooled_output": torch.randn(1, POOLED, generator=generator), "guidance": 3.5}
    if references is not None:
        prompt["reference_latents"] = references
    conditioning = [[torch.randn(1, text, TEXT, generator=generator), prompt]]
    empty = torch.zeros(batch, 16, *size)
    noise = torch.randn(empty.shape, generator=generator)
    return comfy.sample.sample(
        model, noise, 2, 1.0, "euler", "simple", conditioning, conditioning, empty, disable_pbar=True
    )


def test_a_clone_runs_under_the_policy_and_the_model_stays_stock(model):
    stock = sampled(model)
    patched = apply_policy(model, CLIP)
    under = sampled(patched)
    assert not torch.equal(under, stock)
    assert torch.equal(sampled(model), stock)
    assert torch.equal(sampled(patched.clone()), under)
    assert torch.equal(sampled(model), stock)


def test_unloading_puts_everything_back_and_nothing_is_kept_of_the_call(model):
    inside = model.model
    before = (inside.diffusion_model.pe_embedder, inside.model_sampling)
    patched = apply_policy(model, CLIP)
    sampled(patched)
    embedder = patched.object_patches["diffusion_model.pe_embedder"]
    assert embedder.call is None
    assert embedder.sigma is None
    patched.detach()
    assert (inside.diffusion_model.pe_embedder, inside.model_sampling) == before
    assert set(patched.model.state_dict()) == set(model.model.state_dict())


def test_a_second_policy_replaces_the_first_while_the_first_is_loaded(model):
    first = apply_policy(model, CLIP)
    sampled(first)
    second = apply_policy(first, Policy(**POLICIES["yarn"]))
    assert torch.equal(sampled(second), sampled(apply_policy(model, Policy(**POLICIES["yarn"]))))
    assert len(second.get_all_wrappers("apply_model")) == 1


def test_comfyuis_shift_is_mu(model):
    assert shift_of(model) == pytest.approx(math.exp(1.15))
    patched = apply_policy(model, Policy(shift=3.0))
    assert shift_of(patched) == pytest.approx(3.0)
    sampling = patched.get_model_object("model_sampling")
    assert isinstance(sampling, ModelSamplingFlux)
    assert sampling.shift == pytest.approx(math.log(3))
    found = comfy.samplers.calculate_sigmas(sampling, "simple", 4)
    expected = [3 * t / (1 + 2 * t) for t in (1, 0.75, 0.5, 0.25)]
    assert found.tolist() == pytest.approx([*expected, 0], abs=1e-6)
    assert shift_of(apply_shift(patched, 6.0)) == pytest.approx(6.0)


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_ids_in_bfloat16_are_told_apart_by_the_policy(name):
    """On 516 x 4 latents, tokens in rows 256 and 257 share a place in bf16; newer versions keep FLUX.1's in fp32."""
    model = tiny(name, random_weights(name), torch.bfloat16)
    seen = {}
    patched = apply_policy(model, Policy())
    for kind, one in {"stock": model, "policy": patched}.items():
        embedder = one.get_model_object("diffusion_model.pe_embedder")
        hook = embedder.register_forward_hook(
            lambda module, ids, table, kind=kind: seen.update({kind: table})
        )
        sampled(one, size=(1, 516, 4) if name == "qwen_image" else (516, 4))
        hook.remove()

    def rows(table):
        return table[0, 0, 7:].reshape(258, 2, -1)[:, 0]

    merges = name == "qwen_image" or "dtype=x.dtype" in inspect.getsource(Flux.process_img)
    assert (len(rows(seen["stock"]).unique(dim=0)) < 258) == merges
    assert len(rows(seen["policy"]).unique(dim=0)) == 258


def test_scale_rope_beside_a_policy_is_refused(model):
    patched = apply_policy(model, CLIP)
    patched.model_options["transformer_options"]["rope_options"] = {"scale_x": 0.5, "scale_y": 0.5}
    with pytest.raises(ValueError, match="ScaleROPE would be stacked"):
        sampled(patched)


def test_reference_latents_under_a_policy_are_refused(model):
    patched = apply_policy(model, CLIP)
    with pytest.raises(ValueError, match="reference latents and layers under a resolution policy"):
        sampled(patched, references=[torch.zeros(1, 16, 8, 8)])
    assert patched.object_patches["diffusion_model.pe_embedder"].call is None


def test_an_image_in_layers_under_a_policy_is_refused():
    patched = apply_policy(tiny("qwen_image", random_weights("qwen_image")), CLIP)
    with pytest.raises(ValueError, match="reference latents and layers under a resolution policy"):
        sampled(patched, size=(2, 12, 16))


class Strange(EmbedND):
    """Another node's embedder."""


def test_another_nodes_embedder_is_not_taken_for_stock(model):
    other = model.clone()
    other.add_object_patch("diffusion_model.pe_embedder", Strange(128, 10000, [16, 56, 56]))
    with pytest.raises(ValueError, match="another node put Strange"):
        apply_policy(other, CLIP)


def test_a_stock_embedder_whose_theta_was_changed_is_not_taken_for_stock(model):
    other = model.clone()
    other.add_object_patch("diffusion_model.pe_embedder", EmbedND(128, 100000, [16, 56, 56]))
    with pytest.raises(ValueError, match="theta 100000, where the model has 10000"):
        apply_policy(other, CLIP)


def test_an_embedder_that_another_node_puts_on_later_is_refused(model):
    patched = apply_policy(model, CLIP)
    patched.add_object_patch("diffusion_model.pe_embedder", Strange(128, 10000, [16, 56, 56]))
    with pytest.raises(ValueError, match="another node put Strange where"):
        sampled(patched)


@pytest.mark.parametrize("first", ["compiled", "policy"])
def test_a_model_compiled_before_or_after_follows_the_policy(model, first):
    expected = {name: sampled(apply_policy(model, Policy(**POLICIES[name]))) for name in ("clip", "dype")}
    stock = sampled(model)
    torch._dynamo.reset()
    if first == "compiled":
        base = model.clone()
        set_torch_compile_wrapper(base, backend="eager")
        torch.testing.assert_close(
            sampled(base), stock, atol=1e-5, rtol=0
        )  # compiled and run without a policy
    for name, latents in expected.items():
        patched = apply_policy(base if first == "compiled" else model, Policy(**POLICIES[name]))
        if first == "policy":
            set_torch_compile_wrapper(patched, backend="eager")
        torch.testing.assert_close(sampled(patched), latents, atol=1e-5, rtol=0)
        assert float((latents - stock).abs().max()) > 1e-3


def lora(name="double_blocks.0.img_attn.proj", rank=2):
    return {
        f"diffusion_model.{name}.lora_A.weight": torch.ones(rank, HIDDEN),
        f"diffusion_model.{name}.lora_B.weight": 0.01 * torch.ones(HIDDEN, rank),
    }


def test_a_style_lora_behind_an_adapter_leaves_its_policy(model):
    """ComfyUI keeps the metadata of the last LoRA only; the policy is the model's own."""
    patched = apply_policy(apply_adapter(model, lora(), 1.0, name="a"), CLIP)
    styled, _ = comfy.sd.load_lora_for_models(patched, None, lora("double_blocks.0.txt_attn.proj"), 1.0, 0)
    assert styled.object_patches["diffusion_model.pe_embedder"].given == CLIP
    assert len(styled.patches) == 2
    assert not torch.equal(sampled(styled), sampled(patched))


def test_an_adapter_that_comfyui_would_read_in_part_is_refused(model):
    tensors = lora() | lora("double_blocks.7.img_attn.proj")
    with pytest.raises(
        ValueError, match=r"a.safetensors adapts 'diffusion_model.double_blocks.7.img_attn.proj"
    ):
        apply_adapter(model, tensors, 1.0, name="a.safetensors")


def test_the_differences_of_weights_biases_and_norms_are_all_read(model):
    changes = {
        "diffusion_model.double_blocks.0.img_attn.proj.diff": 0.1 * torch.ones(HIDDEN, HIDDEN),
        "diffusion_model.double_blocks.0.img_attn.proj.diff_b": 0.1 * torch.ones(HIDDEN),
        "diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale.diff": 0.1 * torch.ones(128),
    }
    outputs = [sampled(apply_adapter(model, dict([one]), 1.0, name="a")) for one in changes.items()]
    outputs += [sampled(model), sampled(apply_adapter(model, changes, 1.0, name="a"))]
    assert all(not torch.equal(one, other) for i, one in enumerate(outputs) for other in outputs[:i])


def test_any_other_model_is_refused_in_one_sentence():
    config = comfy.supported_models.SD15({"disable_unet_model_creation": True})
    other = comfy.model_patcher.ModelPatcher(
        comfy.model_base.BaseModel(config), torch.device("cpu"), torch.device("cpu")
    )
    for call in (lambda: apply_policy(other, CLIP), lambda: apply_adapter(other, lora(), 1.0, name="a")):
        with pytest.raises(
            ValueError, match="the URAE nodes know FLUX.1, .*Qwen-Image; this model is BaseModel"
        ):
            call()


def test_a_prompt_shorter_than_in_training_is_said_once(model, caplog):
    patched = apply_policy(model, CLIP)
    with caplog.at_level(logging.WARNING):
        sampled(patched, text=256)
        sampled(patched, text=256)
    said = [record.getMessage() for record in caplog.records if "T5TokenizerOptions" in record.getMessage()]
    assert len(said) == 1
    assert "256 text tokens, where the policy counts 512" in said[0]
    caplog.clear()
    sampled(apply_policy(model, CLIP), text=512)
    assert not [record for record in caplog.records if "T5TokenizerOptions" in record.getMessage()]


def test_a_batch_and_an_odd_size_are_fine(model):
    both = sampled(apply_policy(model, ByHand(family=FLUX_1)), batch=2, size=(13, 15))
    assert both.shape == (2, 16, 13, 15)
