import inspect
from dataclasses import fields, replace

import pytest
import yaml

from urae.adapters import Lora, Minor
from urae.errors import BadFile
from urae.resolution import ResolutionPolicy
from urae.training import Recipe, from_dict, load_recipe, override, save_recipe, to_dict, valid_keys


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"adapter": Minor(rank=8, targets=("attn.to_q",))},
        {"policy": ResolutionPolicy(rope_scale=10.0, proportional=True)},
        {"betas": (0.8, 0.95), "sample_prompts": ("a: b", "ein Löwe"), "lr": 1e-7},
    ],
)
def test_a_recipe_is_read_as_it_was_written(recipe, tmp_path, change):
    made = recipe(**change)
    save_recipe(made, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == made
    assert from_dict(to_dict(made)) == made


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("steps", "50", 50),
        ("lr", "1e-3", 1e-3),
        ("lr", "2", 2.0),
        ("gradient_checkpointing", "true", True),
        ("gradient_checkpointing", "attention", "attention"),
        ("optimizer", "prodigy", "prodigy"),
        ("out", "2024", "2024"),
        ("betas", "[0.8, 0.9]", (0.8, 0.9)),
        ("sample_prompts", "[a cat, a dog]", ("a cat", "a dog")),
        ("policy", "reference", "reference"),
        (
            "policy",
            "{rope_scale: 10, proportional: true}",
            ResolutionPolicy(rope_scale=10, proportional=True),
        ),
    ],
)
def test_text_is_read_by_the_type_of_its_key(recipe, key, text, expected):
    value = getattr(override(recipe(), {key: text}), key)
    assert value == expected
    assert type(value) is type(expected)


def test_dotted_keys_reach_into_the_adapter(recipe):
    made = recipe()
    assert override(made, {"adapter.rank": 8}).adapter == Lora(rank=8)
    assert override(made, {"adapter.rank": "8"}).adapter == Lora(rank=8)
    assert override(made, {"adapter": "minor", "adapter.rank": "2"}).adapter == Minor(rank=2)
    assert override(made, {"adapter": Minor(rank=2)}).adapter == Minor(rank=2)
    assert override(made, {"adapter.targets": "[attn.to_q]"}).adapter.targets == ("attn.to_q",)


def test_a_policy_can_be_varied_by_part(recipe):
    made = recipe(policy=ResolutionPolicy(rope_scale=10.0))
    assert override(made, {"policy.shift": "1"}).policy == ResolutionPolicy(rope_scale=10.0, shift=1.0)
    with pytest.raises(
        ValueError, match=r"policy.shift cannot be set: policy is 'for_size', which has no parts"
    ):
        override(recipe(), {"policy.shift": 1})


def test_a_policy_can_be_a_file(recipe, tmp_path):
    policy = ResolutionPolicy(rope="ntk", scale=2.0)
    (tmp_path / "policy.json").write_text(policy.to_json())
    changed = override(recipe(), {"policy": str(tmp_path / "policy.json")})
    assert changed.policy == policy
    assert from_dict(to_dict(changed)) == changed  # recipe.yaml holds the settings, not the file
    (tmp_path / "policy.json").write_text('{"shift": 0}')
    with pytest.raises(BadFile, match=r"policy.json is not a resolution policy: shift is 0"):
        override(recipe(), {"policy": str(tmp_path / "policy.json")})


