"""FLUX.2, Z-Image and Qwen-Image in the nodes, beside `urae.families` and beside what ComfyUI's own classes gave.

`tests/golden/comfyui_others.safetensors` was recorded by `tests/comfyui/real/record.py` from ComfyUI 0.29.0.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui.models import FAMILIES, FLUX_1, FLUX_2, QWEN_IMAGE, SCHNELL, SPATIAL, Z_IMAGE, Call
from comfyui.policy import ByHand, Policy
from comfyui.tables import PolicyEmbedND, exact_ids
from diffusers import FlowMatchEulerDiscreteScheduler
from policies import POLICIES
from safetensors.torch import load_file

from tiny_pipelines import GOLDEN
from urae import ResolutionPolicy
from urae.families import family_named
from urae.resolution.embedding import PolicyEmbedding

sys.path.append(str(Path(__file__).parents[1] / "families"))
from tiny_families import vae
from tiny_flux2 import dev, letter_tokenizer
from tiny_qwen_image import qwen_image
from tiny_z_image import z_image

RECORDED = load_file(GOLDEN / "comfyui_others.safetensors")
CALL = Call(text=5, rows=3, columns=300)
OTHERS = {"flux2": FLUX_2, "z_image": Z_IMAGE, "qwen_image": QWEN_IMAGE}
EVEN = Call(text=5, rows=4, columns=300)
"""On odd grids ComfyUI counts Qwen-Image's positions from another middle than diffusers."""
CLASSES = {
    FLUX_1: "FluxTransformer2DModel",
    SCHNELL: "FluxTransformer2DModel",
    FLUX_2: "Flux2Transformer2DModel",
    Z_IMAGE: "ZImageTransformer2DModel",
    QWEN_IMAGE: "QwenImageTransformer2DModel",
}
every = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
other = pytest.mark.parametrize("name", OTHERS)


def recorded(name, dtype="float32"):
    """(ids, last tables) of each call of the embedder."""
    calls = sorted(key for key in RECORDED if key.startswith(f"{name}_{dtype}") and key.endswith("ids"))
    return [(RECORDED[key], RECORDED[key.replace("ids", "tables")]) for key in calls]


def tables(family, policy, ids, call=CALL, sigma=0.6):
    embedder = PolicyEmbedND(family, policy)
    embedder.call, embedder.sigma = call, torch.tensor(sigma)
    return embedder(ids)


@other
def test_a_policy_that_changes_nothing_gives_comfyuis_tables_bit_for_bit(name):
    family = OTHERS[name]
    for policy in (Policy(), ByHand(family=family)):
        for ids, expected in recorded(name):
            assert torch.equal(tables(family, policy, ids)[:, :, -expected.shape[2] :], expected)


@other
def test_the_positions_are_comfyuis_own(name):
    for ids, _ in recorded(name):
        assert any(torch.equal(ids[0], known) for known in OTHERS[name].positions(CALL))
    assert len(recorded(name)) == (2 if name == "z_image" else 1)


def test_qwen_images_positions_are_rounded_in_bfloat16_and_come_back_exact():
    """257 and 258 are one place, before the middle is taken off."""
    ((rounded, stock),) = recorded("qwen_image", "bfloat16")
    call = Call(text=5, rows=3, columns=300, dtype=torch.bfloat16)
    ((exact, expected),) = recorded("qwen_image")
    assert len(rounded[0, 5:305, 2].unique()) < 300
    assert torch.equal(exact_ids(rounded, call, QWEN_IMAGE), exact)
    assert torch.equal(tables(QWEN_IMAGE, Policy(), rounded, call)[:, :, -40:], expected)
    assert torch.equal(tables(QWEN_IMAGE, Policy(exact_ids=False), rounded, call)[:, :, -40:], stock)
    with pytest.raises(ValueError, match="another node changes them"):
        exact_ids(rounded, CALL, QWEN_IMAGE)  # of a model in fp32, which rounds nothing


@pytest.mark.parametrize("change", ["scaled", "moved", "more tokens"])
@other
def test_positions_that_another_node_changed_are_refused(name, change):
    for ids, _ in recorded(name):
        more = torch.cat([ids, ids[:, -1:]], dim=1)
        wrong = {"scaled": ids / 2, "moved": ids + 1, "more tokens": more}[change]
        with pytest.raises(ValueError, match="another node changes them"):
            tables(OTHERS[name], Policy(), wrong)


def test_z_image_is_compiled_with_text_and_image_as_they_come():
    compiled = torch.compile(PolicyEmbedND(Z_IMAGE, Policy(**POLICIES["clip"])), backend="eager")
    compiled.call = CALL
    for ids, _ in recorded("z_image"):
        assert torch.equal(compiled(ids), tables(Z_IMAGE, Policy(**POLICIES["clip"]), ids))


