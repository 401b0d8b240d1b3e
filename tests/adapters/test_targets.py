import pytest
from tiny_flux import TARGETS, fresh_transformer

from urae.adapters import PAPER_TARGETS, Minor, attach
from urae.adapters.targets import linear_layers, parameter_owners, select


@pytest.fixture(scope="module")
def names():
    return list(linear_layers(fresh_transformer()))


def test_the_papers_targets(names):
    assert sorted(select(names, PAPER_TARGETS)) == sorted(TARGETS)
    assert not any("add_" in name or "ff" in name or "mlp" in name for name in select(names, PAPER_TARGETS))


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
