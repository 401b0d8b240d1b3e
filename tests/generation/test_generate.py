"""What an image depends on, and what it does not."""

import dataclasses
import inspect
import logging
import warnings

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image

from urae.adapters import Lora, attach
from urae.errors import UraeError
from urae.execution import MemoryPlan
from urae.generation import DrawingRequest, Imax, generate, plan_drawing, policy_for
from urae.generation.methods import METHODS
from urae.resolution import ResolutionPolicy, active_policy

TIGER = "a flat tiger on a wood background"
WHALE = "a glossy whale on a dotted background"
SCALED = ResolutionPolicy(rope_scale=10.0, proportional=True, native_tokens=96, shift=2.0)


def draw(pipe, prompt=TIGER, **settings):
    return generate(pipe, prompt, **{"size": (128, 96), "steps": 2, **settings})


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture
def adapter(speaking):
    """A LoRA with weights that matter, made for a policy of its own."""
    attached = attach(speaking.transformer, Lora(rank=2))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    exported = attached.export(policy=SCALED)
    attached.detach()
    return exported


# Pixels


def test_the_same_call_gives_the_same_pixels(speaking):
    assert same(draw(speaking), draw(speaking))


def test_at_native_size_it_is_the_stock_pipeline(speaking):
    width, height = 128, 128
    stock = speaking(
        TIGER,
        width=width,
        height=height,
        num_inference_steps=2,
        guidance_scale=2.0,
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert same(draw(speaking, size=(128, 128), guidance=2.0, seed=5), stock)


def test_above_native_size_it_is_the_pipeline_under_the_default_policy(speaking):
    default = ResolutionPolicy.for_size(speaking, (256, 128))
    ours = draw(speaking, size=(256, 128))
    with default.on(speaking):
        stock = speaking(
            TIGER,
            width=256,
            height=128,
            num_inference_steps=2,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
    assert same(ours, stock)
    assert ours.size == (256, 128)


def test_company_does_not_change_an_image(speaking):
    grid = draw(speaking, [TIGER, WHALE], seed=[3, 4])
    assert [(image.info["prompt"], image.info["seed"]) for image in grid] == [
        (TIGER, "3"),
        (TIGER, "4"),
        (WHALE, "3"),
        (WHALE, "4"),
    ]
    assert same(grid[3], draw(speaking, WHALE, seed=4))
    assert len({np.asarray(image).tobytes() for image in grid}) == 4


@pytest.mark.parametrize(("prompt", "seed"), [([TIGER], 0), (TIGER, [0]), ((TIGER,), range(1))])
def test_a_list_asks_for_a_list(speaking, prompt, seed):
    images = draw(speaking, prompt, seed=seed)
    assert isinstance(images, list)
    assert same(images[0], draw(speaking))


@pytest.mark.parametrize("change", [{"seed": 1}, {"guidance": 5.0}, {"steps": 3}, {"prompt": WHALE}])
def test_every_setting_counts(speaking, change):
    assert not same(draw(speaking), draw(speaking, **change))


# Policy and adapter


def test_policy_none_is_stock_behaviour_inside_a_policy_too(speaking):
    plain = draw(speaking, size=(256, 128), policy="none")
    assert not same(plain, draw(speaking, size=(256, 128)))
    with SCALED.on(speaking):
        assert same(draw(speaking, size=(256, 128), policy="none"), plain)
        assert active_policy(speaking) is SCALED


def test_a_policy_that_is_on_already_is_kept(speaking):
    with SCALED.on(speaking):
        inside = draw(speaking, size=(256, 128))
    assert same(inside, draw(speaking, size=(256, 128), policy=SCALED))


def test_an_adapter_brings_its_policy(speaking, adapter):
    ours = draw(speaking, adapter=adapter)
    with adapter.on(speaking):
        by_hand = draw(speaking)
    assert same(ours, by_hand)
    assert ours.info["policy"] == SCALED.to_json()
    assert ours.info["adapter_hash"] == adapter.hash
    assert same(draw(speaking), draw(speaking))
    assert not same(ours, draw(speaking, policy=SCALED))


def test_a_picture_of_values_that_are_no_numbers_is_none(speaking, adapter):
    """The stock pipeline makes them black, and says nothing."""
    (name, (A, B)), *others = adapter.factors.items()
    broken = dataclasses.replace(adapter, factors={name: (A * 1e30, B * 1e30), **dict(others)})
    with pytest.raises(
        UraeError, match="the picture of seed 0 holds values that are no numbers: take a wider"
    ):
        draw(speaking, adapter=broken)
    assert len(np.unique(np.asarray(draw(speaking)))) > 1


def test_a_given_policy_goes_before_the_adapters(speaking, adapter):
    other = ResolutionPolicy(shift=1.2)
    ours = draw(speaking, adapter=adapter, policy=other)
    with adapter.on(speaking, policy=other):
        assert same(ours, draw(speaking))
    with adapter.on(speaking, policy=None):
        assert same(draw(speaking, policy="none"), draw(speaking, adapter=None, policy="none"))
        stock = draw(speaking, policy="none")
    assert same(draw(speaking, adapter=adapter, policy="none"), stock)


def test_the_choice_of_policy(speaking, adapter):
    large, native = (256, 128), (128, 128)
    assert policy_for(speaking, large) == ResolutionPolicy.for_size(speaking, large)
    assert policy_for(speaking, native) is None
    assert policy_for(speaking, native, adapter=adapter) == SCALED
    assert policy_for(speaking, large, policy="none", adapter=adapter) is None
    assert policy_for(speaking, large, policy=SCALED) is SCALED


def test_everything_is_restored(speaking, adapter):
    names = set(speaking.transformer.state_dict())
    before = (speaking.transformer.pos_embed, speaking.scheduler, speaking.vae.use_tiling)
    draw(speaking, size=(256, 128), adapter=adapter)
    assert (speaking.transformer.pos_embed, speaking.scheduler, speaking.vae.use_tiling) == before
    assert set(speaking.transformer.state_dict()) == names


def test_a_dynamic_shift_gone_astray_is_warned_about(speaking):
    # A scheduler whose line is ten times as steep reaches at 256 px what FLUX reaches at 2048 px.
    speaking.scheduler = type(speaking.scheduler).from_config(
        speaking.scheduler.config, base_image_seq_len=16, max_image_seq_len=40
    )
    with pytest.warns(UserWarning, match=r"the dynamic timestep shift is .* at 256x128: \d+% of 2 steps"):
        draw(speaking, size=(256, 128), policy="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(speaking, size=(256, 128))


# Callbacks


def test_steps_and_images_are_reported_as_they_come(speaking):
    events = []
    images = draw(
        speaking,
        [TIGER, WHALE],
        on_step=lambda: events.append("step"),
        on_image=lambda image: events.append(image.info["prompt"]),
    )
    assert events == ["step", "step", TIGER, "step", "step", WHALE]
    assert [image.info["prompt"] for image in images] == [TIGER, WHALE]


def test_the_memory_plan_is_said(speaking, caplog):
    with caplog.at_level(logging.INFO, logger="urae"):
        image = draw(speaking, memory=MemoryPlan(device="cpu", offload="unchanged", reason="why not"))
    assert "memory: as it is on cpu: why not" in caplog.text
    assert image.info["memory"] == "as it is on cpu: why not"


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (130, 128)}, "size 130x128 .* use 128x128 or 144x128"),
        ({"method": "magic"}, f"method is 'magic': expected one of {', '.join(METHODS)}"),
        ({"policy": "mine"}, "policy is 'mine': expected auto, none, reference or"),
        ({"steps": 0}, "steps is 0: expected 1 or more"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"seed": []}, "seed is an empty list"),
        ({"seed": 1.5}, "seed is 1.5: expected a whole number"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": [7]}, "prompt is 7: expected a string"),
    ],
)
def test_what_cannot_be_followed_is_refused(speaking, settings, message):
    with pytest.raises(ValueError, match=message):
        draw(speaking, **settings)


