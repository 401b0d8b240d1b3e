"""Several adapters at once: what a weighted merge does, in any order, on any base, under the one policy there is."""

from dataclasses import replace

import pytest
import torch
from test_attach import snapshot
from tiny_flux import SPECS, fresh_transformer, name_of, output, trained_adapter, with_transformer

from urae.adapters import Adapter, AdapterFile, Full, Lora, Minor, Stack, load_adapters, merge
from urae.errors import WrongBase
from urae.execution import quantised
from urae.resolution import ResolutionPolicy

POLICY = ResolutionPolicy(rope_scale=10, proportional=True, native_tokens=71, shift=4.0)


@pytest.fixture(scope="module")
def style():
    return trained_adapter(Lora(rank=3, targets=("attn.to_q", "proj_out")), seed=1)


def resolution(spec):
    return trained_adapter(spec, policy=POLICY)


def dense(transformer, parts):
    """The transformer with every update added to its weights in double precision."""
    with torch.no_grad():
        for adapter, strength in parts:
            changes = {f"{name}.weight": B.double() @ A.double() for name, (A, B) in adapter.factors.items()}
            for name, change in (changes | dict(adapter.differences)).items():
                parameter = transformer.get_parameter(name)
                parameter.data = (parameter.double() + strength * change).float()
    return transformer


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_it_is_the_merge_at_those_strengths_and_the_dense_sum(spec, style):
    first, transformer = resolution(spec), fresh_transformer()
    before, plain = snapshot(transformer), output(transformer)
    with Stack([first, (style, -0.6)]).on(transformer, policy=None):
        found = output(transformer)
    assert snapshot(transformer) == before
    assert torch.equal(output(transformer), plain)
    assert (found - plain).abs().max() > 1e-3
    with Stack([(style, -0.6), first]).on(transformer, policy=None):
        assert torch.equal(output(transformer), found)
    with pytest.warns(UserWarning, match="rank") if first.factors else pytest.MonkeyPatch.context():
        merged = merge([first, style], weights=[1, -0.6], policy=POLICY)
    with merged.on(transformer, policy=None):
        torch.testing.assert_close(output(transformer), found, atol=1e-6, rtol=0)
    expected = output(dense(fresh_transformer(), [(first, 1), (style, -0.6)]))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("spec", [Minor(rank=4), Full()], ids=name_of)
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_on_a_rounded_base_it_is_added_to_the_rounded_matrices(spec, kind, style):
    first, transformer = resolution(spec), fresh_transformer()
    parts = [(first, 0.5), (style, 2.0)]
    with quantised(transformer, kind), Stack(parts).on(transformer, policy=None):
        found = output(transformer)
    with quantised(transformer, kind):
        values = {name: parameter.clone() for name, parameter in restored(transformer).items()}
    plain = fresh_transformer()
    for name, value in values.items():
        plain.get_parameter(name).data = value.detach()
    torch.testing.assert_close(found, output(dense(plain, parts)), atol=5e-6, rtol=0)


def restored(transformer):
    return {
        f"{name}.weight": module.weight
        for name, module in transformer.named_modules()
        if type(module).__name__ == "QuantisedLinear"
    }


def test_a_full_adapter_acts_inside_another(style):
    """Its parameters then lie inside peft's wrappers."""
    full, transformer = trained_adapter(Full()), fresh_transformer()
    before = snapshot(transformer)
    with Stack([full, style]).on(transformer):
        expected = output(transformer)
    with style.on(transformer):
        between = snapshot(transformer)
        with full.on(transformer):
            torch.testing.assert_close(output(transformer), expected, atol=1e-6, rtol=0)
        assert snapshot(transformer) == between
    assert snapshot(transformer) == before


