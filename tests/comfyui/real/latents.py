"""Latents of the real ComfyUI beside ours: one checkpoint, prompt, noise and policy in both.

`make test-comfyui COMFYUI=folder` runs this; its name keeps it out of the suite.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from policies import POLICIES
from safetensors.torch import save_file
from server import comfyui

from conftest import tiny_pipeline
from tiny import t5_tokenizer
from urae import ResolutionPolicy
from urae.adapters import Full, Lora, attach
from urae.families.flux.names import NAMES
from urae.families.naming import original_of
from urae.generation.imax import Imax, guided

TOLERANCE = 1e-4
"""Both compute in fp32, by other attention kernels. Most policies give 2e-6 to 4e-6; shift 6, whose last step is long,
gives 3e-5 with these random weights."""
SIZE = (256, 192)
SEED, STEPS, GUIDANCE = 5, 4, 3.5
SHIFT, SCALE = 0.1159, 0.3611
"""Of FLUX.1's latents."""


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
    with torch.no_grad():
        for name, parameter in pipe.transformer.named_parameters():
            # Sharp enough that the output depends on the positions.
            parameter.fill_(2.0) if "norm_" in name and parameter.ndim == 1 and "linear" not in name else (
                parameter.normal_(0, 0.06)
            )
    pipe.vae.register_to_config(sample_size=1024)
    pipe.tokenizer_2 = t5_tokenizer()
    pipe.tokenizer_2.model_max_length = 512
    return pipe


@pytest.fixture(scope="session")
def prompt():
    generator = torch.Generator().manual_seed(1)
    return {
        "prompt_embeds": torch.randn(1, 7, 64, generator=generator),
        "pooled": torch.randn(1, 32, generator=generator),
    }


