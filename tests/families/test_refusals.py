"""Families that have no folder are refused by name, whatever their transformer looks like."""

import json

import diffusers
import pytest
import torch
from torch import nn

from urae.families import families, family_of, open_pipeline
from urae.families.registry import FAMILIES, OTHERS
from urae.resolution import ResolutionPolicy

NAMES = ", ".join(family.name for family in families())


@pytest.mark.parametrize("kind", OTHERS)
def test_another_family_is_refused_by_its_name(kind, tmp_path):
    """As an object and as a folder, before its weights are read."""
    message = f"^{OTHERS[kind]} .{kind}. is not a supported model family: expected one of {NAMES}$"
    with pytest.raises(ValueError, match=message):
        family_of(type(kind, (nn.Module,), {})())
    index = {"_class_name": "SomePipeline", "transformer": ["diffusers", kind]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        open_pipeline(tmp_path)


def test_names_are_those_of_classes_that_there_are():
    for kind in (*FAMILIES, *OTHERS):
        assert issubclass(getattr(diffusers, kind), nn.Module)
    assert not FAMILIES.keys() & OTHERS.keys()


def test_what_looks_like_a_family_but_is_none_is_refused():
    """A class of one's own may hold the same position tables; the class decides, and not the look."""
    with torch.device("meta"):
        transformer = diffusers.QwenImageTransformer2DModel(num_layers=1)
    other = nn.Module()
    other.pos_embed, other.config = transformer.pos_embed, transformer.config
    policy = ResolutionPolicy(linear=True, scale=2.0)
    with pytest.raises(ValueError, match="^Module is not a supported model family"), policy.on(other):
        pass


def test_an_unknown_class_is_refused_by_its_class():
    with pytest.raises(ValueError, match="^Linear is not a supported model family: expected one of "):
        family_of(nn.Linear(2, 2))
