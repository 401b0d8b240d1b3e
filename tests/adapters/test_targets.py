import pytest
import torch
from tiny_flux import TARGETS, fresh_transformer

from urae.adapters import Lora, Minor, attach
from urae.adapters.targets import linear_layers, parameter_owners, resolved, select


@pytest.fixture(scope="module")
def names():
    return list(linear_layers(fresh_transformer()))


def test_the_papers_targets(names):
    patterns = resolved(Lora(), fresh_transformer()).targets
    assert sorted(select(names, patterns)) == sorted(TARGETS)
    assert not any("add_" in name or "ff" in name or "mlp" in name for name in select(names, patterns))


def test_words_stand_beside_patterns_and_patterns_for_themselves():
    given = Lora(targets=("proj_out", "image_stream", "attention", "proj_out"))
    assert resolved(given, fresh_transformer()).targets == (
        *("proj_out", "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("*.ff.net.0.proj", "*.ff.net.2", "proj_mlp", "single_transformer_blocks.*.proj_out"),
    )
    own = Lora(targets=("attn.to_q",))
    assert resolved(own, torch.nn.Linear(2, 2)) is own


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("attn.to_q", 5),
        ("transformer_blocks.*.attn.to_q", 2),
        ("single_transformer_blocks.*.attn.to_?", 9),
        (r"re:(single_)?transformer_blocks\.0\.attn\.to_q", 2),
        ("proj_out", 4),
        (r"re:proj_out", 1),
        ("*", 8 + 2 * 14 + 3 * 6 + 2),
    ],
)
def test_patterns(names, pattern, count):
    assert len(select(names, (pattern,))) == count


def test_a_pattern_without_a_match_names_close_ones(names):
    with pytest.raises(ValueError, match=r"target 'attn.to_qq' matches no layer.*'attn.to_q'"):
        select(names, ("attn.to_q", "attn.to_qq"))


def test_patterns_overlap_without_doubles(names):
    assert select(names, ("attn.to_q", "*.to_q")) == select(names, ("attn.to_q",))


def test_an_adapted_model_has_the_same_names():
    transformer = fresh_transformer()
    before = list(linear_layers(transformer))
    attach(transformer, Minor(rank=2))
    assert list(linear_layers(transformer)) == before


def test_parameter_owners_hold_every_parameter_once():
    transformer = fresh_transformer()
    owners = parameter_owners(transformer)
    found = [parameter for module in owners.values() for parameter in module.parameters(recurse=False)]
    assert {id(parameter) for parameter in found} == {id(parameter) for parameter in transformer.parameters()}
