"""From candidates to a table: on the miniature's scenes with its recogniser, and with answers that a test decides."""

from __future__ import annotations

import json

import pytest
from dpg_material import Oracle, draw, item, question, scene_items, scenes
from PIL import Image

from urae.dpg.benchmark import dpg_bench, plan_dpg
from urae.dpg.scenes import SceneModel
from urae.errors import BadFile
from urae.judge.journal import read_answers
from urae.statistics.table import UNTRAINED


def test_on_the_miniature_truth_scores_1_and_other_scenes_near_0(tmp_path):
    shown = scenes(12)
    names = list(shown)
    others = dict(zip(names, [*list(shown.values())[1:], shown[names[0]]], strict=True))
    candidates = {
        "truth": draw(tmp_path / "truth", shown),
        "large": draw(tmp_path / "large", dict(list(shown.items())), 256),
        "others": draw(tmp_path / "others", others),
    }
    result = dpg_bench(plan_dpg(candidates, scene_items(12), SceneModel()), journal=tmp_path / "a.jsonl")
    means = {name: rules["fixed"].mean for name, rules in result.scores.items()}
    assert means["truth"] == means["large"] == 1
    assert means["others"] < 0.15
    cell = result.table.cells["truth"]["dpg[recogniser of the miniature]"]
    assert (cell.value, cell.num_prompts) == (100, 12)
    (against,) = [
        c
        for name, c in result.table.comparisons[result.table.columns[0].name].items()
        if name == "truth against others"
    ]
    assert against.real
    assert result.scores["others"]["fixed"].broad["relation"].value < 0.5
    assert "answered by recogniser of the miniature" in result.to_markdown()


def test_the_recogniser_answers_no_other_questions(tmp_path):
    items = [item(name, question(1)) for name in scenes()]
    items = [type(one)(id=one.id, prompt=one.id, questions=one.questions) for one in items]
    plan = plan_dpg({"a": draw(tmp_path / "a", scenes())}, items, SceneModel())
    with pytest.raises(
        ValueError, match=r"is asked 'Is it 1\?': expected a question about one of its scenes"
    ):
        dpg_bench(plan, journal=tmp_path / "a.jsonl")


def folder(path, names, colour="white", size=(4, 4)):
    path.mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", size, colour if isinstance(colour, str) else colour[i]).save(path / f"{name}.png")
    return path


NAMES = [f"p{i}" for i in range(6)]
ITEMS = [item(name, question(1), question(2, 1)) for name in NAMES]


def reply(text: str) -> Oracle:
    return Oracle(answer=lambda picture, question, attempt: text)


def test_a_grid_is_cut_into_its_pictures(tmp_path):
    """Each quarter has its own colour; the model says yes to red alone, so a prompt scores a quarter."""
    whole = Image.new("RGB", (8, 4), "blue")
    whole.paste("red", (4, 2, 8, 4))
    (tmp_path / "a").mkdir()
    for name in NAMES:
        whole.save(tmp_path / "a" / f"{name}.png")
    seen = []

    def answer(picture, question, attempt):
        seen.append((picture.size, picture.getpixel((0, 0))))
        return "yes" if picture.getpixel((0, 0)) == (255, 0, 0) else "no"

    result = dpg_bench(plan_dpg({"a": tmp_path / "a"}, ITEMS, Oracle(answer), grid=2), journal=tmp_path / "j")
    assert set(result.scores["a"]["fixed"].prompts.values()) == {0.25}
    assert {size for size, _ in seen} == {(4, 2)}
    # The published script sees the last picture, which is the red one, in its categories.
    assert result.scores["a"]["official"].broad["entity"].value == 1
    assert result.scores["a"]["fixed"].broad["entity"].value == 0.25
    with pytest.raises(ValueError, match="is 8x4, which does not divide into 3x3 pictures"):
        dpg_bench(plan_dpg({"a": tmp_path / "a"}, ITEMS, Oracle(answer), grid=3), journal=tmp_path / "j")


