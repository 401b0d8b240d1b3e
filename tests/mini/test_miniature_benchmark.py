"""The benchmark of the miniature: small, resumable, and honest about what is not met."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from urae import mini
from urae.mini.train.base import trained_weights
from urae.provenance import read_png_metadata
from urae.resolution import ResolutionPolicy

pytestmark = pytest.mark.thorough

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks' folder, by name."""
    monkeypatch.chdir(BENCHMARKS.parent)
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def measure(benchmark, tmp_path, monkeypatch):
    """Run parts of the benchmark into a folder of the test's; the result, and the page that shows it."""

    def run(*arguments):
        out = tmp_path / "miniature.json"
        places = ["--cache", tmp_path / "cache", "--images", tmp_path / "images", "--out", out]
        monkeypatch.setattr(sys, "argv", ["miniature.py", *map(str, [*arguments, *places])])
        benchmark("miniature").main()
        return json.loads(out.read_text())["parts"], out.with_suffix(".md").read_text()

    return run


def test_parts_are_measured_one_by_one_and_only_once(measure, tmp_path):
    parts, page = measure("recogniser", "--scenes", 3)
    assert [row["way"] for row in next(iter(parts["recogniser"]["tables"].values()))] == [
        "128 px",
        "256 px",
        "512 px",
    ]
    assert all(aim["met"] and aim["measured"]["value"] == 1 for aim in parts["recogniser"]["aims"])
    assert "Not measured: vae, samples, guidance, sizes, policies." in page
    rows = tmp_path / "cache" / "miniature-recogniser" / "rows.jsonl"
    before = rows.read_text()
    assert before.count("\n") == 9
    parts, page = measure("vae", "recogniser", "--scenes", 1)
    assert rows.read_text() == before
    assert "Not measured: samples, guidance, sizes, policies." in page
    small, large = next(iter(parts["vae"]["tables"].values()))
    assert 20 < small["PSNR, dB"]["value"] < large["PSNR, dB"]["value"] < 40
    assert parts["vae"]["command"] == "python benchmarks/miniature.py vae --scenes 1"


def test_pictures_of_one_step_do_not_meet_the_aims_and_the_page_says_so(measure, tmp_path):
    parts, page = measure("samples", "--prompts", 2, "--steps", 1)
    found = {row["way"]: row for row in next(iter(parts["samples"]["tables"].values()))}
    value = found["whole world, guidance 3.5"]["object"]["value"]
    assert value <= 0.5
    assert f"| 128 px samples, object, whole world | 0.85 or more | {value:.3g} [" in page
    assert all("| **no** |" in line for line in page.splitlines() if ", whole world | 0.85 or more" in line)
    rows = [json.loads(line) for line in (tmp_path / "cache/miniature-samples/rows.jsonl").open()]
    pictures = [
        tmp_path / "cache/miniature-samples" / row["identity"] / f"{row['prompt']:04d}.png" for row in rows
    ]
    assert sorted(read_png_metadata(file).guidance for file in pictures) == [1.0] * 4 + [3.5] * 4
    assert Image.open(tmp_path / "images/miniature-samples.png").width > 2 * 128


def test_pictures_of_another_precision_are_others(measure, tmp_path):
    small = ["samples", "--prompts", 1, "--steps", 1]
    rows = tmp_path / "cache/miniature-samples/rows.jsonl"
    measure(*small)
    parts, _ = measure(*small, "--dtype", "bf16")
    assert parts["samples"]["command"] == (
        "python benchmarks/miniature.py samples --prompts 1 --steps 1 --dtype bf16"
    )
    ways = [json.loads(line)["way"] for line in rows.open()]
    assert len(ways) == 8
    assert ways[:4] == ways[4:]
    with pytest.raises(SystemExit):
        measure("vae", "--scenes", 1, "--dtype", "bf16")


def test_the_distilled_model_is_compared_with_explicit_guidance(measure, tmp_path):
    """With the shipped model as its own teacher there is no error where nothing is guided."""
    pipe = mini.pipeline()
    weights = {f"ema.{name}": weight.detach() for name, weight in trained_weights(pipe).items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "pairs.safetensors")
    with pytest.raises(SystemExit, match=r"make it with python -m urae.mini.train vae --out \S+$"):
        measure("guidance", "--checkpoints", tmp_path)
    with pytest.raises(
        SystemExit, match=r"train vae --out \S+ and .*base .*and .*text .*and .*pairs --out \S+$"
    ):
        measure("guidance", "--checkpoints", tmp_path / "nothing")
    vae = {f"ema.{name}": weight.contiguous() for name, weight in pipe.vae.state_dict().items()}
    save_file(vae, tmp_path / "vae.safetensors")
    parts, _ = measure("guidance", "--checkpoints", tmp_path, "--scenes", 2)
    errors = {
        row["way"]: row["familiar"]["value"] for row in next(iter(parts["guidance"]["tables"].values()))
    }
    assert errors["g = 1"] < 1e-5
    assert errors["g = 5"] > errors["g = 2"] > 0.01
    assert [aim["met"] for aim in parts["guidance"]["aims"]] == [error <= 0.1 for error in errors.values()]


def test_every_way_is_drawn_above_the_native_size(measure, tmp_path):
    parts, _ = measure("policies", "sizes", "--sizes", 256, "--prompts", 1, "--steps", 1)
    few, rows = (next(iter(parts[name]["tables"].values())) for name in ("sizes", "policies"))
    assert [row["way"] for row in few] == ["guidance 3.5", "direct", "policy", "truth"]
    assert all(row in rows for row in few)  # the same pictures, drawn once
    assert [row["way"] for row in rows[:4]] == ["guidance 3.5", "direct", "shift 3 alone", "policy"]
    assert rows[-1]["way"] == "truth"
    assert rows[-1]["object"]["value"] == 1
    pictures = {file.read_bytes() for file in (tmp_path / "cache/miniature-sizes").glob("*/0000.png")}
    assert len(pictures) == len(rows) - 1
    policies, sizes = (tmp_path / f"images/miniature-{part}-256.png" for part in ("policies", "sizes"))
    assert policies.stat().st_size < 400_000
    assert Image.open(sizes).height < Image.open(policies).height


@pytest.mark.parametrize(
    "given",
    [
        ["vae", "--prompts", 1],
        ["samples", "--scenes", 1],
        ["recogniser", "--steps", 1],
        ["samples", "--sizes", 256],
        ["sizes", "--checkpoints", "elsewhere"],
        ["sizes", "--start", "a.safetensors"],
    ],
)
def test_an_option_that_no_part_heeds_is_refused(measure, capsys, given):
    with pytest.raises(SystemExit):
        measure(*given)
    assert f"{given[1]} has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [["vae", "--adapter-2x", "a.safetensors"], ["sizes", "--sizes", 256, "--adapter-4x", "a.safetensors"]],
)
def test_an_adapter_for_a_size_that_is_not_drawn_is_refused(measure, capsys, given):
    with pytest.raises(SystemExit):
        measure(*given)
    assert "has no effect where nothing is drawn at" in capsys.readouterr().err


def test_one_factor_of_the_policy_changes_at_a_time(benchmark):
    pipe = mini.pipeline()
    policies = benchmark("parts.sizes").policies_at(pipe, 512)
    default = asdict(ResolutionPolicy.for_size(pipe, 512))

    def changed(label):
        return {name for name, value in asdict(policies[label]).items() if value != default[name]}

    assert changed("policy") == set()
    assert changed("policy, shift 6") == changed("policy, shift 1") == {"shift"}
    assert changed("policy, no proportional attention") == {"proportional"}
    assert changed("theta x 10, clipped") == {"linear", "rope_clip", "rope_scale"}
    assert changed("dype_ntk") == {"linear", "rope"}