def test_the_policy_is_that_of_the_adapter_that_has_one(style, pipe):
    pipe = with_transformer(pipe, fresh_transformer())
    scheduler, first = pipe.scheduler, resolution(Minor(rank=4))
    for parts in ([style, first], [first, style]):
        with Stack(parts).on(pipe):
            assert pipe.scheduler.config.shift == 4.0
        assert pipe.scheduler is scheduler
    with Stack([style, first]).on(pipe, policy=None):
        assert pipe.scheduler is scheduler
    same = replace(style, policy=POLICY)
    assert Stack([same, first]).policy == POLICY
    other = replace(style, policy=replace(POLICY, shift=6.0), file="b.safetensors")
    with pytest.raises(
        ValueError, match=r"a\.safetensors and b\.safetensors have different resolution policies"
    ):
        Stack([replace(first, file="a.safetensors"), other]).policy  # noqa: B018
    with Stack([first, other]).on(pipe, policy=POLICY):
        assert pipe.scheduler.config.shift == 4.0


def test_each_is_checked_before_anything_is_touched(style):
    transformer = fresh_transformer()
    transformer.proj_out.weight.data += 0.01
    before = snapshot(transformer)
    foreign = replace(style, base=None)
    with (
        pytest.raises(WrongBase, match="was made for"),
        Stack([foreign, resolution(Lora(rank=2))]).on(transformer),
    ):
        pass
    assert snapshot(transformer) == before


def test_what_is_counted_twice_is_refused(style, tmp_path):
    first = resolution(Lora(rank=2))
    later = replace(resolution(Minor(rank=2)), start=first.hash, file="4k.safetensors")
    with pytest.raises(
        ValueError, match="4k.safetensors was trained on top of the adapter .* and contains it"
    ):
        Stack([first, later])
    with pytest.raises(ValueError, match="given twice: give it once, at the sum of the strengths"):
        Stack([style, (style, 0.5)])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "a stack of no adapters has no effect"),
        (["a.safetensors"], "'a.safetensors' is not an adapter: expected an Adapter, or a pair"),
        (lambda style: [(style, 0)], "the strength of the adapter [0-9a-f]+ is 0, at which it has no effect"),
        (lambda style: [(style, float("nan"))], "is nan: expected a finite number"),
        (lambda style: [(style, "1")], "is '1': expected a finite number"),
    ],
)
def test_what_is_no_stack(style, parts, message):
    with pytest.raises(ValueError, match=message):
        Stack(parts(style) if callable(parts) else parts)


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.6", ("a.safetensors", 0.6)),
        ("a.safetensors:-1e-1", ("a.safetensors", -0.1)),
        (r"C:\loras\a.safetensors", (r"C:\loras\a.safetensors", 1.0)),
        (r"C:\loras\a.safetensors:0.5", (r"C:\loras\a.safetensors", 0.5)),
        ("mine:2.safetensors", ("mine:2.safetensors", 1.0)),
        ("there:2", ("there:2", 1.0)),
        ("there:2:0.5", ("there:2", 0.5)),
    ],
)
def test_a_strength_is_read_from_the_right(tmp_path, monkeypatch, text, understood):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there:2").write_text("")
    (tmp_path / "here").write_text("")
    path, strength = AdapterFile.of(text)
    assert (str(path), strength) == understood
    with pytest.raises(ValueError, match="'half' is not a strength of here: expected FILE or FILE:STRENGTH"):
        AdapterFile.of("here:half")
    with pytest.raises(ValueError, match="the strength of here is 0, at which it has no effect"):
        AdapterFile.of("here:0")
    with pytest.raises(ValueError, match="the strength of here is inf"):
        AdapterFile.of("here:inf")


def test_files_with_strengths(style, tmp_path):
    first, transformer = resolution(Minor(rank=2)), fresh_transformer()
    files = [one.save(tmp_path / f"{name}.safetensors") for name, one in (("a", first), ("b", style))]
    loaded = load_adapters([AdapterFile(files[0]), AdapterFile(files[1], 0.5)], base=transformer)
    assert str(loaded) == "a.safetensors at strength 1, b.safetensors at strength 0.5"
    assert loaded.hash == Stack([(style, 0.5), first]).hash
    assert loaded.hash != Stack([style, first]).hash
    alone = load_adapters([AdapterFile(files[0])], base=transformer)
    assert isinstance(alone, Adapter)
    assert alone.hash == first.hash