@pytest.fixture(scope="session")
def server(pipe, prompt, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    (folder / "input").mkdir()
    save_file(originals(pipe.transformer.state_dict()), folder / "input" / "flux.safetensors")
    save_file(prompt, folder / "input" / "prompt.safetensors")
    for kind, adapter in adapters(pipe).items():
        (folder / "models/loras").mkdir(parents=True, exist_ok=True)
        for layout in ("comfy",) if adapter.is_full else ("diffusers", "comfy", "kohya"):
            adapter.save(folder / f"models/loras/{kind}-{layout}.safetensors", layout=layout)
    with comfyui(folder) as running:
        yield running


def originals(weights):
    """The weights in the names of the original repository, those of fused layers joined."""
    found = {}
    for name in weights:
        holder, parts = original_of(name, NAMES)
        rows = torch.cat([weights[part] for part in parts])
        swapped = NAMES.swapped in parts[0]
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
    policy = ResolutionPolicy.from_dict(POLICIES["clip"])
    made = {}
    for kind, spec in {"narrow": Lora(rank=4), "wide": Lora(rank=4, targets=WIDE), "full": Full()}.items():
        torch.manual_seed(3)
        attached = attach(pipe.transformer, spec)
        for parameter in attached.parameters():
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
        made[kind] = attached.export(policy=policy)
        attached.detach()
    return made


def workflow(*patches, size=SIZE, steps=STEPS, save="sampled"):
    """Model -> the patching nodes, each (class, inputs) -> KSampler -> SaveLatent."""
    nodes = {
        "model": node("ProbeModel", file="flux.safetensors"),
        "prompt": node("ProbeConditioning", file="prompt.safetensors", guidance=GUIDANCE),
        "empty": node("EmptySD3LatentImage", width=size[0], height=size[1], batch_size=1),
    }
    model = ["model", 0]
    for index, (kind, inputs) in enumerate(patches):
        nodes[f"patch{index}"] = node(kind, model=model, **inputs)
        model = [f"patch{index}", 0]
    nodes["sampler"] = node(
        "KSampler", model=model, seed=SEED, steps=steps, cfg=1.0, sampler_name="euler", scheduler="simple",
        positive=["prompt", 0], negative=["prompt", 0], latent_image=["empty", 0], denoise=1.0,
    )  # fmt: skip
    nodes[save] = node("SaveLatent", samples=["sampler", 0], filename_prefix="latent")
    return nodes


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def ours(pipe, prompt, size=SIZE, steps=STEPS):
    """Our latents of the same noise, as a VAE takes them."""
    height, width = size[1] // 8, size[0] // 8
    noise = torch.randn(1, 16, height, width, generator=torch.manual_seed(SEED))
    packed = pipe._pack_latents(noise, 1, 16, height, width)
    inputs = {"prompt_embeds": prompt["prompt_embeds"], "pooled_prompt_embeds": prompt["pooled"]}
    done = pipe(
        **inputs, latents=packed, width=size[0], height=size[1], num_inference_steps=steps,
        guidance_scale=GUIDANCE, output_type="latent",
    ).images  # fmt: skip
    return pipe._unpack_latents(done, size[1], size[0], 8) / SCALE + SHIFT


def distance(found, expected):
    """Largest difference, in the model's own units."""
    return float((found - expected).abs().max()) * SCALE


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
def test_under_a_policy_the_latents_are_ours(server, pipe, prompt, settings, record_property):
    policy = ResolutionPolicy.from_dict(settings)
    patch = ("UraePolicyJson", {"policy": policy.to_json()})
    found = server.latents(workflow(patch))["sampled"]
    with policy.on(pipe):
        expected = ours(pipe, prompt)
    error = distance(found, expected)
    print(f"largest difference {error:.2g}")
    assert error < TOLERANCE
    with ResolutionPolicy(shift=2.0 if policy == ResolutionPolicy() else 3.0).on(pipe):
        assert distance(found, ours(pipe, prompt)) > 10 * TOLERANCE


def test_by_hand_the_size_comes_from_the_latents(server, pipe, prompt):
    size = (1024, 1152)
    patch = (
        "UraePolicy",
        {"rule": "clip", "rope_scale": 0, "scale": 0, "proportional": "auto", "shift": 3.0},
    )
    found = server.latents(workflow(patch, size=size, steps=1))["sampled"]
    policy = ResolutionPolicy.for_size(pipe, size)
    assert policy.scale > 1.05
    with policy.on(pipe):
        assert distance(found, ours(pipe, prompt, size, steps=1)) < TOLERANCE


@pytest.mark.parametrize(
    "file", ["narrow-diffusers", "narrow-comfy", "narrow-kohya", "wide-comfy", "full-comfy"]
)
def test_an_adapter_brings_weights_and_policy(server, pipe, prompt, file):
    patch = ("UraeAdapter", {"adapter": f"{file}.safetensors", "strength": 1.0})
    found = server.latents(workflow(patch))["sampled"]
    adapter = adapters(pipe)[file.split("-")[0]]
    with adapter.on(pipe):
        assert distance(found, ours(pipe, prompt)) < TOLERANCE
    with adapter.policy.on(pipe):
        assert distance(found, ours(pipe, prompt)) > 10 * TOLERANCE


def test_the_policy_of_an_adapter_comes_without_its_weights(server, pipe, prompt):
    found = server.latents(workflow(("UraePolicyOfAdapter", {"adapter": "wide-comfy.safetensors"})))[
        "sampled"
    ]
    with ResolutionPolicy.from_dict(POLICIES["clip"]).on(pipe):
        assert distance(found, ours(pipe, prompt)) < TOLERANCE


def test_the_native_latents_guide_as_ours_do(server, pipe, prompt):
    """A native pass, then I-Max and SDEdit at twice its size, in one workflow."""
    native = (SIZE[0] // 2, SIZE[1] // 2)
    passes = {"vae": ["vae", 0], "native": ["sampler", 0], "target": ["target", 0]}
    sampled = {
        "add_noise": True,
        "noise_seed": SEED,
        "cfg": 1.0,
        "positive": ["prompt", 0],
        "negative": ["prompt", 0],
    }
    nodes = {
        **workflow(("UraePolicyJson", {"policy": json.dumps(POLICIES["clip"])}), size=native, save="native"),
        "vae": node("ProbeVae"),
        "target": node("EmptyLatentImage", width=SIZE[0], height=SIZE[1], batch_size=1),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "imax": node("UraeImax", model=["patch0", 0], **passes, steps=STEPS, schedule="cosine_decay", weight=0.8,
                     low_pass_level=1, shift=6.0),
        "sdedit": node("UraeSdedit", model=["patch0", 0], **passes, steps=STEPS, start_sigma=0.875),
        "along": node("SamplerCustom", model=["imax", 0], sampler=["euler", 0], sigmas=["imax", 1],
                      latent_image=["imax", 2], **sampled),
        "from": node("SamplerCustom", model=["patch0", 0], sampler=["euler", 0], sigmas=["sdedit", 0],
                     latent_image=["sdedit", 1], **sampled),
        "guide": node("SaveLatent", samples=["sdedit", 1], filename_prefix="guide"),
        "guided": node("SaveLatent", samples=["along", 0], filename_prefix="guided"),
        "edited": node("SaveLatent", samples=["from", 0], filename_prefix="edited"),
    }  # fmt: skip
    saved = server.latents(nodes)
    guide = (saved["guide"] - SHIFT) * SCALE
    assert guide.shape[-2:] == (SIZE[1] // 8, SIZE[0] // 8)
    options = Imax(weight=0.8)
    with (
        options.policy(ResolutionPolicy.from_dict(POLICIES["clip"])).on(pipe),
        guided(pipe, guide, options, size=SIZE),
    ):
        assert distance(saved["guided"], ours(pipe, prompt)) < TOLERANCE
    with ResolutionPolicy.from_dict(POLICIES["clip"]).on(pipe):
        assert distance(saved["edited"], edited(pipe, prompt, guide)) < TOLERANCE


def edited(pipe, prompt, guide):
    """The stock pipeline from noised latents: nominal strength 0.7, which is sigma 0.875 under shift 3."""
    import numpy as np

    noise = torch.randn(guide.shape, generator=torch.manual_seed(SEED))
    height, width = guide.shape[-2:]
    latents = pipe._pack_latents(0.125 * guide + 0.875 * noise, 1, 16, height, width)
    done = pipe(
        prompt_embeds=prompt["prompt_embeds"], pooled_prompt_embeds=prompt["pooled"], latents=latents,
        width=SIZE[0], height=SIZE[1], sigmas=np.linspace(0.7, 0.7 / STEPS, STEPS), guidance_scale=GUIDANCE,
        output_type="latent",
    ).images  # fmt: skip
    return pipe._unpack_latents(done, SIZE[1], SIZE[0], 8) / SCALE + SHIFT


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
