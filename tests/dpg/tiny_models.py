"""Image-text models of toy width with random weights, saved as transformers saves real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

WORDS = ("yes", "no", "is", "it", "there", "a", "1", "2", "answer", "with", "or", "only", "?", ".")
IMAGE = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 2}
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] | lower }} {% endif %}"
    "{% endfor %}{% endfor %}"
)


def save_blip(folder: Path) -> Path:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = {word: place for place, word in enumerate([*special, *WORDS])}
    tokenizer = BertTokenizer(vocab=vocabulary, additional_special_tokens=["[DEC]"])
    text = {
        **IMAGE,
        "vocab_size": len(vocabulary),
        "encoder_hidden_size": 32,
        "projection_dim": 16,
        "bos_token_id": vocabulary["[DEC]"],
        "sep_token_id": vocabulary["[SEP]"],
        "eos_token_id": vocabulary["[SEP]"],
        "pad_token_id": vocabulary["[PAD]"],
    }
    torch.manual_seed(0)
    config = BlipConfig(
        text_config=text, vision_config={**IMAGE, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    BlipForQuestionAnswering(config).save_pretrained(folder)
    pictures = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def save_llava(folder: Path) -> Path:
    vocabulary = {
        word: place for place, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS])
    }
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    text = {**IMAGE, "model_type": "llama", "vocab_size": len(vocabulary), "num_key_value_heads": 2}
    sight = {
        **IMAGE,
        "model_type": "clip_vision_model",
        "image_size": 32,
        "patch_size": 16,
        "projection_dim": 16,
    }
    torch.manual_seed(0)
    LlavaForConditionalGeneration(
        LlavaConfig(
            text_config={**text, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
            vision_config=sight,
            image_token_index=vocabulary["<image>"],
            vision_feature_layer=-1,
        )
    ).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder
