"""`urae generate`: options reach the function, and the same command gives the same pixels."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import processes
from urae.adapters import Lora, attach
from urae.cli.generate import generate as command
from urae.cli.verbs import Commands
from urae.errors import BadFile
from urae.execution import quantised
from urae.families import open_pipeline
from urae.generation import Sdedit, generate, read_png_metadata
from urae.resolution import ResolutionPolicy

TIGER = "a flat tiger, on a wood background!"


@pytest.fixture(scope="module")
def folder(untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-flux"
    untrained.save_pretrained(path)
    return path


@pytest.fixture
def run(folder, tmp_path):
    app = Commands()
    app.command()(command)

    def run(*arguments):
        given = {"--model": folder, "--size": "64x48", "--out": tmp_path}
        given |= {"--steps": 1} if "esrgan" not in arguments else {}
        usual = [part for name, value in given.items() if name not in arguments for part in (name, value)]
        result = CliRunner().invoke(app, list(map(str, [TIGER, *usual, *arguments])))
        if result.exception:
            raise result.exception
        return result.stdout

    return run


def pixels(path):
    return np.asarray(Image.open(path))


def test_it_says_where_each_file_is_and_what_was_chosen(run, tmp_path):
    said = run("--seed", 3, "--seed", 4)
    files = sorted(tmp_path.iterdir())
    assert [line for line in said.splitlines() if line.startswith("wrote")] == [
        f"wrote {file}" for file in files
    ]
    for file, seed in zip(files, (3, 4), strict=True):
        assert re.fullmatch(
            rf"1-a-flat-tiger-on-a-wood-background-64x48-seed{seed}-[0-9a-f]{{8}}\.png", file.name
        )
    assert "policy: none\n" in said
    assert "memory: as it is on cpu" in said or torch.cuda.is_available()


def test_a_sheet_shows_every_seed_and_leads_to_its_file(run, tmp_path, tmp_path_factory):
    page = tmp_path_factory.mktemp("sheet") / "seeds.html"
    told = json.loads(run("--seed", "3-4", "--sheet", page, "--json"))
    files = sorted(tmp_path.iterdir())
    assert told == {
        "pictures": [{"file": str(f), "prompt": TIGER, "seed": s} for f, s in zip(files, (3, 4), strict=True)]
    }
    shown = page.read_text()
    links = re.findall(r'href="([^"]+)"', shown)
    assert [(page.parent / unquote(link)).resolve() for link in links] == files
    assert re.findall(r"<figcaption>(.*?)<small>", shown) == ["seed 3", "seed 4"]
    told_again = json.loads(run("--seed", "3-4", "--sheet", page, "--json"))
    assert (told_again, page.read_text()) == (told, shown)
    with pytest.raises(ValueError, match=r"sheet is seeds\.jpg: expected a name that ends in \.html"):
        run("--sheet", "seeds.jpg")


def test_speed_is_said_and_kept(run, tmp_path):
    said = run("--steps", 5, "--speed", "taylorseer:interval=2", "--compile", "off")
    assert "speed: taylorseer:interval=2,order=2 (4 of 5 steps computed), blocks eager: as asked\n" in said
    (png,) = tmp_path.iterdir()
    assert read_png_metadata(png).speed == "taylorseer:interval=2,order=2"
    with pytest.raises(ValueError, match="compile is 'yes': expected one of auto, on, off"):
        run("--compile", "yes")


def test_it_is_the_function(run, folder, tmp_path):
    run("--seed", 3, "--guidance", 2.0)
    expected = generate(open_pipeline(folder), TIGER, size=(64, 48), steps=1, seed=3, guidance=2.0)
    (file,) = tmp_path.iterdir()
    assert np.array_equal(pixels(file), np.asarray(expected))


@pytest.mark.parametrize("policy", ["auto", "none", "reference", "own"])
def test_policies_by_name_and_file(run, folder, tmp_path, tmp_path_factory, policy):
    own = ResolutionPolicy(shift=6.0)
    file = tmp_path_factory.mktemp("policy") / "own.json"
    file.write_text(own.to_json())
    expected = {
        "auto": ResolutionPolicy.for_size(open_pipeline(folder), (256, 128)),
        "none": None,
        "reference": ResolutionPolicy.reference(),
        "own": own,
    }[policy]
    said = run("--size", "256x128", "--policy", file if policy == "own" else policy, "-v")
    (png,) = tmp_path.iterdir()
    assert read_png_metadata(png).policy == expected
    assert f"policy: {expected or 'none'}\n" in said
    assert [line for line in said.splitlines() if "{" in line] == (
        [f"policy as JSON: {expected.to_json()}"] if expected else []
    )


def test_an_adapter_file_is_applied_and_named(run, folder, tmp_path, tmp_path_factory):
    pipe = open_pipeline(folder)
    attached = attach(pipe.transformer, Lora(rank=2))
    for parameter in attached.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    adapter = attached.export(policy=ResolutionPolicy(shift=6.0))
    attached.detach()
    path = adapter.save(tmp_path_factory.mktemp("adapter") / "tuned.safetensors")
    run("--adapter", path)
    (png,) = tmp_path.iterdir()
    made = read_png_metadata(png)
    assert (made.adapter_file, made.adapter_hash) == ("tuned.safetensors", adapter.hash)
    assert made.policy == adapter.policy
    assert np.array_equal(
        pixels(png), np.asarray(generate(pipe, TIGER, size=(64, 48), steps=1, adapter=adapter))
    )


def test_memory_by_hand(run, tmp_path):
    said = run("--offload", "unchanged", "--decode", "tiles", "--size", "144x144")
    assert "VAE in tiles: as asked" in said
    (png,) = tmp_path.iterdir()
    assert "VAE in tiles" in read_png_metadata(png).memory
    run("--decode", "strips", "--size", "144x144")
    (other,) = set(tmp_path.iterdir()) - {png}
    assert read_png_metadata(other).memory == "as it is on cpu, VAE in strips: as asked"


def test_a_rounded_base_is_used_and_named(run, folder, tmp_path):
    run()
    (png,) = tmp_path.iterdir()
    plain, said = pixels(png), read_png_metadata(png)
    assert said.base_weights == "as_loaded"
    run("--base-weights", "nf4")
    (rounded,) = set(tmp_path.iterdir()) - {png}
    assert read_png_metadata(rounded).base_weights == "nf4"
    pipe = open_pipeline(folder)
    with quantised(pipe, "nf4"):
        expected = np.asarray(generate(pipe, TIGER, size=(64, 48), steps=1))
    assert np.array_equal(pixels(rounded), expected)
    assert np.array_equal(pixels(png), plain)
    assert not np.array_equal(plain, expected)


def test_a_method_with_its_options_and_kept_native_pictures(run, folder, tmp_path, tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept")
    settings = ["--size", "144x144", "--natives", kept, "--set", "native_steps=1"]
    said = run(*settings, "--method", "sdedit", "--set", "start_sigma=0.5")
    shift = ResolutionPolicy.for_size(open_pipeline(folder), (144, 144)).shift
    assert f"sdedit: {Sdedit(start_sigma=0.5).describe(steps=1, shift=shift)}\n" in said
    said = run(*settings, "--method", "imax")
    assert sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir()) == [
        f"1-a-flat-tiger-on-a-wood-background-144x144-{name}-seed0" for name in ("imax", "sdedit")
    ]
    assert ", timestep shift 6\n" in said
    (native,) = kept.iterdir()
    (other,) = tmp_path.glob("*imax*")
    expected = generate(open_pipeline(folder), TIGER, size=(144, 144), method="imax", native=native, steps=1)
    assert np.array_equal(pixels(other), np.asarray(expected))
    assert read_png_metadata(other).options["native_steps"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "imax", "--set", "strength=1"], "strength is not an option of imax: valid options are"),
        (["--set", "weight=1"], "weight is not an option of direct, it is one of imax"),
        (["--native", "a.png"], "a native picture has no effect with the direct method"),
        (["--size", "64"], "size is '64': expected WIDTHxHEIGHT"),
        (["--size", "60x64"], "size 60x64 has a side that is not a multiple of 16"),
        (["--policy", "mine"], "policy is 'mine': expected auto, none, reference or the name of a JSON file"),
        (["--start", "a.safetensors"], "start a.safetensors has no effect without an adapter"),
        (["--decode", "tiles"], "'tiles', but 64x48 is no larger than one tile, of 128 px: leave it out"),
        (["--decode", "strips", "--method", "esrgan"], "decode has no effect with the esrgan method"),
        (
            ["--base-weights", "nf4", "--method", "esrgan", "--native", "a.png"],
            "base_weights has no effect with the esrgan method and a native picture",
        ),
        (["--decode", "some"], "decode is 'some': expected one of auto, whole, strips, tiles"),
        (["--decode", "strips", "--offload", "sequential"], "'strips' with offload 'sequential'"),
        (
            ["--base-weights", "int4"],
            "base_weights is 'int4': expected one of as_loaded, fp8, fp8_dynamic, int8, nf4",
        ),
        (["--offload", "half"], "offload is 'half'"),
        (["--method", "magic"], "method is 'magic': expected one of direct"),
    ],
)
def test_what_cannot_be_followed_is_refused(run, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", '{"ntk": 10}', '{"shift": 0}'])
def test_a_bad_policy_file_is_refused_by_name(run, tmp_path_factory, text):
    file = tmp_path_factory.mktemp("policy") / "own.json"
    file.write_text(text)
    with pytest.raises(BadFile, match=r"own\.json is no"):
        run("--policy", file)


def test_no_picture_takes_the_place_of_another(run, tmp_path):
    """Each of these was one file once: the last of them."""
    ways = [(), ("--steps", 2), ("--guidance", 2.0), ("--policy", "reference"), ("--dtype", "bfloat16")]
    for options in ways:
        assert "wrote" in run(*options)
    assert len(list(tmp_path.iterdir())) == len(ways)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for options in ways:
        said = run(*options)
        assert "1 of 1 pictures are finished already, such as " in said
        assert "wrote" not in said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_stands_under_a_pictures_name_stays(run, tmp_path):
    run()
    (png,) = tmp_path.iterdir()
    made = png.read_bytes()
    Image.new("RGB", (8, 8)).save(png)
    other = png.read_bytes()
    run()
    assert png.read_bytes() == other
    assert png.with_name(f"{png.stem}-2.png").read_bytes() == made


def test_the_folder_is_looked_at_before_the_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is not a folder"):
        run("--out", tmp_path / "file")


def test_the_same_command_in_another_process_gives_the_same_file(run, folder, tmp_path):
    options = ["--size", "256x128", "--steps", "2", "--seed", "7"]
    run(*options)
    out = tmp_path / "again"
    assert processes.urae("generate", TIGER, "--model", folder, *options, "--out", out).returncode == 0
    (again,) = out.iterdir()
    assert again.read_bytes() == (tmp_path / again.name).read_bytes()
