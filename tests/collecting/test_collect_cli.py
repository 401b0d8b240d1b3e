"""`urae data collect` and `urae data caption`: the cost before anything is spent, and what came of it."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from collect_server import KEY, running
from PIL import Image, ImageChops

from tiny import write_images
from urae.cli.data.collect import make_teacher
from urae.cli.data.local import Local
from urae.cli.named import settings_from_yaml
from urae.cli.verbs import verb
from urae.data import read_manifest
from urae.errors import UraeError


def invoke(*arguments, answer: str | None = None):
    return CliRunner().invoke(
        verb("data"), [str(argument) for argument in arguments], input=answer, catch_exceptions=False
    )


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("BFL_API_KEY", KEY)
    with running() as state:
        yield state


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na forbidden thing\na dog\n")
    return tmp_path / "prompts.txt"


def test_the_cost_comes_first_and_a_dry_run_spends_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    result = invoke("collect", tmp_path / "out", "--dry-run")
    assert "images: 331, arrived before: 0" in result.output
    assert "to order: 331" in result.output
    assert "cost, expected: 19.86 (0.06 each), spent before: 0.00" in result.output
    assert re.search(r"time, estimated: \d+ minutes, if each takes 10 s, \d+ at a time", result.output)
    assert not (tmp_path / "out").exists()


def test_where_nothing_arrived_the_command_fails(server, tmp_path):
    (tmp_path / "p.txt").write_text("a forbidden thing\n")
    settings = ["--set", f"base_url={server.url}", "--set", "poll_every=0.01"]
    with pytest.raises(UraeError, match="none of 1 images arrived"):
        invoke("collect", tmp_path / "out", "--prompts", tmp_path / "p.txt", *settings, "--yes")


def test_it_asks_before_it_spends_and_takes_no_for_an_answer(server, prompts, tmp_path):
    result = invoke(
        "collect", tmp_path / "out", "--prompts", prompts, "--set", f"base_url={server.url}", answer="n\n"
    )
    assert result.exit_code == 1
    assert result.output.index("cost, expected: 0.18") < result.output.index("Order them?")
    assert not server.tasks


def test_from_prompts_to_a_manifest_and_a_second_call_is_free(server, prompts, tmp_path):
    out = tmp_path / "out"
    command = ["collect", out, "--prompts", prompts, "--set", f"base_url={server.url}", "--set", "raw=true"]
    command += ["--set", "poll_every=0.01", "--shape", "16:9=2", "--shape", "1:1", "--licence", "CC0-1.0"]
    result = invoke(*command, "--yes")
    assert "refused by the teacher: 1\n  'a forbidden thing': Request Moderated" in result.output
    assert "spent: 0.12" in result.output
    assert f"wrote {out / 'manifest.jsonl'}: 2 images" in result.output
    assert {task.body["raw"] for task in server.tasks.values()} == {True}
    assert {task.body["aspect_ratio"] for task in server.tasks.values()} <= {"16:9", "1:1"}
    assert {record.licence for record in read_manifest(out / "manifest.jsonl")} == {"CC0-1.0"}
    again = invoke(*command)
    assert "arrived before: 2, refused before: 1, ordered and to be fetched: 0, to order: 0" in again.output
    assert len(server.tasks) == 3


def test_a_limit_is_told(server, prompts, tmp_path):
    settings = ["--set", f"base_url={server.url}", "--set", "poll_every=0.01", "--num", 2, "--copies", 2]
    result = invoke("collect", tmp_path / "out", "--prompts", prompts, *settings, "--limit", 0.07, "--yes")
    assert "not ordered, as the limit is reached: 3" in result.output


@pytest.mark.parametrize(
    ("name", "settings", "shapes", "message"),
    [
        (
            "midjourney",
            [],
            [],
            "teacher is 'midjourney': expected one of flux-pro-1.1-ultra, flux-2-max, .*, openai, local",
        ),
        ("local", ["raw=true"], [], "raw is not a setting of local: valid ones are model, base"),
        ("local", ["steps"], [], "setting is 'steps': expected name=value"),
        ("openai", [], [], "needs the name of its model"),
        ("local", [], ["64x64=x"], "the weight of the shape '64x64=x' is not a number"),
        ("local", [], ["65x64"], "65"),
        ("local", ["method=magic"], [], "method is 'magic'"),
    ],
)
def test_wrong_teachers_and_settings(name, settings, shapes, message):
    with pytest.raises(ValueError, match=message):
        make_teacher(name, settings, shapes)


def test_settings_are_of_the_type_that_they_look_like():
    given = ["model=7", "seeded=true", "price=0.5", "options={quality: high}", "name=a=b"]
    assert settings_from_yaml(given, texts=["model"]) == {
        "model": "7", "seeded": True, "price": 0.5, "options": {"quality": "high"}, "name": "a=b"
    }  # fmt: skip
    assert make_teacher("openai", ["model=toy", "options={quality: high}"], []).options == {"quality": "high"}


def test_a_pipeline_of_this_machine_by_a_two_pass_method(tmp_path, prompts):
    """The miniature at twice its size through SDEdit: the images are those of `urae.generate`."""
    settings = {"method": "sdedit", "steps": 2, "options": {"native_steps": 1}}
    texts = [f"{name}={value}" for name, value in settings.items()]
    command = ["collect", tmp_path / "out", "--teacher", "local", "--prompts", prompts, "--num", 1]
    result = invoke(*command, *(part for text in texts for part in ("--set", text)), "--shape", "256x128")
    assert "cost" not in result.output
    (record,) = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert (record.size, record.source) == ((256, 128), "mini")
    assert (record.teacher["method"], record.teacher["steps"]) == ("sdedit", 2)
    again = Local(shapes={"256x128": 1}, **settings).draw("a cat", (256, 128), record.teacher["seed"])
    with Image.open(tmp_path / "out" / record.file) as kept:
        assert ImageChops.difference(kept.convert("RGB"), again.convert("RGB")).getbbox() is None


def test_captioning_shows_its_cost_and_writes_nothing_in_a_dry_run(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = write_images(tmp_path, [(64, 64)] * 3)
    for sidecar in folder.glob("*.json"):
        sidecar.unlink()
    prices = ["--price-in", 1000, "--price-out", 1000, "--picture-tokens", 1000]
    result = invoke("caption", folder, "--model", "toy", "--max-side", 512, *prices, "--dry-run")
    assert "toy at https://api.openai.com/v1, images reduced to 512 px" in result.output
    assert "images: 3, with a detailed caption: 0, answered before: 0, to ask: 3" in result.output
    assert "tokens, estimated: " in result.output
    assert "price, estimated: " in result.output
    assert {path.suffix for path in folder.iterdir()} == {".png"}
    refused = invoke("caption", folder, "--model", "toy", answer="n\n")
    assert refused.exit_code == 1
    assert "Ask them?" in refused.output
