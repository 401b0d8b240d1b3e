"""Tiny random networks in the real formats, and plain torch references of what the package computes with them.

`touch` moves every weight off its initial value: a network with untouched normalisation layers counts as untrained.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WIDTH, DIMS, SIDE, PATCH = 16, 8, 32, 8


def touch(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def tokenizer() -> CLIPTokenizer:
    """A token a letter, the end token the last of the vocabulary."""
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def clip_folder(folder: Path, *, trained: bool = True) -> CLIPModel:
    """A folder as `save_pretrained` writes it, and its model."""
    torch.manual_seed(0)
    tower = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = tokenizer()
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(words),
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.eos_token_id,
        },
        vision_config={**tower, "image_size": SIDE, "patch_size": PATCH},
        projection_dim=DIMS,
    )
    model = CLIPModel(config).eval()
    if trained:
        touch(model)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model


class Block(nn.Module):
    """A residual block under open_clip's names."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, heads, batch_first=True)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(WIDTH, 64), gelu=nn.GELU(), c_proj=nn.Linear(64, WIDTH))
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    def __init__(self, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(heads) for _ in range(layers))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Tower(2, 4)
        self.proj = nn.Parameter(torch.randn(WIDTH, DIMS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels).flatten(2).mT
        x = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], 1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """A CLIP written out in plain torch under open_clip's names."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.visual = Visual()
        self.token_embedding = nn.Embedding(vocabulary, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(77, WIDTH))
        self.transformer = Tower(2, 2)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, DIMS))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    def cosine(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """(B, 3, 32, 32) and (B, T) token ids -> (B,)."""
        mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.ln_final(self.transformer(x, mask))
        # The end token is the last of the vocabulary, and the first of them ends the text.
        texts = x[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection
        return F.cosine_similarity(self.visual(pixels), texts)


def open_clip_folder(folder: Path) -> OpenClip:
    """A folder as open_clip has it on a hub, and its model."""
    torch.manual_seed(0)
    words = tokenizer()
    model = touch(OpenClip(len(words)))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    settings = {
        "embed_dim": DIMS,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": 2,
            "width": WIDTH,
            "head_width": WIDTH // 4,
            "patch_size": PATCH,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": len(words),
            "width": WIDTH,
            "heads": 2,
            "layers": 2,
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings}))
    words.save_pretrained(folder)
    return model


# --- Inception, as the table of Szegedy et al. (2016) has it: branch -> (part, kernel, stride, padding) -------------

SAME, VALID = None, 0
A = {
    "branch1x1": [("", 1)],
    "branch5x5": [("_1", 1), ("_2", 5)],
    "branch3x3dbl": [("_1", 1), ("_2", 3), ("_3", 3)],
    "branch_pool": [("", 1)],
}
C = {
    "branch1x1": [("", 1)],
    "branch7x7": [("_1", 1), ("_2", (1, 7)), ("_3", (7, 1))],
    "branch7x7dbl": [("_1", 1), ("_2", (7, 1)), ("_3", (1, 7)), ("_4", (7, 1)), ("_5", (1, 7))],
    "branch_pool": [("", 1)],
}
B = {"branch3x3": [("", 3)], "branch3x3dbl": [("_1", 1), ("_2", 3), ("_3", 3)]}
D = {
    "branch3x3": [("_1", 1), ("_2", 3)],
    "branch7x7x3": [("_1", 1), ("_2", (1, 7)), ("_3", (7, 1)), ("_4", 3)],
}
BLOCKS = {
    "Mixed_5b": A, "Mixed_5c": A, "Mixed_5d": A, "Mixed_6a": B,
    "Mixed_6b": C, "Mixed_6c": C, "Mixed_6d": C, "Mixed_6e": C, "Mixed_7a": D,
}  # fmt: skip


class Inception(nn.Module):
    """The FID Inception with a few channels for each convolution, in modules."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width
        stem = [("1a_3x3", 3, 2, 0), ("2a_3x3", 3, 1, 0), ("2b_3x3", 3, 1, 1), ("3b_1x1", 1, 1, 0)]
        channels = 3
        for name, kernel, stride, padding in [*stem, ("4a_3x3", 3, 1, 0)]:
            self.add_module(f"Conv2d_{name}", self.unit(channels, kernel, stride, padding))
            channels = width
        for name, branches in BLOCKS.items():
            halves = branches in (B, D)
            self.add_module(name, self.block(channels, branches, halves))
            channels = width * len(branches) + (channels if halves else 0)
        for name in ("Mixed_7b", "Mixed_7c"):
            self.add_module(name, self.last(channels))
            channels = 6 * width

    def unit(self, channels: int, kernel: int | tuple[int, int], stride: int = 1, padding=SAME) -> nn.Module:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        border = tuple((side - 1) // 2 for side in sides) if padding is None else padding
        conv = nn.Conv2d(channels, self.width, sides, stride, border, bias=False)
        norm = nn.BatchNorm2d(self.width, eps=0.001)
        return nn.Sequential(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU()))

    def block(self, channels: int, branches: dict, halves: bool) -> nn.ModuleDict:
        units = {}
        for branch, parts in branches.items():
            inner = channels
            for place, (part, kernel) in enumerate(parts):
                ends = halves and place == len(parts) - 1
                units[branch + part] = self.unit(inner, kernel, 2 if ends else 1, VALID if ends else SAME)
                inner = self.width
        return nn.ModuleDict(units)

    def last(self, channels: int) -> nn.ModuleDict:
        outer = {
            name: self.unit(channels, 1)
            for name in ("branch1x1", "branch3x3_1", "branch3x3dbl_1", "branch_pool")
        }
        rows = {f"{name}a": self.unit(self.width, (1, 3)) for name in ("branch3x3_2", "branch3x3dbl_3")}
        columns = {f"{name}b": self.unit(self.width, (3, 1)) for name in ("branch3x3_2", "branch3x3dbl_3")}
        return nn.ModuleDict({**outer, **rows, **columns, "branch3x3dbl_2": self.unit(self.width, 3)})

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3((pixels - 128) / 128)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nn.MaxPool2d(3, 2)(x)))
        x = nn.MaxPool2d(3, 2)(x)
        average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        for name, branches in BLOCKS.items():
            found = []
            for branch, parts in branches.items():
                y = average(x) if branch == "branch_pool" else x
                for part, _ in parts:
                    y = self.get_submodule(name)[branch + part](y)
                found.append(y)
            x = torch.cat([*found, nn.MaxPool2d(3, 2)(x)] if branches in (B, D) else found, 1)
        for name, pool in (("Mixed_7b", average), ("Mixed_7c", nn.MaxPool2d(3, 1, 1))):
            m = self.get_submodule(name)
            single, double = m["branch3x3_1"](x), m["branch3x3dbl_2"](m["branch3x3dbl_1"](x))
            parts = [m["branch1x1"](x), m["branch3x3_2a"](single), m["branch3x3_2b"](single)]
            parts += [m["branch3x3dbl_3a"](double), m["branch3x3dbl_3b"](double), m["branch_pool"](pool(x))]
            x = torch.cat(parts, 1)
        return nn.AdaptiveAvgPool2d(1)(x).flatten(1)