def of_urae(family, settings, call):
    """cos and sin (tokens, channels / 2) of text and image, in that order, as urae makes them."""
    ours, told, device = family_named(CLASSES[family]), family.num_tokens(call), torch.device("cpu")
    config = {
        "axes_dims_rope": family.axes,
        "axes_dims": family.axes,
        "rope_theta": family.theta,
        "use_layer3d_rope": False,
    }
    model = SimpleNamespace(config=SimpleNamespace(**config), pos_embed=None, rope_embedder=None)
    embedder = PolicyEmbedding(ours, model, ResolutionPolicy.from_dict(settings))
    embedder.sigma, embedder.told = torch.tensor(0.6), told
    if family is QWEN_IMAGE:
        shapes = [[(1, call.rows, call.columns)]]
        image, text = embedder(shapes, max_txt_seq_len=call.text, device=device)
        table = torch.cat([text, image])
        return table.real, table.imag
    if family is Z_IMAGE:
        embedder.told = SimpleNamespace(num_tokens=lambda: told)
        table = embedder(family.positions(call)[-1])
        return table.real, table.imag
    cos, sin = embedder(family.positions(call)[0])
    return cos[:, ::2], sin[:, ::2]


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
@other
def test_the_tables_are_those_of_urae(name, settings):
    family = OTHERS[name]
    cos, sin = of_urae(family, settings, EVEN)
    found = tables(family, Policy(**settings), family.positions(EVEN)[-1][None], EVEN)[0, 0]
    # Qwen-Image's frequencies are fp32 in diffusers, and Z-Image's angles.
    bound = 1e-6 if name == "flux2" else 3e-5
    torch.testing.assert_close(found[..., 0, 0], cos, atol=bound, rtol=0)
    torch.testing.assert_close(found[..., 1, 0], sin, atol=bound, rtol=0)


def test_qwen_images_text_moves_with_the_scale_of_the_policy_or_of_the_latents():
    """At twice the native size text begins at 82 of 166 tokens; under a policy it stands at 41, as it was trained."""
    large = Call(text=2, rows=166, columns=166)
    native = Call(text=2, rows=83, columns=83)
    for settings in ({"rope_scale": 10.0}, {"linear": True, "scale": 83 / 41}):
        begin = {
            call: tables(QWEN_IMAGE, Policy(**settings), QWEN_IMAGE.positions(call)[0][None], call)[0, 0, :2]
            for call in (large, native)
        }
        stock = tables(QWEN_IMAGE, Policy(), QWEN_IMAGE.positions(native)[0][None], native)[0, 0, :2]
        torch.testing.assert_close(begin[large], stock, atol=1e-5, rtol=0)


def test_on_an_odd_grid_comfyui_stands_qwen_image_one_token_off():
    odd = Call(text=5, rows=3, columns=4)
    rotary = family_named("QwenImageTransformer2DModel").rotary
    positions = rotary.call([[(1, 3, 4)]], max_txt_seq_len=5).positions
    image, text = positions[:12], positions[12:]
    (comfy,) = QWEN_IMAGE.positions(odd)
    assert torch.equal(comfy[:5], text.float())
    assert torch.equal(comfy[5:] - image, torch.tensor([0.0, 1.0, 0.0]).expand(12, 3))


@every
def test_what_is_said_of_a_family_is_what_urae_says(family):
    ours = family_named(CLASSES[family])
    assert ours.rotary.theta_scale == family.theta_scale
    config = {"axes_dims_rope": family.axes, "axes_dims": family.axes, "rope_theta": family.theta}
    axes = ours.rotary.axes(SimpleNamespace(config=SimpleNamespace(**config, use_layer3d_rope=False)))
    assert [axis.channels for axis in axes] == list(family.axes)
    assert {axis.theta for axis in axes} == {family.theta}
    assert [axis.role for axis in axes if axis.role != "other"] == ["row", "column"]
    assert [axes[place].role for place in SPATIAL] == ["row", "column"]


@pytest.fixture(scope="module")
def pipes():
    """Tiny ones with the native sizes, text and schedulers of the published models."""
    found = {"flux2": dev(native=1024), "qwen_image": qwen_image(native=1328), "z_image": z_image(vae=vae())}
    found["z_image"].vae.register_to_config(sample_size=1024)
    found["z_image"].scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for pipe in found.values():
        pipe.tokenizer = letter_tokenizer("", 512)
    return found


@pytest.mark.parametrize("tokens", [(64, 64), (128, 128), (166, 84), (512, 512)])
@other
def test_by_hand_the_default_is_the_policy_of_the_size(name, tokens, pipes):
    family, (columns, rows) = OTHERS[name], tokens
    expected = ResolutionPolicy.for_size(pipes[name], (16 * columns, 16 * rows)).to_dict()
    scale = family.scale(Call(text=5, rows=rows, columns=columns))
    found = asdict(ByHand(family=family).policy(scale))
    assert found.pop("shift") == pytest.approx(expected.pop("shift"), rel=1e-3)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["yarn", "dype"])
def test_by_hand_yarn_knows_the_native_grid(rule):
    assert ByHand(family=QWEN_IMAGE, rule=rule).policy(2.0).native_grid == 83
    assert ByHand(family=FLUX_2, rule=rule).policy(2.0).native_grid == 64


def test_the_shift_that_comfyui_has_by_itself():
    """A policy sets another: 8.6, 3.0 and 2.3."""
    shifts = {name: float(RECORDED[f"{name}_shift"]) for name in OTHERS}
    assert shifts == pytest.approx({"flux2": 7.538, "z_image": 3.0, "qwen_image": 3.158}, abs=1e-3)
    assert SCHNELL.shift == 1.0
