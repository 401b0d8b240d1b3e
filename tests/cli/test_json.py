"""What a script reads with --json, and what a terminal shows of the same."""

import io
import json
import re
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from provenance_made import MADE
from urae import planning, recipes
from urae.adapters import file_named
from urae.cli.main import app
from urae.cli.printed import say, say_report
from urae.cli.verbs import Commands
from urae.provenance import save_png
from urae.training import from_dict


def told(*arguments):
    """The document on standard output, and what stands on standard error."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_a_document_stands_alone_on_standard_output():
    commands = Commands()

    @commands.command()
    def command(fails: bool = False) -> dict[str, str]:
        print("by a library")
        say("for people")
        if fails:
            raise ValueError("it cannot")
        return {"name": "ü"}

    result = CliRunner().invoke(commands, ["--json"])
    assert result.stdout == '{\n  "name": "ü"\n}\n'
    assert result.stderr == "by a library\nfor people\n"
    assert CliRunner().invoke(commands, []).stdout == "by a library\nfor people\n"
    assert CliRunner().invoke(commands, ["--json", "--fails"]).stdout == ""


def test_a_command_that_returns_nothing_takes_no_json():
    commands = Commands()

    @commands.command()
    def command() -> None:
        say("done")

    assert CliRunner().invoke(commands, ["--json"]).exit_code == 2


def test_a_recipe_is_the_recipe():
    document, _ = told("recipe", "show", "flux_2k", "steps=7")
    made = from_dict(document)
    assert (made.steps, made.model) == (7, recipes.flux_2k().model)
    assert told("recipe", "list")[0].keys() == recipes.RECIPES.keys()


def test_a_plan_has_the_numbers_that_are_printed():
    document, said = told("plan", "mini_2x", "--gpu", "H200", "--price", 3.5, "--images", 2)
    made = planning.plan(recipes.mini_2x(), "H200", price=3.5, num_images=2)
    assert document["fits"] is True
    assert document["hours"] == made.hours
    assert document["best"]["hours"] == made.best_hours
    assert document["cost"] == made.cost
    assert max(document["asked"]["bytes"].values()) == made.asked.num_bytes
    assert planning.in_short(made) in said


def test_a_shipped_adapter_is_shown_by_its_name():
    document, said = told("adapter", "show", "mini:2x")
    assert document["bytes"] == file_named("mini:2x").stat().st_size
    assert set(document["ranks"].values()) == {32}
    assert "size on disk" in said


def test_a_picture_tells_its_policy_in_words_and_on_demand_in_full(tmp_path):
    picture = Image.new("RGB", MADE.size)
    picture.info.update(MADE.to_info())
    file = save_png(picture, tmp_path / "a.png")
    document, said = told("show", file)
    policy = MADE.policy.to_dict()
    assert (document["prompt"], document["seed"], document["policy"]) == (MADE.prompt, MADE.seed, policy)
    assert str(MADE.policy) in " ".join(re.sub("[│\n]", " ", said).split())
    assert "rope_scale" not in said
    assert "rope_scale" in told("show", file, "-v")[1]


def test_a_data_set_is_counted(tmp_path):
    for name, size in {"a": (640, 480), "b": (640, 480), "c": (64, 64)}.items():
        Image.new("RGB", size, f"#{name * 3}").save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a caption")
    document, _ = told("data", "inspect", tmp_path, "--out", tmp_path / "page.html")
    assert (document["images"], document["sizes"]) == (3, {"640x480": 2, "64x64": 1})
    assert sum(document["captions"].values()) == 3
    assert document["page"] == str(tmp_path / "page.html")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_report_is_a_table_in_a_terminal_and_markdown_elsewhere(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", shown := stream())
    report = "| | patch\\_fid ↓ |\n| --- | ---: |\n| ours\\[1\\] | **0.5** |\n\nMeans over 6 prompts."
    say_report(report)
    if stream is Terminal:
        assert not set("\\*|") & set(shown.getvalue())
        words = re.sub(r"\x1b\[[\d;]*m", "", shown.getvalue()).split()
        assert {"patch_fid", "ours[1]", "0.5"} <= set(words)
    else:
        assert shown.getvalue() == f"{report}\n"
