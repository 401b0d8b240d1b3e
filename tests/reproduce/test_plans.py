"""The plans that ship: complete, true to the paper where it can be checked, and clear about what is missing."""

from __future__ import annotations

import pytest
from plan_material import write_plan

from urae.adapters import Lora, Minor
from urae.errors import BadFile
from urae.generation.methods import METHODS
from urae.metrics import METRICS
from urae.reproduce import PLANS, Made, MissingInputs, read_plan, reproduce, survey
from urae.reproduce.missing import needs
from urae.reproduce.prompts import prompts_of
from urae.reproduce.training import recipe_of


def paper(plan, row: str, column: str) -> float:
    return next(one for one in plan.rows if one.name == row).paper[column]


@pytest.mark.parametrize("miniature", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_can_be_carried_out(name, miniature, tmp_path):
    plan = read_plan(name, miniature=miniature)
    assert {column.of for column in plan.columns if column.kind == "metric"} <= METRICS.keys()
    assert {row.method for row in plan.rows} <= METHODS.keys()
    assert {row.adapter for row in plan.rows} - {""} <= plan.adapters.keys()
    recipes = [recipe_of(plan, adapter, tmp_path) for adapter in plan.adapters]
    assert len({recipe.out for recipe in recipes}) == len(recipes)
    assert {recipe.model for recipe in recipes} == {"mini" if miniature else "black-forest-labs/FLUX.1-dev"}
    for row in plan.rows:
        assert set(row.paper) <= {"FID", "LPIPS", "MANIQA", "QualiCLIP", "HPSv2.1", "PickScore", "DPG"} | {
            *("Overall", "Alignment", "Aesthetics")
        }


@pytest.mark.parametrize("name", PLANS)
def test_the_miniature_needs_nothing_but_a_judge(name, tmp_path):
    judged = name in ("table4", "figure4")
    found = needs(read_plan(name, miniature=True), tmp_path)
    assert found == (["judge.model (the judge's name at its server, judge.base_url)"] if judged else [])


def test_the_papers_numbers_are_the_papers():
    """Against what its text says of them: gains, shares of all votes, ranks."""
    one, two, three, four = (read_plan(f"table{i}") for i in (1, 2, 3, 4))
    assert paper(one, "FLUX-1.dev* w/ URAE", "DPG") - paper(one, "FLUX-1.dev", "DPG") == pytest.approx(3.19)
    assert paper(one, "I-Max w/ URAE", "DPG") - paper(one, "I-Max", "DPG") == pytest.approx(3.96)
    assert set(one.rows[0].paper) == {"MANIQA", "QualiCLIP", "HPSv2.1", "PickScore", "DPG"}
    shared = ("FID", "LPIPS", "MANIQA", "QualiCLIP", "HPSv2.1", "PickScore")
    ours = next(row for row in one.rows if row.name == "FLUX-1.dev* w/ URAE")
    assert {name: ours.paper[name] for name in shared} == two.rows[1].paper
    for aspect in ("Overall", "Alignment", "Aesthetics"):
        assert sum(row.paper[aspect] for row in three.rows) == pytest.approx(100, abs=0.02)
        assert all(
            row.paper[aspect] * 3.4 == pytest.approx(round(row.paper[aspect] * 3.4), abs=0.02)
            for row in three.rows
        )
    singles = [row for row in four.rows if not row.name.startswith(("SDEdit", "I-Max"))]
    assert max(singles, key=lambda row: row.paper["Overall"]).name == "FLUX1.1 [Pro] Ultra"
    assert max(singles, key=lambda row: row.paper["Alignment"]).name == "FLUX-1.dev* w/ URAE"


def test_table_2_is_the_ablation(tmp_path):
    plan = read_plan("table2", {"data.real": "photographs"})
    recipes = {name: recipe_of(plan, name, tmp_path) for name in plan.adapters}
    assert len(recipes) == 8
    for name, recipe in recipes.items():
        assert type(recipe.adapter) is (Minor if name.startswith("minor") else Lora)
        assert recipe.adapter.rank == 16
        assert recipe.data == ("photographs" if "real" in name else "data/2k")
        assert recipe.guidance == (3.5 if name.endswith("cfg") else 1)
        assert (recipe.size, recipe.steps, recipe.batch_size, recipe.policy) == (2048, 2000, 8, "native")


def test_an_adapter_starts_from_another(tmp_path):
    plan = read_plan("table3")
    start, minor = recipe_of(plan, "urae_2k", tmp_path), recipe_of(plan, "minor_4k", tmp_path)
    assert minor.start == f"{start.out}/adapter.safetensors"
    assert (start.size, minor.size) == (2048, 4096)
    mine = read_plan("table3", {"adapters.urae_2k": "2k.safetensors"})
    assert recipe_of(mine, "minor_4k", tmp_path).start == "2k.safetensors"
    assert recipe_of(mine, "minor_4k", tmp_path).out != minor.out


def test_what_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(
        MissingInputs, match="table2 needs prompts.hpd .*; folders.ultra .*; models.flux .*"
    ) as error:
        reproduce(read_plan("table2"), tmp_path)
    for part in (
        "hf download black-forest-labs/FLUX.1-dev",
        "data.real",
        "weights.fid (safetensors file of the FID",
    ):
        assert part in str(error.value)
    assert not list(tmp_path.iterdir())
    (tmp_path / "flux").mkdir()
    given = {"models.flux": str(tmp_path / "flux"), "weights.fid": str(tmp_path / "flux")}
    left = needs(read_plan("table2", given).only(["Major, Syn w/o CFG"], ["FID"]), tmp_path)
    assert [need.partition(" ")[0] for need in left] == ["prompts.hpd", "folders.ultra", "data.synthetic"]


def test_a_survey_lists_every_cell_with_its_state(tmp_path):
    states = survey(read_plan("table1"), tmp_path)
    assert len(states) == 1 + 12 * 2 + 7
    assert all(state.state.startswith("needs") for state in states if state.part == "pictures")
    named = {state.name: state.state for state in states if state.part == "pictures"}
    assert named["FLUX-1.dev* w/ URAE, dpg"] == "needs prompts.dpg, models.flux, data.synthetic"
    small = survey(read_plan("table1", miniature=True), tmp_path)
    assert {state.state for state in small if state.part == "pictures"} == {"0 of 6"}
    assert [state.state for state in small if state.part == "adapter"] == ["to be trained"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.flux": "x"}, r"there is no section 'model' \(did you mean models\?\)"),
        ({"models.flx": "x"}, r"there is no name in models 'flx' \(did you mean flux\?\)"),
        ({"weights.fidd": "x"}, r"there is no name in weights 'fidd' \(did you mean fid\?\)"),
        ({"sise": "1"}, r"there is no key 'sise' \(did you mean size\?\)"),
        ({"size": "big"}, "size is 'big': expected a whole number"),
        ({"dpg.url": "x"}, "there is no name in dpg 'url': expected model, server"),
    ],
)
def test_wrong_changes(changes, message):
    with pytest.raises(ValueError, match=message):
        read_plan("table1", changes)


