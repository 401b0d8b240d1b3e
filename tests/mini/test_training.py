"""The miniature's own training: that a stopped stage goes on as if it had not been stopped."""

import copy
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from urae import mini
from urae.mini.model import build_pipeline, build_vae
from urae.mini.recogniser import GLYPHS
from urae.mini.train.base import (
    Part,
    SceneLatents,
    checkpoint,
    encode_tokens,
    load_averaged,
    optimizers_for,
    resume,
    tokenize,
    track,
    trained_weights,
    velocity,
)
from urae.mini.train.layout import NONE, Layout, covered_by, noun_loss, placed
from urae.mini.train.muon import orthogonal
from urae.mini.train.ship import unpack
from urae.mini.train.text import load_text, train_text
from urae.mini.train.vae import scene_pixels
from urae.mini.world import Scene, Thing, familiar_scene, scene

pytestmark = pytest.mark.thorough

Weights = dict[str, nn.Parameter]


def fresh() -> tuple[Weights, dict[str, torch.Tensor], list[torch.optim.Optimizer]]:
    """A matrix that Muon trains and a bias that AdamW does, their averages, and the optimizers."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "transformer.transformer_blocks.0.ff.weight": nn.Parameter(torch.randn(6, 4, generator=generator)),
        "transformer.proj_out.bias": nn.Parameter(torch.randn(6, generator=generator)),
    }
    average = {k: v.detach().clone() for k, v in weights.items()}
    return weights, average, optimizers_for(weights, peak=0.01, dtype=torch.float32)


def advance(
    state: tuple[Weights, dict[str, torch.Tensor], list[torch.optim.Optimizer]], steps: range
) -> None:
    weights, average, optimizers = state
    for step in steps:
        for i, parameter in enumerate(weights.values()):
            seeded = torch.Generator().manual_seed(10 * step + i)
            parameter.grad = torch.randn(parameter.shape, generator=seeded)
        for optimizer in optimizers:
            optimizer.step()
        track(average, weights, 0.3)


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole = fresh()
    advance(whole, range(1, 7))
    stopped = fresh()
    advance(stopped, range(1, 4))
    checkpoint(tmp_path / "base.safetensors", 3, *stopped)
    again = fresh()
    first = resume(tmp_path / "base.safetensors", *again)
    assert first == 4
    advance(again, range(first, 7))
    for name in whole[0]:
        assert torch.equal(again[0][name], whole[0][name])
        assert torch.equal(again[1][name], whole[1][name])
        assert not torch.equal(again[0][name], stopped[0][name])


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_takes_the_nearest_orthogonal_matrix(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Five steps bring every singular value to within about 0.3 of 1 and leave the singular vectors alone."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonal(matrices.to(dtype)).float()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    aligned = u.mT @ found @ vh.mT
    assert (aligned - torch.diag_embed(aligned.diagonal(dim1=-2, dim2=-1))).abs().max() < 0.05


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> SceneLatents:
    """40 scenes of the whole world, 20 familiar ones, a quarter of each batch of them; CLIP's caption is left out
    of half of it."""
    parts = [
        Part(share=0.75, scenes=[scene(i) for i in range(40)]),
        Part(share=0.25, scenes=[familiar_scene(i) for i in range(20)]),
    ]
    cache = tmp_path_factory.mktemp("latents") / "latents.safetensors"
    return SceneLatents(build_pipeline(build_vae()), parts, cache, pooled_dropout=0.5)


def test_a_batch_holds_the_asked_share_of_each_part_and_of_empty_captions(latents: SceneLatents) -> None:
    clean, (t5, clip), where = latents.batch(1, 2000)
    rows = torch.cdist(clean.flatten(1), latents.mean.flatten(1)).argmin(dim=1)
    assert (rows >= 40).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(where.glyphs, latents.placed.glyphs[rows])
    assert torch.equal(where.covered, latents.placed.covered[rows])
    empty = (t5 == latents.empty[0]).all(dim=1)
    assert empty.float().mean().item() == pytest.approx(0.1, abs=0.025)
    said = torch.stack([latents.short[0][rows], latents.detailed[0][rows]])
    assert ((t5 == said).all(dim=2).any(dim=0) | empty).all()
    unpooled = (clip == latents.empty[1]).all(dim=1)
    assert unpooled[empty].all()
    assert unpooled[~empty].float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_latents_are_those_of_their_scenes_in_order(latents: SceneLatents) -> None:
    """Rendered by several processes, 50 at a time: here the second lot begins within the familiar scenes."""
    vae = build_pipeline(build_vae()).vae  # the same random weights
    for row, one in ((3, scene(3)), (55, familiar_scene(15))):
        with torch.no_grad():
            mean = vae.encode(scene_pixels(one, 128)[None]).latent_dist.mean[0]
        found = (latents.mean[row] / vae.config.scaling_factor) + vae.config.shift_factor
        assert torch.allclose(found, mean, atol=1e-4)


def pair() -> Scene:
    """A tiger on the left, a glossy umbrella on the right."""
    tiger = Thing(name="tiger", style="flat", x=32, y=64, size=48)
    umbrella = Thing(name="umbrella", style="glossy", x=96, y=64, size=48)
    return Scene(things=(tiger, umbrella), background="wood", label="")


def test_labels_say_what_is_at_each_token() -> None:
    pipe = build_pipeline(build_vae())
    apple = Scene(
        things=(Thing(name="apple", style="flat", x=40, y=32, size=40),), background="sky", label=""
    )
    where = placed(pipe.tokenizer_2, [pair(), apple])
    grid = where.glyphs.view(2, 8, 8)
    assert (grid[0, 3:5, 1:3] == 1 + GLYPHS.index(("tiger", "flat"))).all()  # x 8 to 56, y 40 to 88
    assert (grid[0, 3:5, 5:7] == 1 + GLYPHS.index(("umbrella", "glossy"))).all()
    assert (grid[0, 2:6, 1:3] == grid[0, 3, 1]).all()  # half of rows 2 and 5
    assert grid[0, :2].sum() == grid[0, 6:].sum() == 0
    assert torch.equal(where.covered[0].any(0), where.glyphs[0] > 0)
    assert not where.covered[1, 1].any()
    words = [pipe.tokenizer_2.decode(token) for token in where.nouns.flatten().tolist() if token != NONE]
    assert words == ["tiger", "umbrella", "apple"]
    tokens = pipe.tokenizer_2(pair().caption()).input_ids
    assert [tokens.index(token) for token in where.nouns[0].tolist()] == [2, 7]


def test_half_a_token_is_covered_and_less_is_not() -> None:
    assert covered_by(40, 32, 32).view(8, 8)[1:3, 1:4].tolist() == [[True, True, True]] * 2  # x 24 to 56
    assert covered_by(42, 32, 32).view(8, 8)[1:3, 1:4].tolist() == [[False, True, True]] * 2  # x 26 to 58


def test_the_loss_of_nouns_asks_for_the_places_of_their_own_objects() -> None:
    """States that hold the places of the noun at their position cost nothing, those of the other noun much, and a
    noun that the caption does not hold nothing at all."""
    pipe = build_pipeline(build_vae())
    where = placed(pipe.tokenizer_2, [pair(), pair()])
    tokens = torch.stack([pipe.tokenizer_2(c, return_tensors="pt", padding="max_length", max_length=32).input_ids[0]
                          for c in (pair().caption(), "")])  # fmt: skip
    states = torch.zeros(2, 32, 64)
    states[0, 2], states[0, 7] = (20.0 * (2 * where.covered[0, k].float() - 1) for k in (0, 1))
    assert noun_loss(nn.Identity(), states, tokens, where) < 1e-6
    states[0, [2, 7]] = states[0, [7, 2]]
    swapped = noun_loss(nn.Identity(), states, tokens, where).item()
    wrong = (where.covered[0, 0] ^ where.covered[0, 1]).float().mean().item()
    assert swapped == pytest.approx(20 * wrong, rel=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
@pytest.mark.parametrize("compiled", [False, True])
def test_a_layout_reads_the_block_it_was_told_and_its_loss_reaches_both_encoders(compiled: bool) -> None:
    pipe = build_pipeline(build_vae())
    if compiled:
        for block in pipe.transformer.single_transformer_blocks:
            block.compile(backend="eager")
    layout = Layout(pipe, after=1, share=0.5, middle=1.0)
    layout.watch(pipe)
    tokens = tokenize(pipe, [pair().caption(), pair().caption(detailed=True)])
    where = placed(pipe.tokenizer_2, [pair(), pair()])
    sigma = torch.full((2,), 0.5)
    velocity(pipe, torch.randn(2, 64, 64), sigma, encode_tokens(pipe, tokens), torch.ones(2))
    loss, right = layout.loss(tokens[0], where)
    assert 0 <= right <= 1
    loss.backward()
    blocks = pipe.transformer.single_transformer_blocks
    reached = [block.attn.to_q.weight.grad is not None for block in blocks]
    assert reached == [True, True, False, False]
    assert pipe.text_encoder_2.shared.weight.grad.abs().sum() > 0
    torch.compiler.reset()


@pytest.mark.slow
def test_t5_is_taught_word_order_and_stays_readable(tmp_path: Path) -> None:
    """Half as long as by default: the noun before "left of" is told from the one behind it."""
    unpack(tmp_path)
    train_text(tmp_path, steps=750)
    pipe = load_averaged(tmp_path, "base")
    known = pipe.text_encoder_2
    taught, places = copy.deepcopy(known), nn.Linear(128, 64)
    load_text(tmp_path, taught, places)
    scenes = [one for one in map(scene, range(500_000, 500_300)) if one.relation]
    where = placed(pipe.tokenizer_2, scenes)
    tokens = tokenize(pipe, [one.caption() for one in scenes])[0]
    rows = torch.arange(len(scenes))
    with torch.no_grad():
        states, wanted = taught(tokens)[0], known(tokens)[0]
        first = (tokens == where.nouns[:, :1]).float().argmax(1)
        told = places(states[rows, first])
    own, other = ((told * c).sum(1) / c.sum(1) for c in where.covered.float().unbind(1))
    assert (own > other).float().mean() > 0.9
    assert (states - wanted).pow(2).mean() / wanted.var() < 0.5


def test_unpacked_weights_are_the_shipped_ones(tmp_path: Path) -> None:
    unpack(tmp_path)
    shipped = trained_weights(mini.pipeline())
    again = trained_weights(load_averaged(tmp_path, "base"))
    assert list(shipped) == list(again)
    assert all(torch.equal(shipped[name], again[name]) for name in shipped)
    with pytest.raises(FileExistsError, match="vae.safetensors exists already: choose another --out"):
        unpack(tmp_path)


@pytest.mark.parametrize("stage", ["ship", "unpack"])
@pytest.mark.parametrize(
    "option", [("--steps", "5"), ("--batch", "5"), ("--device", "cpu"), ("--dtype", "bf16")]
)
def test_a_stage_that_trains_nothing_refuses_what_it_does_not_use(
    stage, option, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["train", stage, "--out", str(tmp_path), *option])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("urae.mini.train", run_name="__main__")
    assert exit.value.code == 2
    assert f"{stage} trains nothing, so {option[0]} has no effect: leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "missing"),
    [("base", "vae"), ("text", "base"), ("pairs", "text"), ("distil", "pairs"), ("ship", "distil")],
)
def test_a_stage_without_those_before_it_names_the_one_to_run(stage, missing, tmp_path, monkeypatch, capsys):
    for name in ["vae", "base", "text", "pairs"]:
        if name == missing:
            break
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setattr(sys, "argv", ["train", stage, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("urae.mini.train", run_name="__main__")
    assert exit.value.code == 2
    assert f"{missing}.safetensors, which is not there: run {missing} first" in capsys.readouterr().err
