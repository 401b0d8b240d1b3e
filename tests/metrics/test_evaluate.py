"""From pictures to a table: columns, intervals, marks, references, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from damage import CLAIMS, broken_claims, write_ladder
from networks import clip_folder, inception_file, lpips_file
from PIL import Image, ImageFilter

import urae
from urae.metrics import METRICS, metrics_table, plan_evaluation
from urae.metrics.features import FeatureCache
from urae.metrics.mini import scene_of
from urae.metrics.repetition import repetition
from urae.statistics.table import UNTRAINED

NUM = 16


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("ladder"), num=NUM)


@pytest.fixture(scope="module")
def truth(steps):
    return {"truth": steps["truth"]}


@pytest.fixture(scope="module")
def table(steps, truth):
    return urae.evaluate(steps, metrics=(*CLAIMS,), against=truth, baseline="truth")


def test_the_metrics_order_the_ladder(table):
    assert {column.name for column in table.columns} == set(CLAIMS)
    assert broken_claims(table) == []


def test_a_broken_claim_is_told(steps, truth):
    swapped = {**steps, "truth": steps["shuffled"]}
    broken = broken_claims(urae.evaluate(swapped, metrics=["psnr"], against=truth))
    assert len(broken) == 1
    assert broken[0].startswith("psnr@truth: truth")


def test_the_best_is_marked_and_differences_stand_below(table):
    psnr = {name: row["psnr@truth"] for name, row in table.cells.items()}
    assert psnr["truth"].mark == "best"
    assert psnr["truth"].num_prompts == NUM
    note = next(column.note for column in table.columns if column.name == "psnr@truth")
    difference = psnr["blur"].value - psnr["truth"].value
    assert f"Difference to truth: jpeg {psnr['jpeg'].value - psnr['truth'].value:+.2f} [" in note
    assert f"blur {difference:+.2f} [" in note


def test_a_number_of_a_set_has_an_interval_and_no_mark(table):
    cell = table.cells["blur"]["mini_patch_kid@truth"]
    assert cell.low < cell.value < cell.high
    assert (cell.num_prompts, cell.mark) == (0, "")
    assert f"{cell.value:.5f} [{cell.low:.5f}, {cell.high:.5f}]" in table.to_markdown()


def test_what_the_numbers_rest_on_is_in_the_json(table):
    column = next(c for c in json.loads(table.to_json())["columns"] if c["name"] == "mini_patch_fid@truth")
    assert column["details"]["reference"] == "truth"
    assert column["details"]["num_reference"] == NUM
    assert len(column["details"]["reference_sha256"]) == 64
    assert column["details"]["versions"].keys() >= {"urae", "torch", "pillow"}
    assert f"{NUM} pictures against {NUM} of truth, 8 crops of each" in column["note"]


def test_images_in_memory_with_their_prompts():
    scenes = [urae.mini.scene(i) for i in range(6)]
    images, captions = [urae.mini.render(s, 128) for s in scenes], [s.caption() for s in scenes]
    table = urae.evaluate(images, captions, metrics=("repetition", "mini_alignment"))
    assert table.cells["images"]["mini_alignment"].value == 1
    assert table.cells["images"]["repetition"].scores == {
        caption: pytest.approx(repetition(image)) for caption, image in zip(captions, images, strict=True)
    }


def test_the_batch_size_changes_no_number(steps, truth, tmp_path):
    clip_folder(tmp_path / "clip")
    plan = plan_evaluation(
        {"jpeg": sorted(steps["jpeg"].iterdir())[:7]},
        metrics=["clip", "mini_recognition", "mini_alignment", "mini_patch_kid", "psnr"],
        against=truth,
        weights={"clip": tmp_path / "clip"},
    )
    one, three = (plan.run(batch_size=size).cells["jpeg"] for size in (1, 3))
    for column, cell in one.items():
        assert cell.scores == pytest.approx(three[column].scores, rel=1e-5)
        assert cell.value == pytest.approx(three[column].value, rel=1e-5)


def test_pictures_of_one_prompt_count_once(tmp_path):
    for i in range(12):
        Image.new("RGB", (64, 64), (i * 9, 40, 90)).save(tmp_path / f"{i}.png")
    table = urae.evaluate(tmp_path, {str(i): f"prompt {i // 2}" for i in range(12)}, metrics=["detail"])
    assert table.cells[tmp_path.name]["detail"].num_prompts == 6


def test_a_repeated_run_reads_what_was_kept(tmp_path):
    images = {"a": [Image.new("RGB", (64, 64), (i, 0, 0)) for i in range(6)]}
    first = urae.evaluate(images, "names", metrics=["detail"], cache=tmp_path)
    assert first.cells["a"]["detail"].value == 0
    kept = FeatureCache(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        kept[file.stem] = kept[file.stem] + 0.5
    again = urae.evaluate(images, "names", metrics=["detail"], cache=tmp_path)
    assert again.cells["a"]["detail"].value == 0.5
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    assert urae.evaluate(images, "names", metrics=["detail"], cache=tmp_path).cells == first.cells


def test_frechet_distances_of_few_pictures_are_never_alone(steps, truth):
    given = {"jpeg": steps["jpeg"]}
    plan = plan_evaluation(given, metrics=["mini_patch_fid"], against=truth)
    assert [c.column for c in plan.chosen] == ["mini_patch_fid@truth", "mini_patch_kid@truth"]
    enough = plan_evaluation(given, metrics=["mini_patch_fid"], against=truth, crops=10_000 // NUM)
    assert [c.column for c in enough.chosen] == ["mini_patch_fid@truth"]
    asked = plan_evaluation(given, metrics=["mini_patch_kid", "mini_patch_fid"], against=truth)
    assert [c.column for c in asked.chosen] == ["mini_patch_kid@truth", "mini_patch_fid@truth"]
    assert plan.num_pictures == 2 * NUM
    two = {"a": steps["truth"], "b": steps["blur"]}
    names = ["mini_patch_fid@a", "mini_patch_kid@a", "mini_patch_fid@b"]
    both = plan_evaluation(given, metrics=names, against=two)
    assert [c.column for c in both.chosen] == [*names, "mini_patch_kid@b"]


def test_metrics_with_weights_name_them_and_untrained_ones_are_not_printed(steps, truth, tmp_path):
    clip_folder(tmp_path / "clip")
    clip_folder(tmp_path / "fresh", trained=False)
    inception_file(tmp_path / "inception.safetensors")
    lpips_file(tmp_path / "lpips.safetensors", "alex", trained=False)
    table = urae.evaluate(
        {name: steps[name] for name in ("truth", "blur")},
        metrics=["clip", "pickscore", "fid@truth", "lpips@truth"],
        against=truth,
        baseline="truth",
        weights={
            "clip": tmp_path / "clip",
            "pickscore": tmp_path / "fresh",
            "fid": tmp_path / "inception.safetensors",
            "lpips": tmp_path / "lpips.safetensors",
        },
    )
    columns = {column.name: column for column in table.columns}
    assert list(columns) == ["clip", "pickscore", "fid@truth", "kid@truth", "lpips@truth"]
    assert [columns[name].untrained for name in columns] == [False, True, False, False, True]
    assert "Difference to truth" in columns["clip"].note
    assert "Difference to truth" not in columns["pickscore"].note
    line = next(line for line in table.to_markdown().splitlines() if line.startswith("| blur"))
    assert line.count(UNTRAINED) == 2
    assert f"weights clip ({columns['clip'].details['weights_sha256'][:12]})" in columns["clip"].note
    assert table.cells["truth"]["lpips@truth"].value == 0


def test_a_plan_can_be_printed_and_compared(steps, truth, tmp_path):
    clip_folder(tmp_path / "clip")

    def planned(**changes):
        options = {"metrics": ["psnr", "clip", "mini_patch_kid"], "weights": {"clip": tmp_path / "clip"}}
        return plan_evaluation({"jpeg": steps["jpeg"]}, against=truth, **options, **changes)

    assert planned() == planned()
    assert planned() != planned(crops=4)
    assert str(planned()).splitlines()[:3] == [
        f"jpeg: {NUM} pictures",
        f"against truth: {NUM} pictures",
        "metrics: psnr@truth, clip, mini_patch_kid@truth",
    ]


def test_one_picture_is_no_set_and_a_few_have_no_interval(steps, truth):
    files = sorted(steps["jpeg"].iterdir())
    with pytest.raises(ValueError, match="mini_patch_kid@truth compares sets, and few has one picture"):
        plan_evaluation({"few": files[:1]}, metrics=["mini_patch_kid"], against=truth)
    table = urae.evaluate({"few": files[:3]}, metrics=["mini_patch_kid"], against=truth)
    cell = table.cells["few"]["mini_patch_kid@truth"]
    assert cell.low == cell.value == cell.high
    assert "no interval with fewer than 6 pictures" in table.to_markdown()
    assert f"| few | {cell.value:.5f} |" in table.to_markdown()


def test_what_does_not_fit_is_refused_before_anything_is_read(steps, truth, tmp_path):
    def refused(message: str, candidates=None, prompts="png", **options) -> None:
        with pytest.raises(ValueError, match=message):
            plan_evaluation(candidates or steps, prompts, **options)

    refused("there is no metric 'fidd': expected fid, kid", metrics=["fidd"])
    refused("metrics are grid, grid: expected each once", metrics=["grid", "grid"])
    refused("psnr compares with a reference: expected a reference", metrics=["psnr"])
    refused("expected psnr@a, psnr@b", metrics=["psnr"], against={"a": steps["blur"], "b": steps["jpeg"]})
    refused("grid compares with no reference: leave out @truth", metrics=["grid@truth"], against=truth)
    refused("the reference 'truth' has no effect", metrics=["grid"], against=truth)
    refused("fid needs weights: give the path of a safetensors file", metrics=["fid"], against=truth)
    refused("weights of clip have no effect", metrics=["grid"], weights={"clip": tmp_path})
    refused("grid takes no weights", metrics=["grid"], weights={"grid": tmp_path})
    refused("mini_alignment reads prompts, and 'names' are none", prompts="names", metrics=["mini_alignment"])
    refused("baseline is 'ours': expected one of several candidates", metrics=["grid"], baseline="ours")
    refused("device is 'tpu'", metrics=["grid"], device="tpu")
    small = [Image.new("RGB", (32, 32)) for _ in range(6)]
    refused(
        "native crops of 64 px, and there are pictures of 32x32",
        {"small": small}, "names", metrics=["mini_patch_kid"], against={"small": small},
    )  # fmt: skip
    large = [Image.new("RGB", (128, 128)) for _ in range(6)]
    refused(
        "pictures of 128x128 px, truth of 256x256 px",
        {"large": large}, "names", metrics=["mini_patch_kid"], against=truth,
    )  # fmt: skip
    refused(
        "truth has none for 6 of 6 of large, such as '000000'",
        {"large": large}, "names", metrics=["psnr"], against=truth,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_captions_are_read_back(seed):
    """Both forms of a caption describe the scene that they were made from."""
    shown = urae.mini.scene(seed, pairs=0.7)
    for detailed in (False, True):
        read = scene_of(shown.caption(detailed=detailed))
        assert [t.words for t in read.things] == [t.words for t in shown.things]
        assert (read.relation, read.background) == (shown.relation, shown.background)


def test_a_caption_of_another_world_is_refused():
    with pytest.raises(ValueError, match="describes no scene of the miniature"):
        scene_of("a lighthouse at dusk")


def test_every_metric_says_what_it_is_and_the_page_has_it():
    for metric in METRICS.values():
        assert (metric.needs == "set") == (metric.distance is not None)
        assert not metric.beside or METRICS[metric.beside].open is metric.open
    page = (Path(__file__).parents[2] / "docs/guides/evaluate.md").read_text(encoding="utf-8")
    assert metrics_table() in page, "paste the output of urae.metrics.metrics_table() into the page"


def test_blur_has_no_detail_and_noise_too_much():
    """Metrics without a direction move as they say."""
    clear = [urae.mini.render(urae.mini.scene(i), 128) for i in range(6)]
    noise = np.random.default_rng(0).normal(0, 25, (128, 128, 3))
    noisy = [Image.fromarray((np.asarray(i) + noise).clip(0, 255).astype(np.uint8)) for i in clear]
    blurred = [image.filter(ImageFilter.GaussianBlur(2)) for image in clear]
    names = ["detail", "glcm_entropy", "compression", "spectrum_slope"]
    table = urae.evaluate({"blur": blurred, "clear": clear, "noise": noisy}, "names", metrics=names)
    for name, sign in zip(names, (1, 1, -1, 1), strict=True):
        values = [sign * table.cells[candidate][name].value for candidate in ("blur", "clear", "noise")]
        assert values == sorted(values), name
