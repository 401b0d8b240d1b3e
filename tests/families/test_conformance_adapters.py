"""The matrix of adapters with every family: targets, identity, export, the stock loader, rounded bases, layouts."""

from contextlib import contextmanager

import pytest
import torch
from tiny_families import noisy, velocity

from urae.adapters import IMAGE_STREAM, PAPER_TARGETS, Adapter, Full, Lora, Major, Mica, Minor, attach
from urae.adapters.convert import parse, to_layout
from urae.adapters.targets import linear_layers, resolved, select
from urae.execution import quantised
from urae.families import open_architecture

TARGETS = {"attention": PAPER_TARGETS, "image_stream": IMAGE_STREAM}
LOW_RANK = [Lora, Minor, Major, Mica]
every_kind = pytest.mark.parametrize("kind", [*LOW_RANK, Full], ids=lambda kind: kind.kind)
every_word = pytest.mark.parametrize("word", TARGETS)


def spec_of(kind, word: str):
    return kind(targets=TARGETS[word]) if kind is Full else kind(rank=4, targets=TARGETS[word])


@contextmanager
def attached(tiny, spec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        here = attach(tiny.transformer, spec)
    try:
        yield here
    finally:
        here.detach()


@contextmanager
def loaded_by_stock(tiny, path):
    tiny.pipe.load_lora_weights(path)
    try:
        yield
    finally:
        tiny.pipe.unload_lora_weights()
        tiny.transformer.requires_grad_(True)  # peft leaves it frozen


def output(tiny) -> torch.Tensor:
    with torch.no_grad():
        return velocity(tiny, noisy(tiny))


def train(tiny, here) -> None:
    """One step, large enough to be seen."""
    velocity(tiny, noisy(tiny)).square().mean().backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in here.parameters())
    with torch.no_grad():
        for parameter in here.parameters():
            parameter -= 0.05 * parameter.grad / largest
            parameter.grad = None


def names(transformer, word: str) -> list[str]:
    return select(linear_layers(transformer), resolved(Lora(targets=TARGETS[word]), transformer).targets)


@every_word
def test_words_mean_as_many_layers_as_the_configuration_has(tiny, word):
    assert len(names(tiny.transformer, word)) == tiny.num_targets[word]
    for model, expected in tiny.published.items():
        transformer = open_architecture(model, dtype=torch.bfloat16).transformer
        assert len(names(transformer, word)) == expected[word]


@every_kind
@every_word
def test_a_life(tiny, kind, word, tmp_path):
    """The identity when attached; what is trained is what its file does here and, where stock can read it, there."""
    spec, untouched = spec_of(kind, word), output(tiny)
    before = {name: parameter.detach().clone() for name, parameter in tiny.transformer.named_parameters()}
    with attached(tiny, spec) as here:
        torch.testing.assert_close(output(tiny), untouched, atol=1e-5, rtol=0)
        train(tiny, here)
        trained = output(tiny)
        path = here.export().save(tmp_path / "adapter.safetensors")
    assert (trained - untouched).abs().max() > 1e-3
    assert torch.equal(output(tiny), untouched)
    with Adapter.load(path, base=tiny.transformer).on(tiny.transformer):
        torch.testing.assert_close(output(tiny), trained, atol=1e-4, rtol=0)
    if kind is not Full:
        with loaded_by_stock(tiny, path):
            torch.testing.assert_close(output(tiny), trained, atol=1e-4, rtol=0)
    for name, parameter in tiny.transformer.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad


@pytest.mark.parametrize("format", ["fp8", "int8"])
def test_rounded_bases_run_and_train(tiny, format):
    exact = output(tiny)
    with attached(tiny, spec_of(Lora, "attention")) as here, quantised(tiny.transformer, format):
        rounded = output(tiny)
        train(tiny, here)
        trained = output(tiny)
    assert 0 < (rounded - exact).abs().max() < 0.2 * exact.abs().max()
    assert not torch.equal(trained, rounded)
    assert torch.equal(output(tiny), exact)


@pytest.mark.parametrize("layout", ["kohya", "comfy"])
def test_other_layouts_and_back_or_why_not(tiny, layout):
    with attached(tiny, spec_of(Lora, "image_stream")) as here:
        train(tiny, here)
        trained, factors = output(tiny), here.export().factors
    if layout not in tiny.layouts:
        with pytest.raises(ValueError, match="can only be written in the layout diffusers"):
            to_layout(factors, layout)
        return
    parsed = parse(to_layout(factors, layout))
    assert parsed.layout == layout
    assert parsed.factors.keys() == factors.keys()
    for name, (A, B) in factors.items():
        other_A, other_B = parsed.factors[name]
        torch.testing.assert_close(other_B @ other_A, B @ A, atol=1e-6, rtol=0)
    assert (trained - output(tiny)).abs().max() > 1e-3


def test_every_linear_layer_goes_to_other_layouts_or_none(tiny):
    """So that what is trained on targets of one's own can be written too."""
    layers = linear_layers(tiny.transformer)
    factors = {
        name: (torch.ones(2, layer.in_features), torch.ones(layer.out_features, 2))
        for name, layer in layers.items()
    }
    for layout in tiny.layouts:
        assert parse(to_layout(factors, layout)).factors.keys() == factors.keys()
