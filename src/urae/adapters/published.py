"""The layout of the published 4K adapter, which cannot be used alone.

Its file holds the trained A and B of the minor components but not where they started, so that the part of W which
they replace has to be cut out of the exact base again: the SVD of the weights, with the 2K adapter fused first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from urae.adapters.decomposition import decompose_cached
from urae.adapters.factors import Factors, Pair, difference, stacked
from urae.adapters.injection import check_fits
from urae.adapters.targets import linear_layers, transformer_of
from urae.errors import BadFile

__all__ = ["completed"]


def completed(trained: Factors, *, base: Any, start: Factors, cache: str | Path | None) -> dict[str, Pair]:
    """The LoRA on the untouched `base` that does what the trained minor factors do on its residual.

    Rank 2r, and 3r where `start`, the factors that were fused first, has rank r.
    """
    ranks = {A.shape[0] for A, _ in trained.values()}
    if len(ranks) > 1:
        raise BadFile(
            f"the file mixes minor components of ranks {sorted(ranks)}; they are cut out with one rank"
        )
    if base is None:
        raise ValueError(
            "this is the published 4K layout, which only makes sense on its base: "
            'pass base=pipe, and start="2k.safetensors" for the adapter that was fused first'
        )
    transformer = transformer_of(base)
    check_fits(transformer, trained)
    check_fits(transformer, start)
    layers = linear_layers(transformer)
    differences = {}
    for name, pair in trained.items():
        weight = _fused(layers[name], start.get(name))
        cut = decompose_cached(weight, rank=pair[0].shape[0], kind="smallest", cache=cache).factors()
        differences[name] = difference(pair, _same_signs(pair, (cut[0].cpu(), cut[1].cpu())))
    return stacked(differences, start)


def _fused(layer: nn.Module, pair: Pair | None) -> Tensor:
    """The weight after stock `fuse_lora`: in the base's dtype, whose rounding decides the minor components."""
    weight = dequantize_module_weight(layer).detach()
    if pair is None:
        return weight
    A, B = (factor.to(weight.device, weight.dtype).float() for factor in pair)
    return weight + (B @ A).to(weight.dtype)


def _same_signs(trained: Pair, cut: Pair) -> Pair:
    """An SVD leaves the sign of each triplet open; the one nearer to the trained factors makes A - A0 small."""
    sign = torch.where((trained[0] * cut[0]).sum(dim=1) < 0, -1.0, 1.0)
    return cut[0] * sign[:, None], cut[1] * sign
