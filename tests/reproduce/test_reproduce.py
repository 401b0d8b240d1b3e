"""A table made on the miniature, made again, and columns that need no model: what is there is never made twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from judge_server import completion, failure, oracle, running
from plan_material import IDS, write_plan

from tiny_stock import save_pixart
from urae.cli.verbs import verb
from urae.generation import read_png_metadata
from urae.reproduce import MissingInputs, Number, Reproduction, read_plan, reproduce, survey
from urae.study.ballots import BallotBox
from urae.study.build import build_study

QUICK = {"steps": "1", "changes.steps": "1"}
ROW, TRUTH = "FLUX-1.dev* w/ URAE", "FLUX1.1 [Pro] Ultra"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One row of Table 1 on the miniature, with its reference: an adapter, six pictures, four columns."""
    out = tmp_path_factory.mktemp("table1")
    plan = read_plan("table1", QUICK, miniature=True, quick=True).only([ROW], [])
    return plan, out, reproduce(plan, out)


def pictures(out):
    return sorted(path for path in (out / "pictures").rglob("*.png") if "truth" not in path.parts[-3])


def test_from_training_to_numbers_beside_the_papers(made):
    plan, out, result = made
    (adapter,) = (out / "adapters").glob("*/adapter.safetensors")
    files = pictures(out)
    assert [file.stem for file in files] == [f"s{i}" for i in range(6)]
    told = read_png_metadata(files[0])
    assert (told.size, told.steps, told.method, told.seed) == ((256, 256), 1, "direct", 0)
    assert told.adapter_hash
    assert told.policy
    assert adapter.parent.name.startswith("urae_2k-")
    assert result.numbers[TRUTH, "DPG"].value == 100
    assert (TRUTH, "patch FID") not in result.numbers  # It is the reference itself.
    assert result.numbers[ROW, "patch FID"].value > 0
    page = (out / "table1.md").read_text()
    assert re.search(r"\| FLUX-1\.dev\\\* w/ URAE \| \d+\.\d+ .*\(29\.44\) \|", page)
    assert "equality with them is never claimed" in page
    assert "says nothing about FLUX" in page
    assert "mini\\_patch\\_kid" in page  # Few pictures: the biased distance does not stand alone.
    row = json.loads((out / "table1.json").read_text())["rows"][ROW]
    assert row["DPG"]["paper"] == 83.83
    assert row["DPG"]["here"]["value"] == result.numbers[ROW, "DPG"].value


def test_what_is_there_is_not_made_again(made):
    plan, out, result = made
    before = {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".png", ".safetensors")
    }
    assert {state.state for state in survey(plan, out) if state.part == "pictures"} == {"6 of 6"}
    again = reproduce(plan, out)
    assert again.to_markdown() == result.to_markdown()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_lost_picture_comes_back_to_the_bit(made):
    plan, out, result = made
    lost, *others = pictures(out)
    content, times = lost.read_bytes(), [file.stat().st_mtime_ns for file in others]
    lost.unlink()
    assert "5 of 6" in {state.state for state in survey(plan, out)}
    assert reproduce(plan, out).numbers == result.numbers
    assert lost.read_bytes() == content
    assert [file.stat().st_mtime_ns for file in others] == times


def test_another_setting_is_another_folder(made):
    plan, out, _ = made
    other = read_plan("table1", {**QUICK, "seed": "1"}, miniature=True, quick=True).only([ROW], [])
    assert {state.state for state in survey(other, out) if state.name.startswith(ROW)} == {"0 of 6"}
    retrained = read_plan("table1", {**QUICK, "changes.steps": "2"}, miniature=True, quick=True).only(
        [ROW], []
    )
    assert {state.state for state in survey(retrained, out) if state.part == "adapter"} == {"to be trained"}


def judged(root, kind, **more):
    against = ", against: Bright" if kind == "pair" else ""
    columns = [
        f"name: {aspect}, kind: {kind}, of: {aspect}, prompts: coco{against}{paper}"
        for aspect, paper in (("overall", ", paper: Overall"), ("alignment", ""))
    ]
    return str(write_plan(root, *columns)), {"judge.model": "toy", **more}


def test_a_judges_scores(tmp_path):
    with running(oracle) as server:
        file, inputs = judged(tmp_path, "score", **{"judge.base_url": server.url})
        costs = []
        plan = read_plan(file, inputs)
        result = reproduce(
            plan, tmp_path / "out", on_cost=lambda cost, judge: costs.append((cost.num_requests, judge))
        )
        again = reproduce(plan, tmp_path / "out", on_cost=lambda cost, judge: costs.append(None))
    assert costs == [(24, "toy")]
    assert len(server.asked) == 24
    assert again.numbers == result.numbers
    assert result.numbers["Dark", "overall"].value == pytest.approx(60 / 2.55, abs=0.5)
    assert result.numbers["Bright", "alignment"].value == pytest.approx(180 / 2.55, abs=0.5)
    page = result.to_markdown()
    assert "(87.09)" in page
    assert "The judge is toy" in page


