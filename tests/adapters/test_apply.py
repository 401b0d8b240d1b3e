"""`adapter.on`: weights and policy for the duration, on the right base only, undone bit for bit."""

from dataclasses import replace

import pytest
import torch
from test_attach import snapshot
from tiny_flux import (
    GOLDEN,
    LOW_RANK,
    SPECS,
    fresh_transformer,
    name_of,
    output,
    trained_adapter,
    with_transformer,
)

from urae.adapters import Adapter, Full, Lora, Minor, base_of
from urae.adapters.injection import inject
from urae.errors import WrongBase
from urae.resolution import ResolutionPolicy

POLICY = ResolutionPolicy(rope_scale=10, proportional=True, native_tokens=71, shift=4.0)


@pytest.fixture(scope="module")
def adapter():
    return trained_adapter(Minor(rank=4), policy=POLICY)


@pytest.fixture(scope="module")
def other():
    return trained_adapter(Lora(rank=3, targets=("attn.to_q", "proj_out")), seed=1)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_is_undone_bit_for_bit(spec, dtype):
    adapter, transformer = trained_adapter(spec), fresh_transformer(dtype)
    transformer.proj_out.requires_grad_(False)
    before, prediction = snapshot(transformer), output(transformer, dtype)
    with adapter.on(transformer):
        assert not torch.equal(output(transformer, dtype), prediction)
    assert snapshot(transformer) == before
    assert torch.equal(output(transformer, dtype), prediction)


def test_an_exception_inside_undoes_it_too(adapter):
    transformer = fresh_transformer()
    before = snapshot(transformer)
    with pytest.raises(KeyError), adapter.on(transformer):
        raise KeyError
    assert snapshot(transformer) == before


@pytest.mark.parametrize("spec", LOW_RANK, ids=name_of)
def test_on_a_bf16_base_the_sum_is_rounded_once(spec):
    adapter, transformer = trained_adapter(spec), fresh_transformer(torch.bfloat16)
    name, x = "transformer_blocks.1.attn.to_k", torch.randn(5, 32).bfloat16()
    with torch.no_grad(), adapter.on(transformer):
        layer = transformer.get_submodule(name)
        found, base = layer(x), layer.base_layer(x)
    A, B = adapter.factors[name]
    expected = (base.float() + x.float() @ A.mT @ B.mT).bfloat16()
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=1e-6)
    assert (found == expected).float().mean() > 0.98


def test_weights_equal_the_dense_update(other):
    transformer = fresh_transformer()
    with other.on(transformer):
        found = output(transformer)
    with torch.no_grad():
        for name, (A, B) in other.factors.items():
            transformer.get_submodule(name).weight.add_(B @ A)
    torch.testing.assert_close(found, output(transformer), atol=1e-5, rtol=0)


def test_own_policy_other_policy_no_policy(adapter, pipe):
    pipe = with_transformer(pipe, fresh_transformer())
    scheduler, theta = pipe.scheduler, pipe.transformer.pos_embed.theta
    with adapter.on(pipe):
        assert pipe.scheduler.config.shift == 4.0
        own = output(pipe.transformer)
    with adapter.on(pipe, policy=None):
        assert pipe.scheduler is scheduler
        weights_only = output(pipe.transformer)
        with POLICY.on(pipe):
            assert torch.equal(output(pipe.transformer), own)
    assert not torch.equal(weights_only, own)
    with adapter.on(pipe, policy=replace(POLICY, shift=6.0)):
        assert pipe.scheduler.config.shift == 6.0
    assert pipe.scheduler is scheduler
    assert pipe.transformer.pos_embed.theta == theta


def test_two_adapters_nest(adapter, other):
    transformer = fresh_transformer()
    with adapter.on(transformer, policy=None):
        once, between = output(transformer), snapshot(transformer)
        with other.on(transformer):
            both = output(transformer)
            with adapter.on(transformer, policy=None):
                assert not torch.equal(output(transformer), both)
            assert torch.equal(output(transformer), both)
        assert snapshot(transformer) == between
        assert torch.equal(output(transformer), once)
    with torch.no_grad():
        for factors in (adapter.factors, other.factors):
            for name, (A, B) in factors.items():
                transformer.get_submodule(name).weight.add_(B @ A)
    torch.testing.assert_close(both, output(transformer), atol=1e-5, rtol=0)


def test_on_top_of_a_stock_lora(adapter, other, pipe, tmp_path):
    pipe = with_transformer(pipe, fresh_transformer())
    pipe.load_lora_weights(other.save(tmp_path / "other.safetensors"), adapter_name="style")
    stock = output(pipe.transformer)
    with adapter.on(pipe, policy=None):
        both = output(pipe.transformer)
    assert torch.equal(output(pipe.transformer), stock)
    assert pipe.get_list_adapters() == {"transformer": ["style"]}
    assert pipe.get_active_adapters() == ["style"]
    pipe.unload_lora_weights()
    with other.on(pipe), adapter.on(pipe, policy=None):
        torch.testing.assert_close(both, output(pipe.transformer))


