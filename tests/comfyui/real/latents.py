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
from tiny_families import vae
from tiny_flux2 import dev
from tiny_qwen_image import qwen_image
from tiny_z_image import z_image

from tiny import t5_tokenizer
from tiny_pipelines import tiny_pipeline
from urae import ResolutionPolicy
from urae.adapters import Full, Lora, attach
from urae.families import Drawing, family_of
from urae.families.naming import original_of
from urae.generation.hiflow import Hiflow, aligned
from urae.generation.imax import Imax, guided
from urae.generation.path import NativePath

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


TEXT = {"flux2": 512, "z_image": 7, "qwen_image": 7}
"""Tokens of the others' prompts; ComfyUI pads FLUX.2's to 512."""


@pytest.fixture(scope="session")
def others():
    """FLUX.2, Z-Image and Qwen-Image with the real ones' heads and axes, by the names of the probe."""
    width = {"joint_attention_dim": 64}
    z = {
        "dim": 1152,
        "n_heads": 9,
        "n_kv_heads": 9,
        "cap_feat_dim": 64,
    }  # narrower ones have another time embedding
    pipes = {
        "flux2": dev(num_single_layers=2, num_attention_heads=2, timestep_guidance_channels=256, **width),
        "z_image": z_image(vae=vae(), **z),
        "qwen_image": qwen_image(num_attention_heads=2, **width),
    }  # fmt: skip
    for name, pipe in pipes.items():
        torch.manual_seed(0)
        randomise(pipe.transformer, spread=0.03 if name == "z_image" else 0.06)  # by the width
        pipe.set_progress_bar_config(disable=True)
    return pipes


@pytest.fixture(scope="session")
def prompt():
    generator = torch.Generator().manual_seed(1)
    return {
        "prompt_embeds": torch.randn(1, 7, 64, generator=generator),
        "pooled": torch.randn(1, 32, generator=generator),
    }


def prompt_of(name):
    generator = torch.Generator().manual_seed(1)
    return {"prompt_embeds": torch.randn(1, TEXT[name], 64, generator=generator)}


@pytest.fixture(params=TEXT)
def other(request, server):
    """Name of a model that the ComfyUI of the folder has."""
    if request.param != "qwen_image" and not server.ask("/object_info/EmptyFlux2LatentImage"):
        pytest.skip(f"this ComfyUI has no {request.param}")
    return request.param


