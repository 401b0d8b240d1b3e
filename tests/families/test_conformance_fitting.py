"""Choosing a policy by the errors of every family: each rule runs, and the model is as it was."""

from tiny import write_images
from urae.fitting import FittingRequest, plan_fitting, run_fitting


def test_every_rule_is_measured(tiny, tmp_path):
    images = write_images(tmp_path / "images", [(128, 128)] * 9 + [(192, 144)])
    request = FittingRequest(images=str(images), size=128, sigmas=(0.9,))
    before = {name: type(module) for name, module in tiny.transformer.named_modules()}
    plan = plan_fitting(tiny.pipe, request, out=tmp_path)
    result = run_fitting(plan, tmp_path / "errors.jsonl")
    assert {name: type(module) for name, module in tiny.transformer.named_modules()} == before
    assert len(result.errors) == 14
    assert result.errors["yarn"] == result.errors["dype"]  # their ramps lie below a native grid of 4 tokens
    # No other two policies are the same model.
    assert len({tuple(rows.values()) for rows in result.errors.values()}) == 13