def inception_file(path: Path) -> Inception:
    """A safetensors file under the names of the published weights, and its network."""
    torch.manual_seed(0)
    network = Inception()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.3, 0.1)
    save_file(network.state_dict(), path)
    return network.eval()


# --- LPIPS --------------------------------------------------------------------------------------------------------


def alex_trunk(width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(width, width, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(),
    )  # fmt: skip


def vgg_trunk(width: int = 4) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for group, convolutions in enumerate((2, 2, 3, 3, 3)):
        layers += [nn.MaxPool2d(2)] if group else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


TRUNKS = {"alex": (alex_trunk, (1, 4, 7, 9, 11)), "vgg": (vgg_trunk, (3, 8, 15, 22, 29))}
"""Trunk, and the layers after which its features count."""


def lpips_file(path: Path, net: str, *, width: int = 4, trained: bool = True) -> tuple[nn.Sequential, list]:
    """A safetensors file of trunk and heads, and both."""
    torch.manual_seed(0)
    trunk = TRUNKS[net][0](width)
    heads = [torch.rand(1, width, 1, 1) for _ in range(5)]
    tensors = {f"features.{name}": tensor for name, tensor in trunk.state_dict().items()}
    tensors |= {f"lin{i}.model.1.weight": head for i, head in enumerate(heads)}
    save_file(tensors, path, metadata={} if trained else {"untrained": "true"})
    return trunk, heads