def test_a_stopped_run_goes_on_and_nothing_is_asked_twice(tmp_path):
    colours = [(10 * i, 0, 0) for i in range(6)]
    candidates = {name: folder(tmp_path / name, NAMES, colours) for name in ("a", "twin")}

    def failing(picture, question, attempt):
        if len(model.asked) == 5:
            raise BadFile("power cut")
        return "yes"

    model = Oracle(failing)
    plan = plan_dpg(candidates, ITEMS, model)
    assert plan.num_open({}) == 12  # The twin's pictures are the same files.
    with pytest.raises(BadFile, match="power cut"):
        dpg_bench(plan, journal=tmp_path / "j")
    kept = read_answers(tmp_path / "j")
    assert len(kept) == 4
    model.answer, model.asked, counted = (lambda *_: "yes"), [], []
    result = dpg_bench(plan, journal=tmp_path / "j", on_answer=lambda: counted.append(1))
    assert len(model.asked) == 12 - 4
    assert plan.num_open(read_answers(tmp_path / "j")) == 0
    again = dpg_bench(plan, journal=tmp_path / "j")
    assert len(model.asked) == 12 - 4
    assert again == result
    # Another model has not answered yet.
    other = Oracle(lambda *_: "no", name="other")
    assert (
        dpg_bench(plan_dpg(candidates, ITEMS, other), journal=tmp_path / "j").scores["a"]["fixed"].mean == 0
    )
    assert len(other.asked) == 12


def test_what_cannot_be_read_is_asked_once_more_then_counted_as_no_and_said(tmp_path):
    folder(tmp_path / "a", NAMES)
    stubborn = Oracle(lambda picture, question, attempt: "perhaps", attempts=2)
    plan = plan_dpg({"a": tmp_path / "a"}, ITEMS, stubborn)
    result = dpg_bench(plan, journal=tmp_path / "stubborn")
    assert len(stubborn.asked) == 4  # Two questions about one and the same white picture, twice.
    assert (result.unread, result.scores["a"]["fixed"].mean) == ({"a": 12}, 0)
    assert "a: 12 answers are neither yes nor no and count as no" in result.to_markdown()
    learns = Oracle(lambda picture, question, attempt: "yes" if attempt else "hm", attempts=2)
    result = dpg_bench(plan_dpg({"a": tmp_path / "a"}, ITEMS, learns), journal=tmp_path / "learns2")
    assert (result.unread, result.scores["a"]["fixed"].mean) == ({"a": 0}, 1)


def test_a_missing_picture_is_an_error_or_leaves_its_prompt_out_for_all(tmp_path):
    items = [*ITEMS, item("extra", question(1))]
    candidates = {
        "a": folder(tmp_path / "a", NAMES),
        "b": folder(tmp_path / "b", [*NAMES, "extra", "stranger"], "black"),
    }
    with pytest.raises(ValueError, match="a has no picture for 1 of 7 prompts, such as 'extra'"):
        plan_dpg(candidates, items, reply("yes"))
    plan = plan_dpg(candidates, items, reply("yes"), allow_missing=True)
    assert plan.unused["b"] == [str(tmp_path / "b" / name) for name in ("extra.png", "stranger.png")]
    result = dpg_bench(plan, journal=tmp_path / "j")
    assert {len(rules["fixed"].prompts) for rules in result.scores.values()} == {6}
    assert "a lacks 1 pictures, such as extra: counted for no candidate" in result.to_markdown()


def test_the_report_has_both_rules_and_the_model_and_untrained_weights_show_no_number(tmp_path):
    candidates = {"a": folder(tmp_path / "a", [*NAMES, "p6"])}
    items = [*ITEMS, item("p6", question(1))]
    result = dpg_bench(plan_dpg(candidates, items, reply("Yes")), journal=tmp_path / "j")
    page = result.to_markdown()
    assert "# DPG-Bench, answered by oracle" in page
    assert "| a | 100.00 | 0.00 |" in page
    assert "fails on p0 and leaves it out" in page
    described = json.loads(result.to_json())
    assert described["scores"]["a"]["official"]["left_out"] == ["p0"]
    strict = dpg_bench(plan_dpg(candidates, items, reply("Yes"), compat="official"), journal=tmp_path / "j")
    cell = strict.table.cells["a"]["dpg[oracle]"]
    assert (cell.value, cell.num_prompts) == (0, 6)
    random = Oracle(lambda *_: "yes", name="random", untrained=True)
    page = dpg_bench(plan_dpg(candidates, items, random), journal=tmp_path / "j").to_markdown()
    assert UNTRAINED in page
    assert "100.0" not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": 0}, "grid is 0"),
        ({"candidates": {}}, "there are no candidates"),
        ({"compat": "official"}, "there are 5 different prompts"),
        ({"items": ITEMS[:5]}, "there are 5 different prompts: expected at least 6"),
    ],
)
def test_wrong_requests(tmp_path, changes, message):
    candidates = {"a": folder(tmp_path / "a", NAMES)}
    settings = {"candidates": candidates, "items": ITEMS, "answerer": reply("yes"), **changes}
    with pytest.raises(ValueError, match=message):
        plan_dpg(settings.pop("candidates"), settings.pop("items"), settings.pop("answerer"), **settings)