def test_guidance_without_a_guidance_input_is_refused(speaking):
    config = {
        **speaking.transformer.config,
        "guidance_embeds": False,
        "num_layers": 1,
        "num_single_layers": 1,
    }
    torch.manual_seed(0)
    speaking.transformer = FluxTransformer2DModel.from_config(config).eval()
    with pytest.raises(ValueError, match="guidance is 2.0, but this model takes no guidance scale"):
        draw(speaking, guidance=2.0)
    image = draw(speaking)
    assert isinstance(image, Image.Image)
    assert image.info["guidance"] == "none"


# The request and the plan


def test_the_functions_keywords_are_the_requests_fields():
    shown = set(inspect.signature(generate).parameters)
    assert {field.name for field in dataclasses.fields(DrawingRequest)} <= shown
    with pytest.raises(TypeError, match="unexpected keyword argument 'sized'"):
        generate(None, TIGER, size=64, sized=3)


def test_a_plan_is_what_is_drawn_and_can_be_read_compared_and_run_in_parts(speaking, adapter):
    asked = DrawingRequest(prompt=[TIGER, WHALE], size="128x96", steps=2, seed=[3, 4], adapter=adapter)
    plan = plan_drawing(speaking, asked)
    assert plan == plan_drawing(speaking, asked)
    assert plan != plan_drawing(speaking, dataclasses.replace(asked, guidance=2.0))
    assert str(plan).splitlines()[:2] == [f"policy: {SCALED}", f"memory: {plan.memory}"]
    assert (plan.num_steps, plan.only([2]).num_steps) == (8, 2)
    whole = draw(speaking, [TIGER, WHALE], seed=[3, 4], adapter=adapter)
    (part,) = plan.only([2]).run()
    assert same(part, whole[2])
    assert [
        made.to_info().items() <= image.info.items() for made, image in zip(plan.made, whole, strict=True)
    ] == [True] * 4


def test_a_request_says_what_its_texts_stand_for():
    asked = DrawingRequest(
        prompt=TIGER, size="128x96", method="imax", settings=("weight=0.5",), policy="reference"
    )
    assert (asked.size, asked.method, asked.settings) == ((128, 96), Imax(weight=0.5), ())
    assert asked.policy == ResolutionPolicy.reference()
    assert dataclasses.replace(asked, seed=1).method == asked.method
    with pytest.raises(
        ValueError, match="the setting 'weight=1' has no effect on a method that is made already"
    ):
        DrawingRequest(prompt=TIGER, size=64, method=Imax(), settings=("weight=1",))
    with pytest.raises(ValueError, match="offload and decode have no effect beside a memory plan"):
        DrawingRequest(prompt=TIGER, size=64, memory=MemoryPlan(device="cpu", offload="none"), decode="tiles")