def test_a_judges_preferences_are_of_the_row_that_is_compared_with(tmp_path):
    with running(oracle) as server:
        file, inputs = judged(tmp_path, "pair", **{"judge.base_url": server.url})
        result = reproduce(read_plan(file, inputs), tmp_path / "out")
    assert result.numbers["Dark", "overall"] == Number(
        value=100, low=pytest.approx(60.97, abs=0.01), high=100, digits=1
    )
    assert ("Bright", "overall") not in result.numbers
    assert "Bright is preferred to the row" in result.to_markdown()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("score", "1 scores could not be read; their prompts are left out"),
        ("pair", "1 pairs have an answer that could not be read, and are left out"),
    ],
)
def test_answers_that_could_not_be_read_are_told(tmp_path, kind, told):
    """Of one prompt in one aspect, where the darker picture comes first."""

    def behaviour(asked):
        refused = "a wall, p3" in asked.text and "Beauty" in asked.text and asked.brightness() < 100
        return completion("I would rather not.") if refused else oracle(asked)

    with running(behaviour) as server:
        file, inputs = judged(tmp_path, kind, **{"judge.base_url": server.url})
        result = reproduce(read_plan(file, inputs), tmp_path / "out")
    assert told in result.to_markdown()
    # Five prompts are left, too few for a number.
    assert {column for row, column in result.numbers if row == "Dark"} == {"overall"}


def test_the_judge_is_asked_in_given_words_with_given_options(tmp_path):
    words = tmp_path / "words.yaml"
    texts = "  overall: 'Beauty of {prompt}?'\n  alignment: 'Truth of {prompt}?'\n"
    words.write_text(f"answers: brackets\nscore:\n{texts}")
    more = {"judge.instructions": str(words), "judge.option.temperature": "0.7", "judge.option.seed": "null"}
    with running(lambda asked: completion("50")) as server:
        file, inputs = judged(tmp_path, "score", **{"judge.base_url": server.url, **more})
        result = reproduce(read_plan(file, inputs), tmp_path / "out")
    assert {asked.text.partition(" of ")[0] for asked in server.asked} == {"Beauty", "Truth"}
    assert {asked.body["temperature"] for asked in server.asked} == {0.7}
    assert not any({"seed", "response_format"} & asked.body.keys() for asked in server.asked)
    assert f"asked in the words of {words}" in result.to_markdown().replace("\\_", "_")


def test_words_that_lack_an_aspect_are_refused_before_anything_is_asked(tmp_path):
    words = tmp_path / "words.yaml"
    words.write_text("answers: json\nscore: {overall: 'Rate {prompt}'}")
    with running(oracle) as server:
        file, inputs = judged(
            tmp_path, "score", **{"judge.base_url": server.url, "judge.instructions": str(words)}
        )
        with pytest.raises(ValueError, match="no text for score / alignment: write one"):
            reproduce(read_plan(file, inputs), tmp_path / "out")
        assert not server.asked
    inputs["judge.instructions"] = "nowhere.yaml"
    with pytest.raises(MissingInputs, match="judge.instructions .now nowhere.yaml, which is not there"):
        reproduce(read_plan(file, inputs), tmp_path / "out")


def test_ranks_stand_beside_numbers_with_what_the_intervals_leave_open(tmp_path):
    plan = replace(read_plan("table4", miniature=True), columns=read_plan("table4").columns[:1])
    kinds = {"SDEdit": 60.0, "SDEdit w/ URAE": 70.0, "FLUX1.1 [Pro] Ultra": 90.0, "FLUX-1.dev*": 80.0}
    kinds["FLUX-1.dev* w/ URAE"] = 81.0
    numbers = {
        (name, "overall"): Number(value=value, low=value - 2, high=value + 2, digits=1)
        for name, value in kinds.items()
    }
    page = Reproduction(plan=plan, numbers=numbers, notes=[], counts={}).to_markdown().replace("\\", "")
    rank = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[2].rstrip(" |")
        for line in page.splitlines()
        if " | " in line
    }
    assert rank["SDEdit"] == "2 (2)"
    assert rank["SDEdit w/ URAE"] == "1 (1)"
    assert rank["FLUX1.1 [Pro] Ultra"] == "1 (1)"
    assert rank["FLUX-1.dev*"] == "3 [2, 3] (5)"
    assert rank["FLUX-1.dev* w/ URAE"] == "2 [2, 3] (2)"
    assert rank["I-Max w/ URAE"] == "– (1)"
    found = json.loads(Reproduction(plan=plan, numbers=numbers, notes=[], counts={}).to_json())
    assert found["rows"]["FLUX-1.dev*"]["overall"]["rank"] == {"here": 3, "best": 2, "worst": 3, "paper": 5}


