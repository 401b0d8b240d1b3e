"""`urae plan`: the recipe, the GPU and the price reach the plan, and the report says what it found."""

import pytest
import typer
from typer.testing import CliRunner

from urae.cli.plan import plan as command


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception:
        raise result.exception
    return result.stdout


def test_the_report_answers_the_four_questions():
    text = run("mini_4x", "steps=36", "--gpu", "L4", "--gpus", "2", "--price", "0.5")
    assert "36 steps of 2 images, on 2 x L4" in text
    assert "fits: yes" in text
    assert "cost: " in text
    assert "of cache an image" in text
    assert "of disk for 160 images" in text  # mini:clean:160


def test_another_gpu_is_given_by_its_numbers():
    assert "1 x 24 GiB GPU (24 GiB, 165 TFLOP/s)" in run("mini_4x", "--memory", "24", "--tflops", "165")
    for half in (["--memory", "24"], ["--gpu", "L4", "--tflops", "3"], []):
        with pytest.raises(ValueError, match="which GPU"):
            run("mini_4x", *half)
