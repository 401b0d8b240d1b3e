"""Latents of the real ComfyUI beside ours: one checkpoint, prompt, noise and policy in both.

`make test-comfyui COMFYUI=folder` runs this; its name keeps it out of the suite.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from drawing import SIZE, TEXT, as_the_model_has, empty, guided_workflow, ours, prompt_of, workflow
from policies import POLICIES
from safetensors.torch import save_file
from server import comfyui
from tiny_families import vae
from tiny_flux2 import dev
from tiny_qwen_image import qwen_image
from tiny_z_image import z_image

from tiny import t5_tokenizer
from tiny_pipelines import tiny_pipeline
from urae import ResolutionPolicy
from urae.adapters import Full, Lora, attach
from urae.families import family_of
from urae.families.naming import original_of
from urae.generation.hiflow import Hiflow, aligned
from urae.generation.imax import Imax, guided
from urae.generation.path import NativePath

TOLERANCE = 1e-4
"""Both compute in fp32, by other attention kernels. Most policies give 2e-6 to 4e-6; shift 6, whose last step is long,
gives 3e-5 with these random weights."""


@pytest.fixture(scope="session")
def pipe():
    """The tiny pipeline around a transformer with FLUX.1's heads and axes."""
    torch.manual_seed(0)
    pipe = tiny_pipeline()
    pipe.transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=2,
        num_attention_heads=2,
        attention_head_dim=128,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=True,
    ).eval()
    randomise(pipe.transformer)
    pipe.vae.register_to_config(sample_size=1024)
    pipe.tokenizer_2 = t5_tokenizer()
    pipe.tokenizer_2.model_max_length = 512
    return pipe


def randomise(transformer, spread=0.06):
    """Sharp enough that the output depends on the positions."""
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            is_norm = "norm" in name and parameter.ndim == 1 and name.endswith("weight")
            parameter.fill_(2.0 if "norm_" in name else 1.0) if is_norm else parameter.normal_(0, spread)


@pytest.fixture(scope="session")
def pipes(pipe):
    """One of each model, with the real ones' heads and axes, by the names of the probe."""
    width = {"joint_attention_dim": 64}
    z = {
        "dim": 1152,
        "n_heads": 9,
        "n_kv_heads": 9,
        "cap_feat_dim": 64,
    }  # narrower ones have another time embedding
    others = {
        "flux2": dev(num_single_layers=2, num_attention_heads=2, timestep_guidance_channels=256, **width),
        "z_image": z_image(vae=vae(), **z),
        "qwen_image": qwen_image(num_attention_heads=2, **width),
    }  # fmt: skip
    for name, one in others.items():
        torch.manual_seed(0)
        randomise(one.transformer, spread=0.03 if name == "z_image" else 0.06)  # by the width
        one.set_progress_bar_config(disable=True)
    return {"flux": pipe, **others}


@pytest.fixture(params=["flux", *TEXT])
def name(request, server):
    """Of a model that the ComfyUI of the folder has."""
    if request.param in ("flux2", "z_image") and not server.ask("/object_info/EmptyFlux2LatentImage"):
        pytest.skip(f"this ComfyUI has no {request.param}")
    return request.param


@pytest.fixture(scope="session")
def server(pipes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    for part in ("input", "models/loras"):
        (folder / part).mkdir(parents=True)
    for name, one in pipes.items():
        save_file(originals(one.transformer), folder / "input" / f"{name}.safetensors")
        save_file(prompt_of(name), folder / "input" / f"{name}-prompt.safetensors")
        for layout in ("diffusers", "comfy"):
            adapter_of(one).save(folder / f"models/loras/{name}-{layout}.safetensors", layout=layout)
    for kind, adapter in adapters(pipes["flux"]).items():
        for layout in ("comfy",) if adapter.is_full else ("diffusers", "comfy", "kohya"):
            adapter.save(folder / f"models/loras/{kind}-{layout}.safetensors", layout=layout)
    with comfyui(folder) as running:
        yield running


def originals(transformer):
    """The weights in the names of the original repository, those of fused layers joined."""
    weights, names = transformer.state_dict(), family_of(transformer).names
    found = {}
    for name in weights:
        holder, parts = original_of(name, names) or (name, (name,))
        rows = torch.cat([weights[part] for part in parts])
        swapped = names.swapped and names.swapped in parts[0]
        found[holder] = torch.cat(rows.chunk(2)[::-1]).contiguous() if swapped else rows
    return found


WIDE = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_mlp",
    "proj_out",
    "x_embedder",
    "norm1.linear",
    "norm.linear",
]