def test_a_policy_in_numbers_does_not_stay_behind_when_the_size_changes(recipe):
    made = recipe(policy=ResolutionPolicy(linear=True, scale=2.0))
    with pytest.raises(
        ValueError, match="size changes from 128 to 256 px, but the policy stays that of 2 times"
    ):
        override(made, {"size": 256})
    assert override(made, {"size": 256, "policy": "for_size"}).size == 256
    assert override(made, {"size": 256, "policy.scale": 4.0}).policy.scale == 4.0


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "stepz",
            r"unknown recipe key 'stepz' \(did you mean steps\?\): the valid ones are adapter, base_dtype, .*",
        ),
        ("adapter.rnk", r"adapter 'lora' has no 'rnk': valid settings are targets, rank, alpha"),
        ("adapter.kind", r"adapter kind 1 is unknown: valid kinds are lora, minor, major, mica, full"),
    ],
)
def test_an_unknown_key_is_answered_with_the_valid_ones(recipe, key, message):
    with pytest.raises(ValueError, match=message):
        override(recipe(), {key: 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("steps", "many", "steps is 'many': expected a whole number"),
        ("steps", 1.5, "steps is 1.5: expected a whole number"),
        ("steps", True, "steps is True: expected a whole number"),
        ("lr", "fast", "lr is 'fast': expected a finite number"),
        ("lr", float("inf"), "lr is inf: expected a finite number"),
        ("steps", "1" + 20 * "0", "steps is 10+: expected a whole number below"),
        (
            "gradient_checkpointing",
            1,
            "gradient_checkpointing is 1: expected true or false or one of full, attention",
        ),
        (
            "gradient_checkpointing",
            "some",
            "gradient_checkpointing is 'some': expected true or false or one of",
        ),
        ("optimizer", "sgd", "optimizer is 'sgd': expected one of prodigy, adamw"),
        ("betas", "0.9", r"betas is 0.9: expected a list of a finite number, 2 of them"),
        ("sample_prompts", "a cat", "sample_prompts is 'a cat': expected a list of text"),
        ("out", 3, "out is 3: expected text"),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one(recipe, key, value, message):
    with pytest.raises(ValueError, match=message):
        override(recipe(), {key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0: expected 1 or more"),
        ({"size": 100}, "multiple of 16"),
        ({"caption_mix": 1.5}, r"caption_mix is 1.5: expected a probability in \[0, 1\]"),
        ({"seed": 2**32}, r"seed is 4294967296: expected a whole number in \[0, 2\*\*32\)"),
        ({"lr": 0.0}, "lr is 0.0: expected a number above 0"),
        ({"ema": 1.0}, "ema is 1.0: expected a decay in"),
        (
            {"batch_size": 6, "gradient_accumulation": 4},
            r"is 4: expected a divisor of batch_size \(6\)",
        ),
        (
            {"policy": "best"},
            "policy is 'best': expected a ResolutionPolicy or one of for_size, reference, native",
        ),
        ({"loggers": ("tensorbord",)}, "expected names out of tensorboard, wandb, trackio"),
        ({"data": ""}, "data is '': expected not empty"),
        ({"sigma_shift": 810.0}, "a sigma shift of 810 puts 89.1%"),
        ({"flow_weight": 0.0}, "both 0, which trains nothing"),
        ({"teacher_guidance": 3.5}, "no effect at distill_weight 0"),
        ({"validate_every": 5}, "validate_every=5 and num_validation=0 need each other"),
        ({"sample_every": 5}, "sample_every=5 needs sample_prompts"),
        ({"swap_blocks": -1}, "swap_blocks is -1: expected 0 or more"),
        ({"context_parallel": 0}, "context_parallel is 0: expected 1 or more"),
        (
            {"context_parallel": 2, "compile": True},
            "context_parallel is 2, which compiled blocks have not been",
        ),
        ({"swap_blocks": 2}, "swap_blocks saves nothing at gradient_checkpointing=false"),
        ({"offload_activations": True}, "offload_activations saves nothing at gradient_checkpointing=false"),
        (
            {"swap_blocks": 2, "gradient_checkpointing": "full", "compile": True},
            "swap_blocks is 2 and compiled blocks hold their weights: expected 0 with compile=true",
        ),
        (
            {"offload_activations": True, "gradient_checkpointing": "attention", "compile": True},
            "compiled blocks keep the results of attention themselves",
        ),
    ],
)
def test_values_out_of_range_and_without_effect_are_refused(recipe, change, message):
    with pytest.raises(ValueError, match=message):
        recipe(**change)


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="a recipe needs model, size, adapter, data, out"):
        from_dict({})


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(BadFile, match="r.yaml"):
        load_recipe(tmp_path / "r.yaml")


def test_every_valid_key_can_be_set(recipe):
    made = recipe(policy=ResolutionPolicy())
    plain = to_dict(made)
    for key in valid_keys(made):
        outer, _, inner = key.partition(".")
        assert override(made, {key: plain[outer][inner] if inner else plain[outer]}) == made


def test_every_field_says_what_it_means():
    source = inspect.getsource(Recipe)
    for field in fields(Recipe):
        declaration = source[source.index(f"\n    {field.name}: ") + 1 :]
        assert declaration.split("\n")[1].strip().startswith('"""'), field.name


def test_yaml_is_plain(recipe, tmp_path):
    save_recipe(replace(recipe(), sample_prompts=("a",)), tmp_path / "r.yaml")
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["sample_prompts"] == ["a"]
    assert "!!" not in (tmp_path / "r.yaml").read_text()


def test_a_base_that_teaches_itself_what_it_is_is_refused(recipe):
    distilled = {"flow_weight": 0.0, "distill_weight": 1.0}
    for guidance in (1.0, 3.5):
        with pytest.raises(
            ValueError, match=f"the base at guidance {guidance:g}, .*, which trains nothing: set"
        ):
            recipe(**distilled, guidance=guidance, teacher_guidance=guidance)
    for change in (
        {"teacher_guidance": 3.5},
        {"guidance": 3.5},
        {"teacher": "another"},
        {"flow_weight": 0.1},
    ):
        assert recipe(**{**distilled, **change}).distill_weight == 1
