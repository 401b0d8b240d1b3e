"""The settings of the nodes are those of `urae.ResolutionPolicy`, and so is what they refuse."""

import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from comfyui.models import FLUX_1
from comfyui.policy import ByHand, Policy, policy_of_metadata
from policies import POLICIES, REFUSED

from tiny import t5_tokenizer
from tiny_pipelines import tiny_pipeline
from urae import ResolutionPolicy

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
def test_a_policy_has_the_same_settings(settings):
    ours = ResolutionPolicy.from_dict(settings)
    assert asdict(Policy.from_json(ours.to_json())) == ours.to_dict()
    assert asdict(Policy(**settings)) == ours.to_dict()


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_both_refuse_the_same(settings):
    with pytest.raises(ValueError):
        ResolutionPolicy.from_dict(settings)
    with pytest.raises(ValueError):
        Policy.from_dict(settings)


@pytest.mark.parametrize("text", ["", "[1]", "{", "2"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match="expected (an|a JSON) object of settings"):
        Policy.from_json(text)


@pytest.mark.parametrize("size", [(1024, 1024), (512, 512), (2048, 2048), (2048, 1024), (8192, 8192)])
def test_by_hand_the_default_is_the_policy_of_the_size(size, flux1):
    ours = ResolutionPolicy.for_size(flux1, size)
    by_hand = ByHand(family=FLUX_1).policy((size[0] * size[1]) ** 0.5 / 1024)
    assert asdict(by_hand) == ours.to_dict()


@pytest.fixture
def flux1():
    """The tiny pipeline with FLUX.1's native size and number of text tokens."""
    pipe = tiny_pipeline()
    pipe.vae.register_to_config(sample_size=1024)
    pipe.tokenizer_2 = t5_tokenizer()
    pipe.tokenizer_2.model_max_length = 512
    return pipe


@pytest.mark.parametrize("rule", ["clip", "theta", "linear", "ntk", "yarn", "dype", "dype_ntk"])
def test_by_hand_every_rule_gives_a_policy_at_every_size(rule):
    assert ByHand(family=FLUX_1, rule=rule).policy(1.0) == Policy()
    for scale in (1.01, 2.0, 4.0, 9.0):
        policy = ByHand(family=FLUX_1, rule=rule).policy(scale)
        assert policy.proportional == (rule not in ("yarn", "dype"))
        assert policy.scale == (1.0 if rule == "theta" else scale)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rule": "yarn", "rope_scale": 4.0}, "no effect with the rule yarn"),
        ({"rule": "theta", "scale": 2.0}, "no effect with the rule theta"),
        ({"rule": "yarn", "proportional": "on"}, "stacked on the attention scaling"),
        ({"rule": "clip", "rope_scale": 2.0}, "acts only where rope_scale"),
    ],
)
def test_by_hand_a_setting_without_effect_is_refused_before_anything_is_sampled(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ByHand(family=FLUX_1, **settings)


def test_an_adapter_brings_its_policy_in_its_own_metadata():
    described = {"urae": json.dumps({"policy": POLICIES["clip"]})}
    assert policy_of_metadata(described, name="a") == Policy(**POLICIES["clip"])


@pytest.mark.parametrize(
    "metadata", [None, {}, {"ss_network_dim": "16"}, {"urae": json.dumps({"policy": None})}]
)
def test_a_file_without_a_policy_says_what_to_do(metadata):
    with pytest.raises(
        ValueError, match=r"style.safetensors carries no resolution policy.*LoraLoaderModelOnly"
    ):
        policy_of_metadata(metadata, name="style.safetensors")


def test_the_nodes_have_the_version_of_the_package_and_need_nothing():
    package, nodes = (
        tomllib.loads((ROOT / name).read_text())["project"]
        for name in ("pyproject.toml", "comfyui/pyproject.toml")
    )
    assert nodes["version"] == package["version"]
    assert nodes["dependencies"] == []
