"""T5 learns word order, which flow matching alone has not taught it.

FLUX gives text tokens no positions, so only T5 can tell the tiger of "a tiger left of an umbrella" from the umbrella.
After `base` it does not: it names both objects to the transformer, which draws two blends. Nor does it learn it from
there in a few hundred steps of being asked for nothing else, while a fresh T5 does. So a fresh one is taught here where
each noun's object is; then also to give, but for that, the states that the base's transformer has learnt to read.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import T5EncoderModel

from urae.mini.train.base import load_averaged, tokenize
from urae.mini.train.layout import SIDE, noun_loss, placed
from urae.mini.train.progress import StageLog, matrix_products, write_atomically
from urae.mini.world import scene

FIRST_SEED = 300_000
NUM_SCENES = 9_000
PAIRS = 2 / 3
"""Of the scenes."""
ALONE = 300
"""Steps after which the states matter too."""
PEAK, ORDER_PEAK = 2e-3, 2e-2
"""Learning rates of AdamW, of all weights and of the biases by distance, which begin near zero and must grow to
several units to tell the word before from the word after."""


def train_text(
    out: Path, *, steps: int, batch: int = 64, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Write `text.safetensors`: the encoder and the head that told the places."""
    pipe = load_averaged(out, "base")
    known = pipe.text_encoder_2.to(device).requires_grad_(False)
    torch.manual_seed(0)
    encoder = T5EncoderModel(copy.deepcopy(known.config)).to(device)
    head = nn.Linear(known.config.d_model, SIDE**2).to(device)
    scenes = [scene(FIRST_SEED + i, pairs=PAIRS) for i in range(NUM_SCENES)]
    captions = [tokenize(pipe, [s.caption(detailed=long) for s in scenes])[0] for long in (False, True)]
    where = placed(pipe.tokenizer_2, scenes)
    order = [p for name, p in encoder.named_parameters() if "relative_attention_bias" in name]
    others = [p for name, p in encoder.named_parameters() if "relative_attention_bias" not in name]
    groups = [
        {"params": [*others, *head.parameters()], "peak": PEAK},
        {"params": order, "peak": ORDER_PEAK},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    progress = StageLog(out / "text.jsonl")
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, step / 20, (steps + 1 - step) / (0.4 * steps))
        rows = torch.randint(NUM_SCENES, (batch,), generator=torch.Generator().manual_seed(step))
        tokens = captions[step % 3 == 0][rows].to(device)
        with matrix_products(device, dtype):
            states, wanted = encoder(tokens)[0], known(tokens)[0]
        places = noun_loss(head, states, tokens, where.of(rows))
        apart = (states - wanted).float().pow(2).mean() / wanted.float().var()
        optimizer.zero_grad()
        (2 * places + min(1.0, max(0, step - ALONE) / 100) * apart).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        progress.note(step, places=places.item(), apart=apart.item())
    tensors = {f"text_encoder_2.{name}": p.detach() for name, p in encoder.named_parameters()}
    tensors |= {f"places.{name}": p.detach() for name, p in head.named_parameters()}
    write_atomically(tensors, out / "text.safetensors")


def load_text(out: Path, encoder: nn.Module, places: nn.Module) -> None:
    """Put what `train_text` wrote into both."""
    tensors = load_file(out / "text.safetensors")
    for name, module in (("text_encoder_2", encoder), ("places", places)):
        for key, parameter in module.named_parameters():
            parameter.data.copy_(tensors[f"{name}.{key}"])
