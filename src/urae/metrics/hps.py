"""HPSv2.1 (Wu et al., 2023): a CLIP ViT-H/14 in the layout of open_clip, with a preparation of its own.

The folder is one of open_clip's: `open_clip_config.json`, `open_clip_model.safetensors` with HPS's weights, and the
tokenizer's files. The tensors are renamed for transformers' CLIPModel, so that no package but transformers is needed.

transformers' CLIP tokenizer takes a prompt as it is. That of HPSv2's own code, which is open_clip's, first straightens
curly quotes, dissolves ligatures, mends wrong encodings and unfolds HTML entities, and knows no `<|endoftext|>`; scores
of plain prompts are the same. `hps_published` does as it does.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from urae.errors import BadFile, MissingExtra
from urae.io import field_of, read_json_object
from urae.metrics.clip import AgreementReader, Towers, channels, normalised
from urae.metrics.metric import Options
from urae.metrics.weights import LocalWeights

__all__ = ["open_hps", "padded_square", "renamed"]

CONFIG, MODEL = "open_clip_config.json", "open_clip_model.safetensors"


def open_hps(weights: LocalWeights, options: Options, *, published: bool) -> AgreementReader:
    """100 times the cosine; `published` with prompts read as HPSv2's own code reads them. `MissingExtra` without ftfy
    then."""
    return AgreementReader(
        name="hps published" if published else "hps",
        clean=_cleaner() if published else str,
        weights=weights,
        device=options.device,
        open=_open_towers,
        prepare=padded_square,
        score=_score,
    )


def _cleaner() -> Callable[[str], str]:
    try:
        import ftfy
    except ImportError as error:
        raise MissingExtra("hps_published cleans prompts by ftfy: pip install 'urae[hps]'") from error

    def clean(prompt: str) -> str:
        text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
        text = re.sub(r"\s+", " ", text.strip()).lower()
        # open_clip splits there. To transformers the whole would be the end, or the start, of the prompt.
        return re.sub(r"<\|(startoftext|endoftext)\|>", r"<| \1 |>", text)

    return clean


def padded_square(image: Image.Image, side: int) -> Tensor:
    """The longer side to `side` by torch's antialiased bicubic filter, zeros around, then CLIP's normalisation.

    HPS's own code leaves antialiasing to the torchvision version at hand; here it is always on.
    """
    pixels = channels(image) / 255
    scale = side / max(image.size)
    height, width = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    if scale != 1:
        pixels = F.interpolate(pixels[None], size=(height, width), mode="bicubic", antialias=True)[0]
    left, top = (side - width) // 2, (side - height) // 2
    return normalised(F.pad(pixels, (left, side - width - left, top, side - height - top)))


def _score(cosine: float, towers: Towers) -> float:
    return 100 * cosine


def _open_towers(weights: LocalWeights, device: str) -> Towers:
    # As in clip.py: a slow import that other metrics do without.
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    if missing := [name for name in (CONFIG, MODEL) if not (weights.path / name).is_file()]:
        raise BadFile(f"{weights.path} holds no {missing[0]}: expected a folder in open_clip's layout")
    settings = field_of(
        read_json_object(weights.path / CONFIG), "model_cfg", dict, name=weights.path / CONFIG
    )
    try:
        model = CLIPModel(CLIPConfig(**_configuration(settings)))
    except (KeyError, TypeError) as error:
        raise BadFile(f"{weights.path / CONFIG} describes no model of open_clip: {error}") from error
    tensors = LocalWeights(weights.path / MODEL).tensors()
    wrong = model.load_state_dict(dict(renamed(tensors)), strict=False)
    # Positions are counted and not learned; transformers keeps them as buffers.
    if lost := [*(name for name in wrong.missing_keys if "position_ids" not in name), *wrong.unexpected_keys]:
        raise BadFile(f"{weights.path / MODEL} does not fit its configuration: {lost[0]}")
    tokenizer = CLIPTokenizer.from_pretrained(weights.path, local_files_only=True)
    return Towers(model=model.eval().to(device), tokenizer=tokenizer, device=device)


def _configuration(settings: dict[str, Any]) -> dict[str, Any]:
    """open_clip's `model_cfg` in the words of transformers."""
    vision, text, dims = settings["vision_cfg"], settings["text_cfg"], settings["embed_dim"]
    activation = "quick_gelu" if settings.get("quick_gelu") else "gelu"
    vision_width, text_width = vision["width"], text["width"]
    return {
        "projection_dim": dims,
        "vision_config": {
            "hidden_size": vision_width,
            "intermediate_size": int(vision_width * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision_width // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "projection_dim": dims,
            "hidden_act": activation,
        },
        "text_config": {
            "hidden_size": text_width,
            "intermediate_size": text_width * 4,
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "projection_dim": dims,
            "hidden_act": activation,
            # The end token is the last of the vocabulary, and the one whose features count.
            "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
        },
    }


NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
PREFIXES = {
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "ln_final.": "text_model.final_layer_norm.",
}
PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")


def renamed(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """open_clip's tensors under the names of CLIPModel; `BadFile` for one that it does not know."""
    for name, tensor in tensors.items():
        if name in NAMES:
            # open_clip multiplies by its projections from the right.
            turned = name in ("visual.proj", "text_projection")
            yield NAMES[name], tensor.T.contiguous() if turned else tensor
        elif block := BLOCK.match(name):
            yield from _renamed_block(block, tensor)
        elif prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
            yield name.replace(prefix, PREFIXES[prefix]), tensor
        elif name != "attn_mask":
            raise BadFile(f"{name} is not a tensor of an open_clip model as we know it")


def _renamed_block(block: re.Match[str], tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    tower, number, part, kind = block.groups()
    home = f"{'vision_model' if tower else 'text_model'}.encoder.layers.{number}"
    if part == "attn.in_proj":
        for letter, third in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{home}.self_attn.{letter}_proj.{kind}", third.contiguous()
    elif part in PARTS:
        yield f"{home}.{PARTS[part]}.{kind}", tensor
    else:
        raise BadFile(f"{block.string} is not a tensor of an open_clip model as we know it")