@pytest.mark.parametrize("place", ["coco", "images", "."])
def test_pictures_lie_in_a_folder_of_their_set_in_a_collection_or_alone(place, tmp_path):
    file = write_plan(tmp_path, "name: detail, kind: metric, of: detail, prompts: coco")
    for name in ("dark", "bright"):
        (tmp_path / name / "coco").rename(tmp_path / "moved")
        for picture in (tmp_path / "moved").iterdir():
            (tmp_path / name / place).mkdir(exist_ok=True)
            picture.rename(tmp_path / name / place / picture.name)
        (tmp_path / "moved").rmdir()
    assert {state.state for state in survey(read_plan(str(file)), tmp_path) if state.part == "pictures"} == {
        "6 of 6"
    }


def test_the_command_shows_the_cost_and_takes_no_for_an_answer(tmp_path):
    with running(lambda asked: failure(500)) as server:
        file, inputs = judged(tmp_path, "score", **{"judge.base_url": server.url})
        given = [f"{key}={value}" for key, value in inputs.items()]
        command = [file, *given, "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(verb("reproduce"), command, input="n\n")
        assert result.exit_code == 1
        assert "judge: toy, 24 questions" in result.output
        assert not server.asked


def test_the_command_lists_cells_and_refuses_what_is_no_input(tmp_path):
    file, _ = judged(tmp_path, "score")
    result = CliRunner().invoke(verb("reproduce"), [file, "--dry-run"], catch_exceptions=False)
    assert "pictures: Dark, coco: 6 of 6" in result.output
    assert "column: overall: needs judge.model\n" in result.output
    assert "missing: judge.model (the judge's name at its server, judge.base_url)\n" in result.output
    with pytest.raises(ValueError, match="input is 'judge.model': expected name=VALUE, such as"):
        CliRunner().invoke(verb("reproduce"), [file, "judge.model"], catch_exceptions=False)


def test_a_folder_without_a_picture_is_named_before_anything_is_asked(tmp_path):
    file, inputs = judged(tmp_path, "score")
    (tmp_path / "dark" / "coco" / f"{IDS[2]}.png").unlink()
    with pytest.raises(Exception, match=r"folders.dark: 1 pictures in coco/, such as p2.png"):
        reproduce(read_plan(file, inputs), tmp_path / "out")


def test_metrics_on_given_pictures_take_no_others_along(tmp_path):
    """The folder may hold more than the prompts that were drawn."""
    file = write_plan(tmp_path, "name: detail, kind: metric, of: detail, prompts: coco")
    (tmp_path / "dark" / "coco" / "stranger.png").write_bytes(
        (tmp_path / "dark" / "coco" / "p0.png").read_bytes()
    )
    result = reproduce(read_plan(str(file)), tmp_path / "out")
    assert result.numbers["Dark", "detail"].value > 0
    assert "6 prompts of coco" in result.to_markdown()


def test_peoples_votes(tmp_path):
    """Six raters all choose the bright picture; the study's candidates are named as the rows."""
    file = write_plan(tmp_path, "name: overall, kind: study, of: overall, paper: Overall")
    plan = read_plan(str(file))
    assert "User study: needs people" in reproduce(plan, tmp_path / "out").to_markdown()
    study = build_study(
        {"Dark": tmp_path / "dark" / "coco", "Bright": tmp_path / "bright" / "coco"},
        tmp_path / "study",
        prompts={key: f"a wall, {key}" for key in IDS},
        num_raters=6,
    )
    with BallotBox(study) as box:
        for rater in box.raters():
            box.join(rater)
            for position in range(1, len(IDS) + 1):
                item = study.item[box.ballot(rater, position).item]
                bright = next(name for name, candidate in item.pictures.items() if candidate == "Bright")
                box.vote(rater, position, "overall", bright)
    result = reproduce(read_plan(str(file), {"study.folder": str(tmp_path / "study")}), tmp_path / "out")
    assert {row: result.numbers[row, "overall"].value for row in ("Dark", "Bright")} == {
        "Dark": 0,
        "Bright": 100,
    }
    page = result.to_markdown()
    assert "36 votes of 6 raters" in page
    assert "(87.09)" in page


def test_a_row_of_another_model_runs_by_its_own_pipeline(tmp_path):
    file = write_plan(tmp_path, "name: detail, kind: metric, of: detail, prompts: coco")
    text = file.read_text().replace("models: {}", f"models: {{pixart: {save_pixart(tmp_path / 'pixart')}}}")
    file.write_text(text.replace("\ncolumns:", "\n  - {name: PixArt, model: pixart}\ncolumns:"))
    plan = read_plan(str(file), {"steps": "1"})
    result = reproduce(plan, tmp_path / "out")
    files = pictures(tmp_path / "out")
    assert [path.stem for path in files] == IDS
    told = read_png_metadata(files[0])
    assert (told.method, told.size, told.steps, told.model) == ("PixArtSigmaPipeline", (96, 96), 1, "pixart")
    assert result.numbers["PixArt", "detail"].value > 0


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table1", "table2", "table3"])
def test_a_whole_table_on_the_miniature(table, tmp_path):
    plan = read_plan(table, QUICK, miniature=True, quick=True)
    result = reproduce(plan, tmp_path)
    assert {row for row, _ in result.numbers} == {row.name for row in plan.rows}
    assert {column for _, column in result.numbers} >= {column.name for column in plan.columns}
