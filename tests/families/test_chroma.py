"""What is Chroma's own: the mask of text tokens in every call, and its place among several processes."""

import pytest
import torch
from diffusers import ChromaTransformer2DModel
from tiny_families import LARGE, TINY, drawn, embeddings, noisy, velocity

from ranks import finish, start
from urae.adapters import IMAGE_STREAM, Lora, attach
from urae.execution import context_group, context_parallel
from urae.execution.checkpointing import gradient_checkpointing
from urae.families.chroma import Chroma
from urae.resolution import ResolutionPolicy

FAMILY = Chroma()
TEXT, IMAGE = 8, 48
"""Tokens of the tiny pipeline at `LARGE`."""


@pytest.fixture(scope="session")
def tiny():
    return next(tiny for tiny in TINY if tiny.name == FAMILY.name)


@pytest.fixture(scope="session")
def inputs(tiny):
    """Of one call of the transformer by the stock pipeline."""
    seen = []
    hook = tiny.transformer.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named), with_kwargs=True
    )
    drawn(tiny, prompt="a b")
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("prompt", ["a", "a b", "a b c d e f g h i"])
def test_a_prompt_keeps_its_tokens_and_one_of_padding(tiny, prompt):
    mask = embeddings(tiny, prompt)["prompt_attention_mask"]
    num = min(len(tiny.pipe.tokenizer(prompt).input_ids) + 1, TEXT)
    assert mask.tolist() == [[1.0] * num + [0.0] * (TEXT - num)]
    assert mask.dtype == tiny.pipe.text_encoder.dtype


def test_padding_is_weakened_and_not_left_out(tiny):
    """As by the stock pipeline: a change of masked tokens shows, one of the mask too."""
    text, latents = embeddings(tiny, "a"), noisy(tiny)
    with torch.no_grad():
        plain = velocity(tiny, latents, text=text)
        padding = text["prompt_attention_mask"][0] == 0
        other = text["prompt_embeds"].clone()
        other[:, padding] += 1
        changed = velocity(tiny, latents, text=text | {"prompt_embeds": other})
        boolean = text | {"prompt_attention_mask": text["prompt_attention_mask"].bool()}
        masked = velocity(tiny, latents, text=boolean)
        masked_other = velocity(tiny, latents, text=boolean | {"prompt_embeds": other})
    assert (changed - plain).abs().max() > 1e-4
    assert (masked - plain).abs().max() > 1e-4
    torch.testing.assert_close(masked, masked_other, atol=1e-5, rtol=0)


def test_the_mask_goes_with_other_latents(tiny, inputs):
    changed = FAMILY.calls.with_latents(inputs, noisy(tiny, (64, 64), num=3))
    mask, before = changed["attention_mask"], inputs["attention_mask"]
    assert before.shape == (1, TEXT + IMAGE)
    assert mask.shape == (3, TEXT + 16)
    assert torch.equal(mask[:, :TEXT], before[:, :TEXT].repeat(3, 1))
    assert mask[:, TEXT:].all()


def test_the_mask_goes_with_repeated_text(inputs):
    changed = FAMILY.calls.with_text_at(inputs, [(0, 0), (0, 4)])
    mask, before = changed["attention_mask"], inputs["attention_mask"]
    assert mask.shape == (1, 2 * TEXT + IMAGE)
    assert torch.equal(mask[:, : 2 * TEXT], before[:, :TEXT].repeat(1, 2))
    assert changed["encoder_hidden_states"].shape[1] == changed["txt_ids"].shape[0] == 2 * TEXT


def test_calls_without_a_mask_stay_without(tiny, inputs):
    bare = {name: value for name, value in inputs.items() if name != "attention_mask"}
    assert "attention_mask" not in FAMILY.calls.with_latents(bare, noisy(tiny))
    assert "attention_mask" not in FAMILY.calls.with_text_at(bare, [(0, 0)])


def test_text_is_never_longer_than_the_pipeline_takes(tiny):
    before, tokenizer = tiny.pipe.tokenizer.model_max_length, tiny.pipe.tokenizer
    tokenizer.model_max_length = int(1e30)
    try:
        assert FAMILY.text.num_tokens(tiny.pipe) == 512
    finally:
        tokenizer.model_max_length = before


def test_guidance_is_no_input(tiny):
    with pytest.raises(ValueError, match=r"guidance=3.5 has no effect"):
        FAMILY.calls.velocity(
            tiny.transformer,
            noisy(tiny, LARGE),
            sigma=torch.ones(1),
            embeddings=embeddings(tiny, "a"),
            guidance=3.5,
        )


# --- several processes


def predicted(transformer, num: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    text = {
        "prompt_embeds": torch.randn(num, 7, 32, generator=rng),
        "prompt_attention_mask": torch.tensor([[1.0] * 4 + [0.0] * 3] * num),
    }
    return FAMILY.calls.velocity(
        transformer, torch.randn(num, 16, 10, 14, generator=rng), sigma=torch.rand(num), embeddings=text
    )


def gradients(attached, transformer) -> torch.Tensor:
    torch.manual_seed(3)
    found = predicted(transformer, 2)
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    parameters = attached.parameters()
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    for parameter in parameters:
        parameter.grad = None
    return flat


def share_an_image() -> None:
    """Velocities and gradients of two processes are those of one, with checkpointing too."""
    torch.manual_seed(0)
    group = context_group(2)
    transformer = ChromaTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=3,
        attention_head_dim=16,
        axes_dims_rope=(4, 6, 6),
        joint_attention_dim=32,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    attached = attach(transformer.eval(), Lora(rank=2, targets=IMAGE_STREAM))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    with ResolutionPolicy(linear=True, scale=2.0).on(transformer):
        alone = gradients(attached, transformer)
        for mode in (False, "full"):
            with context_parallel(transformer, group), gradient_checkpointing(transformer, mode):
                shared = gradients(attached, transformer) / 2  # each process has counted the whole loss
            torch.distributed.all_reduce(shared)
            torch.testing.assert_close(shared, alone, atol=1e-5 * float(alone.abs().max()), rtol=1e-4)


def test_two_processes_share_an_image():
    finish(start(2, share_an_image))
