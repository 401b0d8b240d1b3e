"""The nodes' tables beside those of `urae`, and beside what ComfyUI's own classes gave.

`tests/golden/comfyui.safetensors` was recorded by `tests/comfyui/real/record.py` from the classes of ComfyUI 0.3.64.
"""

import math

import pytest
import torch
from comfyui.models import FLUX_1, Call
from comfyui.policy import ByHand, Policy
from comfyui.tables import PolicyEmbedND, exact_ids
from policies import POLICIES
from safetensors.torch import load_file

from tiny_pipelines import GOLDEN
from urae import ResolutionPolicy
from urae.families import family_named
from urae.resolution.embedding import PolicyEmbedding

RECORDED = load_file(GOLDEN / "comfyui.safetensors")
"""As `record.py` describes them."""
CALL = Call(text=5, rows=3, columns=300)


def tables(policy, ids, call=CALL, sigma=0.6):
    embedder = PolicyEmbedND(FLUX_1, policy)
    embedder.call, embedder.sigma = call, torch.tensor(sigma)
    return embedder(ids)


class Flux1:
    """What `PolicyEmbedding` asks of a transformer of FLUX.1."""

    def __init__(self):
        self.config = type("Config", (), {"axes_dims_rope": FLUX_1.axes})
        self.pos_embed = None


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
def test_the_tables_are_those_of_urae(settings):
    ids, sigma = RECORDED["ids_float32"], torch.tensor(0.6)
    ours = PolicyEmbedding(
        family_named("FluxTransformer2DModel"), Flux1(), ResolutionPolicy.from_dict(settings)
    )
    ours.sigma = sigma
    cos, sin = ours(ids[0])
    found = tables(Policy(**settings), ids)[0, 0]  # (tokens, channels / 2, 2, 2)
    torch.testing.assert_close(found[..., 0, 0], cos[:, ::2], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[..., 1, 0], sin[:, ::2], atol=1e-6, rtol=0)
    assert torch.equal(found[..., 1, 1], found[..., 0, 0])
    assert torch.equal(found[..., 0, 1], -found[..., 1, 0])


@pytest.mark.parametrize(
    "policy", [Policy(), ByHand(family=FLUX_1)], ids=["neutral", "by hand below native size"]
)
def test_a_policy_that_changes_nothing_gives_comfyuis_tables_bit_for_bit(policy):
    found = tables(policy, RECORDED["ids_float32"])
    assert torch.equal(found[:, :, -40:], RECORDED["tables_float32"])


def test_theta_and_linear_are_comfyuis_class_on_another_theta_and_on_other_ids():
    ids = RECORDED["ids_float32"]
    ten = tables(Policy(rope_scale=10.0), ids)[:, :, -40:]
    half = tables(Policy(linear=True, scale=2.0), ids)[:, :, -40:]
    torch.testing.assert_close(ten, RECORDED["tables_theta_100000"], atol=1e-6, rtol=0)
    torch.testing.assert_close(half, RECORDED["tables_half_ids"], atol=1e-6, rtol=0)


def test_proportional_attention_is_a_factor_on_comfyuis_tables():
    found = tables(Policy(proportional=True, native_tokens=400), RECORDED["ids_float32"])
    factor = math.log(905, 400) ** 0.25
    torch.testing.assert_close(found[:, :, -40:], RECORDED["tables_float32"] * factor, atol=1e-6, rtol=0)


def test_the_text_that_comfyui_pads_to_256_counts_as_it_is():
    """L is what the call attends to, 256 + 128^2 where diffusers' prompt has 512 tokens."""
    call = Call(text=256, rows=128, columns=128)
    assert FLUX_1.num_tokens(call) == 16640
    zeros = torch.zeros(1, 16640, 3)
    found = tables(Policy(proportional=True, exact_ids=False), zeros, call)[0, 0, 0, 0, 0, 0]
    assert float(found) == pytest.approx(math.log(16640, 4608) ** 0.25, abs=1e-6)


def test_ids_in_bfloat16_come_back_exact():
    """Recorded from `Flux.process_img` on bf16 latents, in which 257 and 258 are one place."""
    rounded = RECORDED["ids_bfloat16"]
    assert rounded.dtype == torch.bfloat16
    assert len(rounded[0, 5:305, 2].unique()) < 300
    assert torch.equal(exact_ids(rounded, CALL, FLUX_1), RECORDED["ids_float32"])
    assert torch.equal(tables(Policy(), rounded)[:, :, -40:], RECORDED["tables_float32"])
    assert not torch.equal(RECORDED["tables_bfloat16"], RECORDED["tables_float32"])


def test_inexact_ids_are_what_comfyui_makes_of_them():
    found = tables(Policy(exact_ids=False), RECORDED["ids_bfloat16"])
    assert torch.equal(found[:, :, -40:], RECORDED["tables_bfloat16"])


@pytest.mark.parametrize("change", ["scaled", "moved", "more tokens"])
def test_positions_that_another_node_changed_are_refused(change):
    ids = RECORDED["ids_float32"].clone()
    if change == "more tokens":
        ids = torch.cat([ids, ids[:, -1:]], dim=1)
    else:
        ids = ids / 2 if change == "scaled" else ids + 1
    with pytest.raises(ValueError, match="another node changes them"):
        tables(Policy(), ids)


def test_by_hand_the_scale_is_read_from_each_call():
    embedder = PolicyEmbedND(FLUX_1, ByHand(family=FLUX_1, rule="linear"))
    for rows, columns, scale in ((128, 128, 2.0), (96, 24, 1.0), (256, 64, 2.0), (128, 64, 2**0.5)):
        embedder.call = Call(text=512, rows=rows, columns=columns)
        assert embedder.policy.scale == pytest.approx(max(1.0, FLUX_1.scale(embedder.call)))
        assert embedder.policy.scale == pytest.approx(scale)


def test_a_compiled_table_follows_policy_size_and_noise_level():
    embedder = PolicyEmbedND(FLUX_1, Policy(**POLICIES["dype"]))
    compiled = torch.compile(embedder, backend="eager", fullgraph=True)
    for rows, sigma in ((2, 0.9), (2, 0.3), (4, 0.3)):
        call = Call(text=5, rows=rows, columns=300)
        (ids,) = (positions[None] for positions in FLUX_1.positions(call))
        embedder.call, embedder.sigma = call, torch.tensor(sigma)
        assert torch.equal(compiled(ids), tables(Policy(**POLICIES["dype"]), ids, call, sigma))


def test_the_embedder_adds_nothing_to_the_models_state():
    embedder = PolicyEmbedND(FLUX_1, Policy(), stock=torch.nn.Linear(2, 2))
    assert not embedder.state_dict()
    assert list(embedder.modules()) == [embedder]


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_comfyuis_shift_is_mu(shift):
    """`ModelSamplingFlux.set_parameters(shift=ln a)` makes the static shift a."""
    recorded = RECORDED[f"sigmas_{math.log(shift):.4f}"]
    times = torch.arange(500, 10001, 500) / 10000
    torch.testing.assert_close(recorded, shift * times / (1 + (shift - 1) * times), atol=1e-6, rtol=0)
