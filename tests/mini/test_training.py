"""The miniature's own training: that a stopped stage goes on as if it had not been stopped."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from urae.mini.model import build_pipeline, build_vae
from urae.mini.train.base import FAMILIAR_SHARE, Latents, checkpoint, optimizers_for, resume, track
from urae.mini.train.muon import orthogonal

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


def test_a_batch_holds_the_asked_share_of_familiar_scenes_and_empty_captions(tmp_path: Path) -> None:
    pipe = build_pipeline(build_vae())
    latents = Latents(pipe, (40, 20), tmp_path)
    clean, (t5, _) = latents.batch(1, 2000)
    rows = torch.cdist(clean.flatten(1), latents.mean.flatten(1)).argmin(dim=1)
    assert (rows >= 40).float().mean().item() == pytest.approx(FAMILIAR_SHARE, abs=0.03)
    empty = (t5 == latents.empty[0]).all(dim=1)
    assert empty.float().mean().item() == pytest.approx(0.1, abs=0.025)
    said = torch.stack([latents.short[0][rows], latents.detailed[0][rows]])
    assert ((t5 == said).all(dim=2).any(dim=0) | empty).all()


@pytest.mark.parametrize("option", [("--steps", "5"), ("--device", "cpu"), ("--dtype", "bf16")])
def test_ship_refuses_what_it_does_not_use(option, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "ship", "--out", str(tmp_path), *option])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("urae.mini.train", run_name="__main__")
    assert exit.value.code == 2
    assert f"ship trains nothing, so {option[0]} has no effect: leave it out" in capsys.readouterr().err
