"""A picture made again from what its file says: the same to the bit, or changed where it is asked to be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from urae.adapters import Adapter, Lora, attach
from urae.cli.generate import generate as command
from urae.cli.verbs import Commands
from urae.families import open_pipeline
from urae.generation import asked_again, generate, read_png_metadata
from urae.io import write_png
from urae.provenance import save_png
from urae.resolution import ResolutionPolicy

TIGER = "a flat tiger"


@pytest.fixture(scope="module")
def folder(untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-flux"
    untrained.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def files(folder, tmp_path_factory):
    """Two adapters, of which the first has a policy."""
    pipe, place = open_pipeline(folder), tmp_path_factory.mktemp("adapters")
    for name, policy in (("size", ResolutionPolicy(shift=6.0)), ("style", None)):
        attached = attach(pipe.transformer, Lora(rank=2))
        for number, parameter in enumerate(attached.parameters()):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))
        attached.export(policy=policy, recipe={"name": name}).save(place / f"{name}.safetensors")
        attached.detach()
    return place


@pytest.fixture
def run(folder):
    app = Commands()
    app.command()(command)

    def run(*arguments):
        result = CliRunner().invoke(app, list(map(str, [*arguments, "--model", folder])))
        if result.exception:
            raise result.exception
        return result.stdout

    return run


def only(folder):
    (file,) = folder.iterdir()
    return file


def test_a_stack_is_told_and_made_again_to_the_bit(run, files, tmp_path):
    stack = ["--adapter", f"{files / 'style.safetensors'}:0.5", "--adapter", files / "size.safetensors"]
    said = run(TIGER, "--size", "144x128", "--steps", 2, "--seed", 5, *stack, "--out", tmp_path / "a")
    assert "adapters: style.safetensors at strength 0.5, size.safetensors at strength 1\n" in said
    made = read_png_metadata(only(tmp_path / "a"))
    assert [(use.file, use.strength) for use in made.adapters] == [
        ("style.safetensors", 0.5),
        ("size.safetensors", 1),
    ]
    assert made.policy == ResolutionPolicy(shift=6.0)
    again = ["--like", only(tmp_path / "a"), *stack]
    assert "1 of 1 pictures are finished already" in run(*again, "--out", tmp_path / "a")
    run(*again, "--out", tmp_path / "b")
    first, second = only(tmp_path / "a"), only(tmp_path / "b")
    assert first.name == second.name
    assert np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second)))
    turned = [stack[2], stack[3], stack[0], stack[1]]
    assert "1 of 1 pictures are finished already" in run("--like", first, *turned, "--out", tmp_path / "a")


def test_changes_are_changes_and_the_rest_stays(run, tmp_path):
    run(
        TIGER,
        "--size",
        "144x144",
        "--steps",
        2,
        "--method",
        "sdedit",
        "--set",
        "native_steps=1",
        "--out",
        tmp_path / "a",
    )
    file = only(tmp_path / "a")
    said = run("--like", file, "--seed", 4, "--set", "start_sigma=0.5", "--out", tmp_path / "b")
    assert f"like {file}: sdedit, seed 0" in said
    made, changed = read_png_metadata(file), read_png_metadata(only(tmp_path / "b"))
    assert changed.seed == 4
    assert changed.options == {**made.options, "start_sigma": 0.5}
    assert (changed.prompt, changed.size, changed.steps, changed.policy) == (
        TIGER,
        (144, 144),
        2,
        made.policy,
    )
    said = run("--like", file, "--size", "160x160", "--out", tmp_path / "c")
    assert "policy: chosen anew" in said
    assert read_png_metadata(only(tmp_path / "c")).policy != made.policy


MADE = {
    "method": "direct",
    "model": "mini",
    "adapter_hash": "ab" * 32,
    "adapter_file": "tuned.safetensors",
    "native_file": "",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {},
            r"made with the adapter tuned.safetensors, which is neither beside it nor here: give it with --adapter",
        ),
        ({"adapter_file": "../../etc/x.safetensors"}, "which is neither beside it nor here"),
        ({"adapter_file": ""}, "made with an adapter of no file: give it with --adapter"),
        (
            {"model": "evil/model"},
            "made with the model 'evil/model', which is not a published one: give it with --model",
        ),
        ({"native_file": "mine.png", "method": "sdedit"}, "drawn from another picture, mine.png: give that"),
        ({"method": "SanaPipeline"}, "made by a SanaPipeline pipeline of its own"),
    ],
)
def test_what_cannot_be_taken_is_refused(tmp_path, small, change, message):
    image = generate(small, "a", size=(64, 64), steps=1)
    image.info.update({key: text for key, text in (MADE | change).items() if text})
    file = save_png(image, tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        asked_again(file, given=())


def test_another_file_of_the_name_is_refused(files, tmp_path):
    adapter = Adapter.load(files / "style.safetensors")
    again = replace(asked_again(foreign(tmp_path), given=()), adapter_hash="ab" * 32)
    with pytest.raises(
        ValueError, match="was made with another file than the style.safetensors that is there now"
    ):
        again.check(adapter)


def foreign(folder):
    text = "a fox\nSteps: 3, Sampler: Euler, CFG scale: 2, Seed: 8, Size: 64x48, Model: other"
    return write_png(Image.new("RGB", (8, 8)), folder / "theirs.png", texts={"parameters": text})


def test_a_picture_of_another_tool_as_far_as_understood(run, tmp_path):
    said = run("--like", foreign(tmp_path), "--steps", 1, "--out", tmp_path / "o")
    assert "taken: prompt, guidance, seed, size\n" in said
    assert "not taken: Sampler Euler; Model other\n" in said
    assert "gives other noise here" in said
    made = read_png_metadata(only(tmp_path / "o"))
    assert (made.prompt, made.seed, made.size, made.guidance, made.steps) == ("a fox", 8, (64, 48), 2.0, 1)