def test_states_in_which_it_would_have_no_effect(adapter, other, pipe, tmp_path):
    pipe = with_transformer(pipe, fresh_transformer())
    pipe.load_lora_weights(other.save(tmp_path / "other.safetensors"))
    pipe.transformer.disable_lora()
    with (
        pytest.raises(ValueError, match="has its adapters disabled: call transformer.enable_lora"),
        adapter.on(pipe),
    ):
        pass
    pipe.transformer.enable_lora()
    pipe.fuse_lora()
    fused = pytest.raises(ValueError, match="carries a fused LoRA: call pipe.unload_lora_weights")
    with fused, adapter.on(pipe, allow_other_base=True):
        pass
    transformer = fresh_transformer()
    transformer.fuse_qkv_projections()
    with (
        pytest.raises(ValueError, match="has fused projections: call transformer.unfuse_qkv_projections"),
        adapter.on(transformer, allow_other_base=True),
    ):
        pass


def test_detaching_out_of_order_is_refused(adapter, other):
    transformer = fresh_transformer()
    first, second = adapter.on(transformer, policy=None), other.on(transformer)
    first.__enter__()
    second.__enter__()
    with pytest.raises(ValueError, match="was added later and is still attached"):
        first.__exit__(None, None, None)


# The base


def changed_base():
    transformer = fresh_transformer()
    transformer.proj_out.weight.data += 0.01
    return transformer


def wider_base():
    config = {**fresh_transformer().config, "num_attention_heads": 4}
    torch.manual_seed(0)
    return type(fresh_transformer()).from_config(config)


def shallower_base():
    return type(fresh_transformer()).from_config({**fresh_transformer().config, "num_layers": 1})


@pytest.mark.parametrize("spec", [Minor(rank=4), Full()], ids=name_of)
def test_other_weights_are_refused_unless_allowed(spec, tmp_path):
    adapter, transformer = trained_adapter(spec), changed_base()
    before = snapshot(transformer)
    with (
        pytest.raises(WrongBase, match="but the weights of this model are") as caught,
        adapter.on(transformer),
    ):
        pass
    assert "allow_other_base=True" in str(caught.value)
    assert snapshot(transformer) == before
    path = adapter.save(tmp_path / "adapter.safetensors")
    with pytest.raises(WrongBase):
        Adapter.load(path, base=transformer)
    with Adapter.load(path, base=transformer, allow_other_base=True).on(transformer, allow_other_base=True):
        output(transformer)


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("spec", [Minor(rank=4), Full()], ids=name_of)
@pytest.mark.parametrize(
    ("make", "message"), [(wider_base, "but in this model it is"), (shallower_base, "does not have")]
)
def test_other_shapes_are_always_refused(spec, make, message, allow):
    adapter, transformer = trained_adapter(spec), make()
    before = snapshot(transformer)
    with pytest.raises(WrongBase, match=message), adapter.on(transformer, allow_other_base=allow):
        pass
    assert snapshot(transformer) == before


def test_a_foreign_file_is_checked_for_shapes_alone():
    adapter = Adapter.load(GOLDEN / "urae_2k_adapter.safetensors")
    with adapter.on(changed_base()):
        pass
    with pytest.raises(WrongBase, match="expects 'single_transformer_blocks.0.attn.to_k' to be 32 x 32"):
        adapter.check(wider_base())


def test_the_base_is_the_same_in_any_dtype_and_with_adapters(adapter):
    base = base_of(fresh_transformer())
    assert base_of(fresh_transformer(torch.bfloat16)) == base
    transformer = fresh_transformer()
    with adapter.on(transformer):
        assert base_of(transformer) == base
    assert base_of(changed_base()).weights != base.weights
    assert adapter.base == base


@pytest.mark.parametrize(
    ("path", "name", "revision"),
    [
        ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-dev", ""),
        (
            "/cache/hub/models--black-forest-labs--FLUX.1-dev/snapshots/3de623fc/transformer",
            "black-forest-labs/FLUX.1-dev",
            "3de623fc",
        ),
        ("/somewhere/my-flux/transformer", "my-flux", ""),
        ("/site-packages/urae/mini/weights/transformer", "mini", ""),
    ],
)
def test_the_base_has_a_name_but_no_place(path, name, revision):
    transformer = fresh_transformer()
    transformer.register_to_config(_name_or_path=path)
    base = base_of(transformer)
    assert (base.name, base.revision) == (name, revision)
    assert base.config == base_of(fresh_transformer()).config


def test_offloaded_models(adapter, other):
    transformer = fresh_transformer()
    with adapter.on(transformer):
        expected = output(transformer)
    plain = output(transformer)
    transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    with adapter.on(transformer):
        assert torch.equal(output(transformer), expected)
    assert torch.equal(output(transformer), plain)


def test_a_model_without_its_weights_is_refused(adapter):
    meta = fresh_transformer().to("meta")
    for each in (adapter, Adapter.load(GOLDEN / "urae_2k_adapter.safetensors")):
        with pytest.raises(ValueError, match="before enable_sequential_cpu_offload"), each.on(meta):
            pass


def test_a_failure_inside_peft_leaves_nothing_behind(adapter):
    transformer = fresh_transformer()
    before, prediction = snapshot(transformer), output(transformer)
    with pytest.raises(ValueError, match="Unknown initialization"):
        inject(transformer, adapter.factors, init="nonsense")
    assert snapshot(transformer) == before
    assert torch.equal(output(transformer), prediction)


@pytest.mark.thorough
def test_a_compiled_wrapper_is_looked_through(adapter):
    transformer = fresh_transformer()
    with adapter.on(transformer):
        expected = output(transformer)
    compiled = torch.compile(transformer, backend="eager")
    with adapter.on(compiled):
        torch.testing.assert_close(output(compiled), expected)
