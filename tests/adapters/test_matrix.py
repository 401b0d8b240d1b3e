"""One matrix: every spec through attach, a step, save, load, the stock loader, convert, merge, truncate, detach."""

from functools import cache

import pytest
import torch
from test_attach import snapshot
from tiny_flux import SPECS, fresh_transformer, name_of, output, train, trained_adapter, with_transformer

from urae.adapters import Adapter, Full, Lora, attach, merge, truncate

every_spec = pytest.mark.parametrize("spec", SPECS, ids=name_of)
with_start = pytest.mark.parametrize("start", [None, Lora(rank=3)], ids=["alone", "started"])


@pytest.fixture
def life(spec, start, tmp_path):
    """A spec's life up to the file: output when trained, the file, and a transformer without the adapter."""
    trained, adapter = up_to_the_file(spec, start)
    return trained, adapter.save(tmp_path / "adapter.safetensors"), fresh_transformer()


@cache
def up_to_the_file(spec, start):
    transformer = fresh_transformer()
    before, untouched = snapshot(transformer), output(transformer)
    attached = attach(transformer, spec, start=trained_adapter(start) if start else None)
    train(attached)
    trained = output(transformer)
    adapter = attached.export()
    attached.detach()
    assert snapshot(transformer) == before
    assert torch.equal(output(transformer), untouched)
    assert not torch.equal(trained, untouched)
    return trained, adapter


@every_spec
@with_start
def test_load(life):
    trained, path, transformer = life
    with Adapter.load(path, base=transformer).on(transformer):
        torch.testing.assert_close(output(transformer), trained, atol=1e-5, rtol=0)


@every_spec
@with_start
def test_stock_loader(life, spec, pipe):
    trained, path, _ = life
    stock = with_transformer(pipe, fresh_transformer())
    if isinstance(spec, Full):
        before = snapshot(stock.transformer)
        with pytest.raises((ValueError, IndexError)):  # no LoRA: stock has no sentence for it
            stock.load_lora_weights(path)
        assert snapshot(stock.transformer) == before
        return
    stock.load_lora_weights(path)
    torch.testing.assert_close(output(stock.transformer), trained, atol=1e-5, rtol=0)
    stock.fuse_lora()
    stock.unload_lora_weights()
    torch.testing.assert_close(output(stock.transformer), trained, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["kohya", "comfy"])
@pytest.mark.parametrize("spec", SPECS[:-1], ids=name_of)
@with_start
def test_convert(life, layout, tmp_path):
    trained, path, transformer = life
    adapter = Adapter.load(path)
    converted = Adapter.load(adapter.save(tmp_path / "converted.safetensors", layout=layout))
    assert converted.layout == layout
    assert converted.metadata() == adapter.metadata()
    with converted.on(transformer):
        torch.testing.assert_close(output(transformer), trained, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:the merged adapter has rank")
@every_spec
@with_start
def test_merge_and_truncate(life, spec):
    trained, path, transformer = life
    adapter = Adapter.load(path)
    halves = merge([adapter, adapter], weights=[0.25, 0.75])
    with halves.on(transformer):
        torch.testing.assert_close(output(transformer), trained, atol=1e-5, rtol=0)
    if isinstance(spec, Full):
        return
    rank = max(A.shape[0] for A, _ in adapter.factors.values())
    result = truncate(halves, rank=rank)
    assert result.error < 1e-6
    with result.adapter.on(transformer):
        torch.testing.assert_close(output(transformer), trained, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", SPECS[:-1], ids=name_of)
def test_stock_bf16_pipeline_keeps_the_update(spec, pipe, tmp_path):
    """Stock loading rounds the factors to bf16. The file's form must not turn that into an error of the update."""
    adapter = trained_adapter(spec)
    stock = with_transformer(pipe, fresh_transformer(torch.bfloat16))
    stock.load_lora_weights(adapter.save(tmp_path / "adapter.safetensors"))
    lost = kept = 0.0
    for name, (A, B) in adapter.factors.items():
        rounded = stock.transformer.get_submodule(name).get_delta_weight("default_0").float()
        lost += float((rounded.detach() - B @ A).square().sum())
        kept += float((B @ A).square().sum())
    assert lost**0.5 < 5e-3 * kept**0.5
