"""Pictures of other tools: what is taken from them, and what is refused in one sentence."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from urae.cli.show import show as command
from urae.cli.verbs import Commands
from urae.errors import BadFile
from urae.io import write_png
from urae.provenance import read_maker
from urae.provenance.foreign import from_graph, from_parameters

FORGE = """a lighthouse: at dusk, "golden" light
second line
Negative prompt: blurry, text
Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 4203, \
Size: 896x1152, Model hash: 9dca1, Model: flux1-dev, Lora hashes: "style: 12, b: 34", Version: f2.0.1"""


def graph(**changed):
    """As ComfyUI writes it for FLUX.1 by its own example."""
    nodes = {
        "5": ("EmptySD3LatentImage", {"width": 1024, "height": 768, "batch_size": 1}),
        "6": ("CLIPTextEncode", {"text": "a fox", "clip": ["11", 0]}),
        "8": ("VAEDecode", {"samples": ["13", 0], "vae": ["10", 0]}),
        "13": (
            "SamplerCustomAdvanced",
            {
                "noise": ["25", 0],
                "guider": ["22", 0],
                "sampler": ["16", 0],
                "sigmas": ["17", 0],
                "latent_image": ["5", 0],
            },
        ),
        "16": ("KSamplerSelect", {"sampler_name": "euler"}),
        "17": ("BasicScheduler", {"steps": 20, "denoise": 1.0, "model": ["12", 0]}),
        "22": ("BasicGuider", {"model": ["12", 0], "conditioning": ["26", 0]}),
        "25": ("RandomNoise", {"noise_seed": 219670278747233}),
        "26": ("FluxGuidance", {"guidance": 3.5, "conditioning": ["6", 0]}),
    } | changed
    return json.dumps({key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()})


def test_parameters_of_automatic1111():
    told = from_parameters(FORGE, name="a.png")
    assert told.taken == {
        "prompt": 'a lighthouse: at dusk, "golden" light\nsecond line',
        "negative": "blurry, text",
        "steps": 20,
        "guidance": 3.5,
        "seed": 4203,
        "size": (896, 1152),
    }
    assert told.left["Model"] == "flux1-dev"
    assert told.left["Lora hashes"] == "style: 12, b: 34"


def test_only_a_line_begins_the_negative_prompt():
    told = from_parameters("a sign, Negative prompt: of old\n" + FORGE, name="a.png").taken
    assert told["prompt"].startswith("a sign, Negative prompt: of old\na lighthouse")
    assert told["negative"] == "blurry, text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("only words", "that AUTOMATIC1111 does not write"),
        (FORGE.replace("896x1152", "big"), "says Size: 'big', which is not such a setting"),
        (FORGE.replace("Seed: 4203", "Seed: -1"), "says Seed: '-1'"),
    ],
)
def test_other_parameters_are_refused(text, message):
    with pytest.raises(BadFile, match=message):
        from_parameters(text, name="a.png")


def test_a_graph_of_comfyui():
    told = from_graph(graph(), name="a.png")
    assert told.taken == {
        "prompt": "a fox",
        "size": (1024, 768),
        "steps": 20,
        "seed": 219670278747233,
        "guidance": 3.5,
    }
    assert told.left == {"nodes": "KSamplerSelect, VAEDecode"}


def test_a_graph_with_a_plain_sampler():
    inputs = {
        "seed": 7,
        "steps": 4,
        "cfg": 2.0,
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    told = from_graph(
        graph(**{"13": ("KSampler", inputs), "7": ("CLIPTextEncode", {"text": "blurry"})}), name="a.png"
    )
    assert (told.taken["negative"], told.taken["guidance"], told.taken["seed"]) == ("blurry", 2.0, 7)


def test_a_graph_with_zeros_and_with_a_guider_of_two_prompts():
    changed = {
        "22": ("CFGGuider", {"cfg": 4.0, "positive": ["6", 0], "negative": ["7", 0]}),
        "25": ("RandomNoise", {"noise_seed": 0}),
        "7": ("CLIPTextEncode", {"text": "blurry"}),
    }
    told = from_graph(graph(**changed), name="a.png")
    assert (told.taken["prompt"], told.taken["negative"]) == ("a fox", "blurry")
    assert (told.taken["seed"], told.taken["guidance"]) == (0, 4.0)
    unguided = from_graph(
        graph(**{"26": ("FluxGuidance", {"guidance": 0.0, "conditioning": ["6", 0]})}), name="a.png"
    )
    assert unguided.taken["guidance"] == 0.0
    emptied = changed | {"7": ("ConditioningZeroOut", {"conditioning": ["6", 0]})}
    told = from_graph(graph(**emptied), name="a.png")
    assert "negative" not in told.taken
    assert "ConditioningZeroOut" in told.left["nodes"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"30": ("KSampler", {})}, "with 2 samplers: only one drawing is understood"),
        (
            {"6": ("SomeoneElsesText", {"words": "a"})},
            "whose prompt comes from SomeoneElsesText, which is unknown here",
        ),
        ({"6": ("CLIPTextEncode", {"text": ["6", 0]})}, "whose prompt comes from CLIPTextEncode"),
        ({"26": ("FluxGuidance", {"conditioning": ["26", 0]})}, "whose prompt comes from FluxGuidance"),
        (
            {"5": ("VAEEncode", {"pixels": ["1", 0]})},
            "does not begin with an empty latent: its size is unknown",
        ),
    ],
)
def test_a_graph_with_several_readings_is_refused(changed, message):
    with pytest.raises(BadFile, match=message):
        from_graph(graph(**changed), name="a.png")


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"1": 2}', '{"1": {"class_type": "KSampler"}}', "a plain prompt"]
)
def test_what_is_no_graph(text):
    with pytest.raises(BadFile, match=r"is not JSON|expected an object|is not a graph of ComfyUI"):
        from_graph(text, name="a.png")


def test_showing_a_strangers_picture_prints_no_sequences(tmp_path):
    evil = FORGE.replace("second line", "\x1b]0;title\x07[bold]x[/bold]\u202e")
    write_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", texts={"parameters": evil})
    app = Commands()
    app.command()(command)
    said = CliRunner().invoke(app, [str(tmp_path / "a.png")], catch_exceptions=False).stdout
    assert "[bold]x[/bold]" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert "896x1152" in said
    write_png(Image.new("RGB", (8, 8)), tmp_path / "b.png", texts={})
    with pytest.raises(BadFile, match="does not say how it was made"):
        read_maker(tmp_path / "b.png")
