"""The plans that ship: complete, true to the paper where it can be checked, and clear about what is missing."""

from __future__ import annotations

import json

import pytest
from plan_material import write_plan

from urae.adapters import Lora, Minor
from urae.errors import BadFile
from urae.generation.methods import METHODS
from urae.metrics import METRICS
from urae.recipes import RECIPES
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
    judged = name in ("table4", "figure4", "judged_4k")
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
    assert {state.state for state in small if state.part == "pictures"} == {"0 of 60"}
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
        ValueError,
        match="there is no plan 'table9': expected a YAML file or one of figure4, judged_4k, table1",
    ):
        read_plan("table9")
    with pytest.raises(ValueError, match=r"there is no row of table1 'Sana' \(did you mean Sana-1.6B\?\)"):
        read_plan("table1").only(["Sana"], [])
    (tmp_path / "p.yaml").write_text("title: nothing more")
    with pytest.raises(BadFile, match="is not a plan of a table"):
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


@pytest.mark.parametrize("name", PLANS)
def test_the_miniature_trains_as_its_recipes_do_and_quick_hardly_at_all(name, tmp_path):
    """The default says something: the recipe's own steps and batch on its own data. Quick is for the plumbing."""
    plan, quick = (read_plan(name, miniature=True, quick=quick) for quick in (False, True))
    for adapter, made in plan.adapters.items():
        own = RECIPES[plan.recipes[made.recipe]]()
        recipe, least = recipe_of(plan, adapter, tmp_path), recipe_of(quick, adapter, tmp_path)
        assert (recipe.steps, recipe.batch_size) == (own.steps, own.batch_size)
        assert recipe.data.rpartition(":")[2] == own.data.rpartition(":")[2]
        assert (least.steps, least.batch_size, least.data.rpartition(":")[2]) == (2, 1, "8")
        assert (least.sample_every, least.num_validation) == (0, 0)
    assert plan.steps == 20
    assert all(len(prompts_of(plan, prompts)) >= 30 for prompts in plan.sets)
    assert all(len(prompts_of(quick, prompts)) == 6 for prompts in plan.sets)
    assert "these numbers say nothing" in " ".join(quick.differs)
    assert "say nothing" not in " ".join(plan.differs)


@pytest.mark.parametrize("name", PLANS)
def test_a_table_is_titled_by_its_own_size(name):
    large, small = read_plan(name), read_plan(name, miniature=True)
    assert large.heading.endswith(f"{large.size} px")
    assert small.heading.endswith(f"{small.size} px, on the miniature")
    assert str(large.size) not in small.heading
    assert not any(size in small.heading for size in ("2K", "4K", "2048", "4096"))


def test_quick_is_the_miniatures():
    with pytest.raises(ValueError, match="quick is for the miniature alone"):
        read_plan("table1", quick=True)


def test_the_papers_ranks_are_the_papers():
    """As printed in its Tables 3 and 4, the second with three kinds of rows."""
    three, four = read_plan("table3"), read_plan("table4", miniature=True)
    ranks = {row.name: list(row.paper_ranks.values()) for row in three.rows}
    assert ranks["Minor-4K"] == [1] * 5
    assert ranks["PixArt-Sigma-XL"] == [5, 5, 2, 2, 2]
    assert ranks["Major-4K"] == [4, 3, 5, 5, 5]
    # The miniature leaves rows out, and the paper's ranks are among all of them.
    ranks = {row.name: list(row.paper_ranks.values()) for row in four.rows}
    assert ranks["FLUX-1.dev*"] == [5, 4, 4]
    assert ranks["FLUX1.1 [Pro] Ultra"] == [1, 2, 2]
    assert ranks["SDEdit"] == [2, 2, 2]
    assert ranks["I-Max w/ URAE"] == [1, 1, 1]
    assert not any(row.paper_ranks for row in read_plan("table1").rows)


def test_what_is_said_of_a_judge_is_read_as_it_is_meant():
    given = {"schema": "false", "retries": "0", "timeout": "9.5", "option.temperature": "null"}
    plan = read_plan("table4", {f"judge.{name}": value for name, value in given.items()})
    assert dict(plan.judge) == {"schema": False, "retries": 0, "timeout": 9.5, "option.temperature": None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema", "maybe", "judge.schema is 'maybe': expected true or false"),
        ("crop", "0", "judge.crop is 0: expected 1 or more"),
        ("retries", "many", "judge.retries is 'many': expected a whole number"),
        ("words", "w.yaml", "there is no name in judge 'words'"),
    ],
)
def test_what_cannot_be_said_of_a_judge(name, value, message):
    with pytest.raises((ValueError, BadFile), match=message):
        read_plan("table4", {f"judge.{name}": value})


def test_published_prompt_files_are_read_as_they_are(tmp_path):
    """HPDv2: a folder of lists by style. COCO: captions of images, several of each."""
    hpd = tmp_path / "hpd"
    hpd.mkdir()
    for style, texts in {"anime": ["a cat ", "a dog"], "concept-art": ["a tower"]}.items():
        (hpd / f"{style}.json").write_text(json.dumps(texts))
    coco = tmp_path / "captions_val2014.json"
    captions = [
        {"image_id": image, "id": 7, "caption": text} for image, text in ((9, "A man."), (5, "B"), (9, "C"))
    ]
    coco.write_text(json.dumps({"info": {}, "images": [], "annotations": captions}))
    plan = read_plan("table1", {"prompts.hpd": str(hpd)})
    assert prompts_of(plan, "hpd") == {
        "anime-00000": "a cat",
        "anime-00001": "a dog",
        "concept-art-00000": "a tower",
    }
    assert prompts_of(read_plan("table1", {"prompts.hpd": str(hpd / "anime.json")}), "hpd").keys() == {
        *("anime-00000", "anime-00001")
    }
    plan = read_plan("table3", {"prompts.coco": str(coco)})
    assert prompts_of(plan, "coco") == {"9-1": "A man.", "5-1": "B", "9-2": "C"}
    assert not any(need.startswith("prompts") for need in needs(plan, tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a cat", 3], "prompt p-00001 of .* is 3: expected text"),
        (["a cat", " "], "prompt p-00001 of .* is empty"),
        ({"images": []}, "expected a list of texts, as HPDv2 has, or COCO's captions"),
        ({"annotations": [{"caption": "x"}]}, "annotation 0 of .* has no 'image_id'"),
        ([], "holds no prompts"),
    ],
)
def test_what_is_no_published_prompt_file(content, message, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(BadFile, match=message):
        prompts_of(read_plan("table3", {"prompts.coco": str(tmp_path / "p.json")}), "coco")
