import pytest
from typer.testing import CliRunner

from tiny import with_text_encoders, write_images
from urae.cli.data import app
from urae.data import cached, open_cache
from urae.families import open_encoders


@pytest.fixture
def prepared(pipe, tmp_path):
    pipe = with_text_encoders(pipe)
    pipe.save_pretrained(tmp_path / "pipe")
    return pipe, write_images(tmp_path / "images", [(64, 64)] * 2)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["cache", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_command_makes_the_cache_that_training_takes(prepared, tmp_path):
    pipe, images = prepared
    output = run(images, "--size", 64, "--model", tmp_path / "pipe", "--shards", f"file://{tmp_path}/shards")
    made = cached(pipe, str(images), size=64, scenes=tmp_path)
    assert f"wrote {made.path}" in output
    assert "encoded 2 images (exact) and embedded 4 captions" in output
    assert open_cache(f"file://{tmp_path}/shards").digest == made.digest
    assert "encoded 0 images" in run(images, "--size", 64, "--model", tmp_path / "pipe")


def test_options_reach_the_cache(prepared, tmp_path):
    _, images = prepared
    settings = ("--encoding", "tiled", "--form", "small", "--out", tmp_path / "cache")
    run(images, "--size", 48, "--model", tmp_path / "pipe", *settings)
    made = open_cache(tmp_path / "cache")
    assert (made.size, made.encoding, made.form) == (48, "tiled", "small")


def test_only_the_encoders_have_weights(prepared, tmp_path):
    opened = open_encoders(tmp_path / "pipe", dtype="float32")
    assert {parameter.device.type for parameter in opened.transformer.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in opened.vae.parameters()} == {"cpu"}


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no pipeline '.*nowhere': expected mini, a folder"):
        open_encoders(tmp_path / "nowhere", dtype="float32")
