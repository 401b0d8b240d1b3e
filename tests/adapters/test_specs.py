import json
from dataclasses import replace

import pytest

from urae.adapters import PAPER_TARGETS, SPECS, Full, Lora, Mica, Minor, Spec


@pytest.mark.parametrize("kind", SPECS)
def test_dict_round_trip_through_json(kind):
    spec = SPECS[kind](targets=("attn.to_q", "re:.*proj_out"))
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_defaults_are_the_papers():
    assert Lora() == Lora(rank=16, alpha="rank", targets=("attention",))
    assert Minor().targets == PAPER_TARGETS
    assert Full().targets == ("*",)


def test_alpha_follows_the_rank_unless_given():
    assert Lora(rank=16).scaling == replace(Lora(rank=16), rank=4).scaling == 1.0
    assert Lora(rank=16, alpha=8).scaling == 0.5
    assert Mica(rank=4, alpha=8).scaling == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lora(rank=0), "rank is 0: expected a whole number of 1 or more"),
        (lambda: Minor(rank=2.5), "rank is 2.5"),
        (lambda: Lora(alpha=-1), "alpha is -1: expected a number above 0"),
        (lambda: Lora(targets="attn.to_q"), "expected a list of patterns"),
        (lambda: Lora(targets=()), "targets is empty"),
        (lambda: Spec.from_dict({"kind": "dora"}), "kind 'dora' is unknown: valid kinds are lora, minor"),
        (lambda: Spec.from_dict({"kind": "minor", "alpha": 1}), "'minor' has no 'alpha': valid settings are"),
    ],
)
def test_wrong_values_are_refused_with_what_is_valid(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("targets", [None, 3, "attention", {"attention": 1}, [1], [None]])
def test_targets_of_another_type_are_refused(targets):
    with pytest.raises(ValueError, match="targets is .*: expected a list of patterns"):
        Spec.from_dict({"kind": "lora", "targets": targets})


@pytest.mark.parametrize("kind", [None, ["lora"], {}, 3])
def test_kinds_of_another_type_are_refused(kind):
    with pytest.raises(ValueError, match="adapter kind .* is unknown: valid kinds are"):
        Spec.from_dict({"kind": kind})
