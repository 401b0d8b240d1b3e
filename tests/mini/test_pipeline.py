import sys

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from processes import CONTEXT
from urae import mini
from urae.mini.recogniser import recogniser


@pytest.fixture(scope="module")
def pipe() -> FluxPipeline:
    pipe = mini.pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_is_a_stock_pipeline_and_small(pipe):
    assert type(pipe) is FluxPipeline
    assert sum(p.stat().st_size for p in mini.WEIGHTS.rglob("*") if p.is_file()) < 40e6
    assert pipe.vae.config.sample_size == 128
    assert pipe.tokenizer_2.model_max_length == 32
    assert pipe.transformer.config.guidance_embeds


def test_it_is_loaded_from_the_package_without_network_and_writes_nothing():
    """No download and no training: in a process of its own, for nothing watches any less once it was told to."""
    process = CONTEXT.Process(target=load_watched)
    process.start()
    process.join()
    assert process.exitcode == 0


def load_watched():
    seen = []
    sys.addaudithook(lambda event, given: seen.append((event, given)))
    mini.pipeline()
    opened = [given for event, given in seen if event == "open"]
    assert any(str(path).startswith(str(mini.WEIGHTS)) for path, *_ in opened)
    assert not [given for given in opened if given[1] and set(given[1]) & set("wax+")]
    assert not [event for event, _ in seen if event in ("socket.connect", "socket.getaddrinfo")]
    assert not [name for name in sys.modules if name.startswith("urae.mini.train")]


def test_native_pictures_show_what_was_asked(pipe):
    """Objects recognised at the native size: chance is 1 in 60."""
    scenes = [mini.familiar_scene(3_000_000 + i) for i in range(24)]
    prompts = [s.caption() for s in scenes]
    images = pipe(
        prompts,
        num_inference_steps=16,
        guidance_scale=3.5,
        max_sequence_length=32,
        generator=[torch.Generator().manual_seed(i) for i in range(24)],
    ).images
    assert images[0].size == (128, 128)
    verdicts = [look.agrees(s) for look, s in zip(recogniser().look(images, [1] * 24), scenes, strict=True)]
    assert np.mean([v["object"] for v in verdicts]) >= 0.5
    assert np.mean([v["background"] for v in verdicts]) >= 0.8


@pytest.mark.thorough
def test_long_padding_does_not_change_the_subject(pipe):
    """`pipe(prompt)` pads to 512 tokens by default; the miniature is trained to bear it."""
    scenes = [mini.familiar_scene(3_000_000 + i) for i in range(6)]
    images = pipe(
        [s.caption() for s in scenes],
        num_inference_steps=12,
        generator=[torch.Generator().manual_seed(i) for i in range(6)],
    ).images
    verdicts = [
        v.agrees(s)["background"] for v, s in zip(recogniser().look(images, [1] * 6), scenes, strict=True)
    ]
    assert np.mean(verdicts) >= 0.6


def test_the_tokenizers_know_the_world(pipe):
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        ids = tokenizer([mini.scene(i).caption(detailed=True) for i in range(200)]).input_ids
        assert all(tokenizer.unk_token_id not in row[1:-1] for row in ids)