def adapters(pipe):
    kinds = {"narrow": Lora(rank=4), "wide": Lora(rank=4, targets=WIDE), "full": Full()}
    return {kind: adapter_of(pipe, spec) for kind, spec in kinds.items()}


def adapter_of(pipe, spec=None):
    """Of all layers of the image stream, unless another spec is given."""
    torch.manual_seed(3)
    attached = attach(pipe.transformer, spec or Lora(rank=4, targets=["image_stream"]))
    for parameter in attached.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape))
    adapter = attached.export(policy=ResolutionPolicy.from_dict(POLICIES["clip"]))
    attached.detach()
    return adapter


def distance(found, expected):
    """Largest difference, in the model's own units."""
    return float((found - expected).abs().max())


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
def test_under_a_policy_the_latents_are_ours(server, pipes, name, settings):
    pipe, policy = pipes[name], ResolutionPolicy.from_dict(settings)
    patch = ("UraePolicyJson", {"policy": policy.to_json()})
    found = as_the_model_has(pipe, name, server.latents(workflow(patch, model=name))["sampled"])
    with policy.on(pipe):
        error = distance(found, ours(pipe, name))
    print(f"largest difference {error:.2g}")
    assert error < TOLERANCE
    with ResolutionPolicy(shift=2.0 if policy == ResolutionPolicy() else 3.0).on(pipe):
        assert distance(found, ours(pipe, name)) > 10 * TOLERANCE


def test_by_hand_the_size_comes_from_the_latents(server, pipe):
    size = (1024, 1152)
    patch = (
        "UraePolicy",
        {"rule": "clip", "rope_scale": 0, "scale": 0, "proportional": "auto", "shift": 3.0},
    )
    saved = server.latents(workflow(patch, size=size, steps=1))["sampled"]
    policy = ResolutionPolicy.for_size(pipe, size)
    assert policy.scale > 1.05
    with policy.on(pipe):
        assert distance(as_the_model_has(pipe, "flux", saved), ours(pipe, "flux", size, steps=1)) < TOLERANCE


def assert_brings(server, pipe, adapter, file, name):
    """The adapter in a file brings its weights and its policy."""
    patch = ("UraeAdapter", {"adapter": file, "strength": 1.0})
    found = as_the_model_has(pipe, name, server.latents(workflow(patch, model=name))["sampled"])
    with adapter.on(pipe):
        assert distance(found, ours(pipe, name)) < TOLERANCE
    with adapter.policy.on(pipe):
        assert distance(found, ours(pipe, name)) > 10 * TOLERANCE


@pytest.mark.parametrize("layout", ["diffusers", "comfy"])
def test_an_adapter_of_any_model_brings_weights_and_policy(server, pipes, name, layout):
    adapter = adapter_of(pipes[name])
    assert_brings(server, pipes[name], adapter, f"{name}-{layout}.safetensors", name)


@pytest.mark.parametrize(
    "file", ["narrow-diffusers", "narrow-comfy", "narrow-kohya", "wide-comfy", "full-comfy"]
)
def test_an_adapter_of_any_kind_brings_weights_and_policy(server, pipe, file):
    assert_brings(server, pipe, adapters(pipe)[file.split("-")[0]], f"{file}.safetensors", "flux")


def test_the_policy_of_an_adapter_comes_without_its_weights(server, pipe):
    saved = server.latents(workflow(("UraePolicyOfAdapter", {"adapter": "wide-comfy.safetensors"})))[
        "sampled"
    ]
    with ResolutionPolicy.from_dict(POLICIES["clip"]).on(pipe):
        assert distance(as_the_model_has(pipe, "flux", saved), ours(pipe, "flux")) < TOLERANCE