def test_what_the_sizes_must_show_is_judged_on_the_same_prompts(benchmark):
    """Copies only where nothing is done, objects that come back with the policy and surely with the adapter."""
    sizes = benchmark("parts.sizes")

    def rows(way, copies, objects):
        return [
            {"way": way, "prompt": i, "repetition": copies + 0.001 * i, "object": float(i < objects)}
            for i in range(20)
        ]

    near, far = ({"value": v, "low": v - 1, "high": v + 1} for v in (20, 60))
    distances = {sizes.DIRECT: far, sizes.POLICY: near, sizes.ADAPTED: near}
    drawn = [*rows(sizes.DIRECT, 0.6, 4), *rows(sizes.POLICY, 0.2, 8), *rows(sizes.ADAPTED, 0.2, 18)]
    native = rows(sizes.GUIDED, 0.2, 18)

    def claimed(rows):
        found = sizes.Measured(rows=rows, native_rows=native, distances=distances, table={})
        return [(aim["what"], aim["met"]) for aim in sizes._claims(256, found)]

    claims = claimed(drawn)
    assert [met for _, met in claims] == [True, True, True, True, True, False]
    assert claims[-1][0] == "256 px, adapter: patch FID, below the policy"
    without = [row for row in drawn if row["way"] != sizes.ADAPTED]
    assert len(claimed(without)) == 4


def test_steps_at_the_borders_of_tiles_are_seen(benchmark):
    vae = benchmark("parts.vae")
    borders = vae.borders(mini.pipeline().vae, 512)
    assert borders[:4] == [96, 128, 192, 224]
    smooth = torch.linspace(-1, 1, 512).expand(1, 3, 512, 512) + torch.linspace(-1, 1, 512)[:, None]
    assert vae.seam(smooth, borders) == pytest.approx(1, abs=1e-3)
    broken = smooth.clone()
    broken[..., 96:] += 0.1
    assert vae.seam(broken, borders) > 2


def test_a_stopped_run_goes_on_where_it_was(benchmark, tmp_path):
    recorded, made = benchmark("pictures").recorded, []

    def make(number):
        made.append(number)
        return {"way": "one", "prompt": number}

    wanted = {("id", i): (lambda i=i: make(i)) for i in range(4)}
    recorded({key: wanted[key] for key in list(wanted)[:2]}, tmp_path)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"identity": "id", "way"')
    rows = recorded(wanted, tmp_path)
    assert made == [0, 1, 2, 3]
    assert [row["prompt"] for row in rows] == [0, 1, 2, 3]


def test_what_two_runs_have_made_counts_once(benchmark, tmp_path):
    recorded = benchmark("pictures").recorded
    wanted = {("id", i): (lambda i=i: {"way": "one", "prompt": i}) for i in range(2)}
    recorded(wanted, tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(2 * rows.read_text())
    assert [row["prompt"] for row in recorded(wanted, tmp_path)] == [0, 1]


def test_a_difference_meets_its_aim_only_if_it_is_real(benchmark):
    aims = benchmark("aims")
    effect = {"real": False, "difference": {"value": 0.2, "low": -0.1, "high": 0.5}}
    assert not aims.more("it", effect)["met"]
    assert aims.more("it", {**effect, "real": True})["met"]
    assert not aims.less("it", {**effect, "real": True})["met"]
    table = aims.aims_table([aims.at_least("it", 0.5, {"value": 0.4, "low": 0.3, "high": 0.6})])
    assert table[-1] == "| it | 0.5 or more | 0.4 [0.3, 0.6] | **no** |"


def test_the_cost_of_a_token_grid_is_timed(benchmark, tmp_path, monkeypatch):
    out = tmp_path / "grid.json"
    options = ["--repeats", "1", "--factors", "1", "--batch", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["token_grid.py", *options])
    benchmark("token_grid").main()
    result = json.loads(out.read_text())
    assert [row["tokens"] for row in result["rows"]] == [64, 256]
    assert all(row["step_seconds"] > 0 for row in result["rows"])
    turns = {row["model"]: row["turns_of_the_fastest"] for row in result["rotary"]}
    assert turns == {"miniature, 8 x 8": 1.27, "miniature, 16 x 16": 2.55, "FLUX.1, 64 x 64": 10.19}