def test_wrong_names(tmp_path):
    with pytest.raises(
        ValueError, match="there is no plan 'table9': expected a YAML file or one of figure4, table1"
    ):
        read_plan("table9")
    with pytest.raises(ValueError, match=r"there is no row of table1 'Sana' \(did you mean Sana-1.6B\?\)"):
        read_plan("table1").only(["Sana"], [])
    (tmp_path / "p.yaml").write_text("title: nothing more")
    with pytest.raises(BadFile, match="is no plan of a table"):
        read_plan(str(tmp_path / "p.yaml"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "name: x, kind: metric, of: patch_fidd, prompts: coco",
            "no metric 'patch_fidd' .did you mean patch_fid",
        ),
        (
            "name: x, kind: votes, of: overall, prompts: coco",
            "no kind of column 'votes': expected metric, dpg",
        ),
    ],
)
def test_a_column_of_ones_own_is_known_or_refused(tmp_path, column, message):
    with pytest.raises(ValueError, match=message):
        read_plan(str(write_plan(tmp_path, column)))


def test_a_row_that_a_column_compares_with_stays():
    plan = read_plan("table1").only(["SDEdit"], ["FID", "DPG"])
    assert [row.name for row in plan.rows] == ["FLUX1.1 [Pro] Ultra", "SDEdit"]
    assert [row.name for row in read_plan("table1").only(["SDEdit"], ["DPG"]).rows] == ["SDEdit"]


def test_some_prompts_of_a_set_are_drawn_by_the_seed(tmp_path):
    file = str(write_plan(tmp_path, "name: overall, kind: score, of: overall, prompts: coco"))
    every = prompts_of(read_plan(file), "coco")
    some = [list(prompts_of(read_plan(file, {"num_prompts": "3", "seed": seed}), "coco")) for seed in "0011"]
    assert some[0] == some[1] != some[2] == some[3]
    assert all(keys == [key for key in every if key in keys] and len(keys) == 3 for keys in some)
    with pytest.raises(ValueError, match="num_prompts is 7, and a set has 6"):
        prompts_of(read_plan(file, {"num_prompts": "7"}), "coco")


def test_made_adapters_are_read_as_such():
    assert isinstance(read_plan("table1").adapters["urae_2k"], Made)
    assert read_plan("table1", {"adapters.urae_2k": "a.safetensors"}).adapters["urae_2k"] == "a.safetensors"