@pytest.fixture(scope="session")
def server(pipe, others, prompt, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    (folder / "input").mkdir()
    for name, one in {"flux": pipe, **others}.items():
        texts = prompt if name == "flux" else prompt_of(name)
        save_file(originals(one.transformer), folder / "input" / f"{name}.safetensors")
        save_file(texts, folder / "input" / f"{name}-prompt.safetensors")
    for kind, adapter in adapters(pipe).items():
        (folder / "models/loras").mkdir(parents=True, exist_ok=True)
        for layout in ("comfy",) if adapter.is_full else ("diffusers", "comfy", "kohya"):
            adapter.save(folder / f"models/loras/{kind}-{layout}.safetensors", layout=layout)
    for name, one in others.items():
        for layout in ("diffusers", "comfy"):
            adapter_of(one).save(folder / f"models/loras/{name}-{layout}.safetensors", layout=layout)
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


def workflow(*patches, model="flux", size=SIZE, steps=STEPS, save="sampled"):
    """Model -> the patching nodes, each (class, inputs) -> KSampler -> SaveLatent."""
    empty = "EmptyFlux2LatentImage" if model == "flux2" else "EmptySD3LatentImage"
    nodes = {
        "model": node("ProbeModel", name=model),
        "prompt": node("ProbeConditioning", file=f"{model}-prompt.safetensors", guidance=GUIDANCE),
        "empty": node(empty, width=size[0], height=size[1], batch_size=1),
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


def of_others(pipe, name, size=SIZE, steps=STEPS):
    """The same of FLUX.2, Z-Image or Qwen-Image, in the model's own units and ComfyUI's shape."""
    family, (width, height) = family_of(pipe), (size[0] // 8, size[1] // 8)
    shape = (1, 128, height // 2, width // 2) if name == "flux2" else (1, 16, height, width)
    noise = torch.randn(shape, generator=torch.manual_seed(SEED))
    packed = noise.flatten(2).transpose(1, 2) if name == "flux2" else family.latents.pack(noise)
    text = prompt_of(name)
    drawing = Drawing(
        prompt=text | {"prompt_embeds_mask": torch.ones(1, TEXT[name], dtype=torch.bool)} if name != "flux2" else text,
        negative="",
        size=size,
        guidance=GUIDANCE if name == "flux2" else 1.0,
        steps=steps,
        settings={"output_type": "latent"},
    )  # fmt: skip
    done = family.pipelines.draw(pipe, drawing, latents=packed)[None]
    if name == "flux2":
        return done.transpose(1, 2).reshape(shape)
    return family.latents.unpack(done, height, width)


def as_the_model_has(pipe, name, saved):
    """Latents as SaveLatent has them, in the model's own units."""
    if name == "flux2":
        return saved
    if name == "z_image":
        return (saved - SHIFT) * SCALE
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1)
        for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    return (saved.squeeze(2) - mean) / std


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
def test_under_a_policy_the_latents_of_other_models_are_ours(server, others, other, settings):
    name, pipe, policy = other, others[other], ResolutionPolicy.from_dict(settings)
    patch = ("UraePolicyJson", {"policy": policy.to_json()})
    found = as_the_model_has(pipe, name, server.latents(workflow(patch, model=name))["sampled"])
    with policy.on(pipe):
        expected = of_others(pipe, name)
    error = float((found - expected).abs().max())
    print(f"largest difference {error:.2g}")
    assert error < TOLERANCE
    with ResolutionPolicy(shift=2.0 if policy == ResolutionPolicy() else 3.0).on(pipe):
        assert float((found - of_others(pipe, name)).abs().max()) > 10 * TOLERANCE


@pytest.mark.parametrize("layout", ["diffusers", "comfy"])
def test_an_adapter_of_another_model_brings_weights_and_policy(server, others, other, layout):
    name, pipe, adapter = other, others[other], adapter_of(others[other])
    patch = ("UraeAdapter", {"adapter": f"{name}-{layout}.safetensors", "strength": 1.0})
    found = as_the_model_has(pipe, name, server.latents(workflow(patch, model=name))["sampled"])
    with adapter.on(pipe):
        assert float((found - of_others(pipe, name)).abs().max()) < TOLERANCE
    with adapter.policy.on(pipe):
        assert float((found - of_others(pipe, name)).abs().max()) > 10 * TOLERANCE


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
        "hiflow": node("UraeHiflow", model=["patch0", 0], **passes, steps=STEPS, start_sigma=0.875, direction=0.8,
                       acceleration=0.4, cutoff=0.3, sharpen=0.5),
        "along": node("SamplerCustom", model=["imax", 0], sampler=["euler", 0], sigmas=["imax", 1],
                      latent_image=["imax", 2], **sampled),
        "from": node("SamplerCustom", model=["patch0", 0], sampler=["euler", 0], sigmas=["sdedit", 0],
                     latent_image=["sdedit", 1], **sampled),
        "aligned": node("SamplerCustom", model=["hiflow", 0], sampler=["euler", 0], sigmas=["hiflow", 1],
                        latent_image=["hiflow", 2], **sampled),
        "start": node("SaveLatent", samples=["hiflow", 2], filename_prefix="start"),
        "flowed": node("SaveLatent", samples=["aligned", 0], filename_prefix="flowed"),
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
    start = (saved["start"] - SHIFT) * SCALE
    hiflow = Hiflow(direction=0.8, acceleration=0.4, cutoff=0.3, reference="picture")
    picture = NativePath(clean=guide[None], sigmas=torch.ones(1))
    with ResolutionPolicy.from_dict(POLICIES["clip"]).on(pipe):
        assert distance(saved["edited"], edited(pipe, prompt, guide)) < TOLERANCE
        with aligned(pipe, picture, hiflow, size=SIZE):
            assert distance(saved["flowed"], edited(pipe, prompt, start)) < TOLERANCE
        assert distance(saved["flowed"], edited(pipe, prompt, start)) > 10 * TOLERANCE


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