def test_the_native_latents_guide_as_ours_do(server, pipes, name):
    """A native pass, then I-Max, SDEdit and HiFlow at twice its size, in one workflow."""
    pipe, policy = pipes[name], ResolutionPolicy.from_dict(POLICIES["clip"] | {"shift": 3.0})
    nodes = guided_workflow(policy.to_json(), model=name, target=empty(name, SIZE))
    saved = {place: as_the_model_has(pipe, name, latents) for place, latents in server.latents(nodes).items()}
    guide, options = saved["UraeSdedit start"], Imax(weight=0.8)
    assert guide.shape[-2:] == (SIZE[1] // 8, SIZE[0] // 8)
    with options.policy(policy).on(pipe):
        with guided(pipe, guide, options, size=SIZE):
            assert distance(saved["UraeImax end"], ours(pipe, name)) < TOLERANCE
        assert distance(saved["UraeImax end"], ours(pipe, name)) > 10 * TOLERANCE
    start = saved["UraeHiflow start"]
    hiflow = Hiflow(direction=0.8, acceleration=0.4, cutoff=0.3, reference="picture")
    picture = NativePath(clean=guide[None], sigmas=torch.ones(1))
    with policy.on(pipe):
        assert distance(saved["UraeSdedit end"], ours(pipe, name, start=guide)) < TOLERANCE
        with aligned(pipe, picture, hiflow, size=SIZE):
            assert distance(saved["UraeHiflow end"], ours(pipe, name, start=start)) < TOLERANCE
        assert distance(saved["UraeHiflow end"], ours(pipe, name, start=start)) > 10 * TOLERANCE


def test_a_target_of_another_models_latents_keeps_its_size_in_pixels(server):
    """Where ComfyUI knows the size of an empty latent in pixels, as the samplers there do."""
    if not server.ask("/object_info/EmptyFlux2LatentImage"):
        pytest.skip("this ComfyUI has no flux2")
    nodes = guided_workflow("{}", model="flux2", target=empty("flux", SIZE))
    assert server.latents(nodes)["UraeSdedit start"].shape[-2:] == (SIZE[1] // 16, SIZE[0] // 16)


def test_a_wrong_policy_is_one_sentence(server):
    said = server.error(workflow(("UraePolicyJson", {"policy": '{"linear": true}'})))
    assert "no effect at scale 1" in said
    assert "\n" not in said.strip()


def test_the_example_workflows_are_accepted(server):
    """ComfyUI checks every input of every node before it runs anything."""
    offered = server.ask("/object_info")
    folder = Path(__file__).parents[3] / "comfyui" / "example_workflows"
    for file in sorted(folder.glob("*.json")):
        asked = api_form(json.loads(file.read_text()), offered)
        for name, value in named_files(asked, offered):
            place = server.folder / "models" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / value).touch()
        answer = server.ask("/prompt", {"prompt": asked})
        assert answer["node_errors"] == {}, (file.name, answer)


FOLDERS = {
    "UNETLoader": "diffusion_models", "DualCLIPLoader": "text_encoders", "VAELoader": "vae", "UraeAdapter": "loras",
}  # fmt: skip


def named_files(asked, offered):
    for one in asked.values():
        for value in one["inputs"].values():
            if isinstance(value, str) and value.endswith(".safetensors"):
                yield FOLDERS[one["class_type"]], value


def api_form(graph, offered):
    """A workflow as the page saves it, as the page sends it: widgets by the order of the node's inputs."""
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    asked = {}
    for drawn in graph["nodes"]:
        if drawn["type"] in ("Note", "MarkdownNote"):
            continue
        wired = {
            slot["name"]: links[slot["link"]] for slot in drawn["inputs"] if slot.get("link") is not None
        }
        known = offered[drawn["type"]]
        values = iter(drawn.get("widgets_values", []))
        inputs = {}
        for name in (
            name for kind in ("required", "optional") for name in known["input_order"].get(kind, [])
        ):
            spec = {**known["input"].get("required", {}), **known["input"].get("optional", {})}[name]
            if name in wired:
                inputs[name] = wired[name]
            elif isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                inputs[name] = next(values)
                if len(spec) > 1 and spec[1].get("control_after_generate"):
                    next(values)
        assert not list(values), drawn["type"]
        asked[str(drawn["id"])] = {"class_type": drawn["type"], "inputs": inputs}
    return asked
