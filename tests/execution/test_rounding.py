import pytest
import torch
from torch import nn
from torch.nn import functional

from urae.adapters import Lora, Minor, attach
from urae.adapters.base import base_of
from urae.adapters.targets import linear_layers
from urae.errors import WrongBase
from urae.execution import quantised
from urae.execution.rounding import QuantisedLinear, check_can_multiply, quantised_bytes, stored_as

FORMATS = ("fp8", "fp8_dynamic", "int8", "nf4")


def inputs(requires_grad: bool = False) -> dict[str, torch.Tensor]:
    """Of the tiny transformer."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 16, 64, generator=generator, requires_grad=requires_grad)
    return {
        "hidden_states": hidden,
        "encoder_hidden_states": torch.randn(2, 7, 32, generator=generator),
        "pooled_projections": torch.randn(2, 24, generator=generator),
        "timestep": torch.tensor([0.3, 0.8]),
        "guidance": torch.ones(2),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(7, 3),
    }


def dense(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(*(shape or (256, 128)), dtype=dtype)
    nn.init.normal_(layer.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    return layer.requires_grad_(False)


def kept(kind: str) -> list[torch.Tensor]:
    """What autograd keeps of a quantised layer."""
    found = []
    layer, seen = QuantisedLinear(dense(), kind), torch.randn(3, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: found.append(tensor) or tensor, lambda t: t):
        layer(seen)
    return found


# --- one layer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("fp8", 0.02, 0.03), ("int8", 0.004, 0.007), ("nf4", 0.08, 0.1)]
)
def test_gaussian_weights_are_off_by_as_much_as_the_format_allows(kind, least, most):
    layer = dense()
    error = (QuantisedLinear(layer, kind).weight - layer.weight).norm() / layer.weight.norm()
    assert least < error < most


@pytest.mark.parametrize(("kind", "worst"), [("fp8", 1 / 16), ("int8", 0.51 / 127), ("nf4", 0.153)])
def test_no_weight_is_off_by_more_than_half_a_step(kind, worst):
    """fp8: relative to the weight, where it is no subnormal; the others: relative to the largest of the 64."""
    weight = dense().weight
    found = QuantisedLinear(dense(), kind).weight
    if kind == "fp8":
        allowed = worst * weight.abs() + 2**-10 / 448 * weight.abs().amax(dim=1, keepdim=True)
    else:
        allowed = worst * weight.view(-1, 64).abs().amax(dim=1).repeat_interleave(64).view_as(weight)
    assert ((found - weight).abs() <= 1.01 * allowed).all()


def test_nf4_has_the_levels_of_qlora():
    """As printed in the paper's Appendix E, to the digits that a bf16 scale leaves."""
    levels = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
    levels += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    layer = nn.Linear(64, 1)
    layer.weight.data = torch.tensor(levels * 4)[None]
    torch.testing.assert_close(QuantisedLinear(layer, "nf4").weight, layer.weight.data, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_rounded_once_stays(kind):
    layer = dense()
    layer.weight.data = QuantisedLinear(layer, kind).weight
    assert torch.equal(QuantisedLinear(layer, kind).weight, layer.weight)


@pytest.mark.parametrize("kind", FORMATS)
def test_extreme_blocks_stay_finite(kind):
    layer = dense()
    layer.weight.data[0] = 0
    layer.weight.data[1] = 1e-30
    layer.weight.data[2, 0] = 1e30
    found = QuantisedLinear(layer, kind).weight
    assert found.isfinite().all()
    assert torch.equal(found[0], layer.weight[0])
    torch.testing.assert_close(found[1:3, 0], layer.weight[1:3, 0], rtol=0.01, atol=0)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradient_are_those_of_the_rounded_dense_layer(kind, bias):
    layer = dense() if bias else nn.Linear(256, 128, bias=False)
    small = QuantisedLinear(layer, kind)
    seen = [
        torch.randn(5, 256, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)
    ]
    found, expected = small(seen[0]), functional.linear(seen[1], small.weight, layer.bias)
    torch.testing.assert_close(found, expected)
    for output in (found, expected):
        output.square().sum().backward()
    torch.testing.assert_close(seen[0].grad, seen[1].grad, atol=1e-5, rtol=1e-5)
    assert seen[0].grad.abs().max() > 0


@pytest.mark.parametrize("kind", FORMATS)
def test_autograd_keeps_no_matrix(kind):
    assert kept(kind) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_autocast_decides_the_type(kind):
    layer = QuantisedLinear(dense(), kind)
    seen = torch.randn(5, 256, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(seen)
    found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    assert seen.grad.dtype == torch.float32
    torch.testing.assert_close(found.float(), layer(seen), atol=0.02, rtol=0.02)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_into_one_graph_it_gives_the_same(kind, backend):
    layer = QuantisedLinear(dense(), kind)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    seen = [
        torch.randn(5, 256, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)
    ]
    for run, each in zip((layer, compiled), seen, strict=True):
        run(each).square().sum().backward()
    torch.testing.assert_close(seen[0].grad, seen[1].grad, atol=1e-5, rtol=1e-4)


def in_e4m3(rows: torch.Tensor) -> torch.Tensor:
    """Each row rounded against a scale that makes its largest magnitude 448."""
    scale = rows.abs().amax(dim=-1, keepdim=True) / 448
    return (rows / scale).to(torch.float8_e4m3fn).to(rows.dtype) * scale


def test_tokens_are_multiplied_in_fp8_with_a_scale_each():
    layer = dense()
    small = QuantisedLinear(layer, "fp8_dynamic")
    tokens = torch.randn(2, 5, 256, generator=torch.Generator().manual_seed(1))
    tokens[0, 0] *= 1e4  # harms no other token
    found = small(tokens)
    expected = functional.linear(in_e4m3(tokens), small.weight, layer.bias)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-8)
    exact = functional.linear(tokens, small.weight, layer.bias)
    error = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert ((error > 0.005) & (error < 0.05)).all()


def test_gradients_of_tokens_are_multiplied_in_fp8_too():
    """The scales of the matrix's rows go to the gradient before it is rounded."""
    small = QuantisedLinear(dense(), "fp8_dynamic")
    tokens = torch.randn(2, 5, 256, requires_grad=True)
    gradient = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(1))
    small(tokens).backward(gradient)
    scales = small.scales.float().t()
    expected = in_e4m3(gradient * scales) @ (small.weight / small.scales.float())
    torch.testing.assert_close(tokens.grad, expected, rtol=2**-7, atol=2**-8 * expected.abs().max().item())
    exact = gradient @ small.weight
    assert 0.005 < (tokens.grad - exact).norm() / exact.norm() < 0.05


def test_what_modulates_a_sample_is_not_rounded():
    layer = dense()
    small, same = QuantisedLinear(layer, "fp8_dynamic"), QuantisedLinear(layer, "fp8")
    one = torch.randn(2, 256)
    assert torch.equal(small(one), same(one))


def test_a_token_of_zeros_stays_zero():
    layer = nn.Linear(256, 128, bias=False)
    assert not QuantisedLinear(layer, "fp8_dynamic")(torch.zeros(1, 3, 256)).any()


def test_a_cast_of_the_model_leaves_the_values():
    layer = QuantisedLinear(dense(dtype=torch.bfloat16), "fp8")
    before = layer.restored(torch.float32)
    layer.to(torch.float32)
    assert torch.equal(layer.restored(torch.float32), before)
    assert layer.values.dtype == torch.uint8


# --- a transformer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_matrices_of_the_blocks_are_quantised_and_no_others(transformer, kind):
    with quantised(transformer, kind):
        small = {
            name for name, layer in linear_layers(transformer).items() if isinstance(layer, QuantisedLinear)
        }
    rest = linear_layers(transformer).keys() - small
    assert {name.split(".")[0] for name in small} == {"transformer_blocks", "single_transformer_blocks"}
    assert {name.split(".")[0] for name in rest} == {
        "time_text_embed",
        "context_embedder",
        "x_embedder",
        "norm_out",
        "proj_out",
    }
    assert "transformer_blocks.0.norm1.linear" in small


@pytest.mark.parametrize("kind", FORMATS)
def test_the_transformer_computes_with_the_rounded_weights_and_is_as_before(transformer, kind):
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    modules, plain = dict(transformer.named_modules()), transformer(**inputs()).sample
    with quantised(transformer, kind):
        found = transformer(**inputs()).sample
        rounded = {
            name: layer.weight
            for name, layer in linear_layers(transformer).items()
            if type(layer) is not nn.Linear
        }
    assert dict(transformer.named_modules()) == modules
    assert all(torch.equal(value, before[name]) for name, value in transformer.state_dict().items())
    assert torch.equal(transformer(**inputs()).sample, plain)
    for name, weight in rounded.items():
        transformer.get_submodule(name).weight.data = weight
    expected = transformer(**inputs()).sample
    if kind == "fp8_dynamic":  # rounds the tokens too
        assert 0.001 < (found - expected).norm() / expected.norm() < 0.05
    else:
        torch.testing.assert_close(found, expected)
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_are_as_said(transformer, kind):
    said = quantised_bytes(transformer, kind)
    with quantised(transformer, kind):
        there = sum(tensor.nbytes for tensor in (*transformer.parameters(), *transformer.buffers()))
    assert said == there


def test_it_ends_where_the_block_raises(transformer):
    with pytest.raises(KeyError), quantised(transformer, "int8"):
        raise KeyError
    assert not any(isinstance(module, QuantisedLinear) for module in transformer.modules())


@pytest.mark.parametrize("kind", FORMATS)
def test_an_adapter_goes_on_top(transformer, kind):
    attached = attach(transformer, Lora(rank=2))
    for parameter in attached.parameters():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    adapter = attached.export()
    with quantised(transformer, kind):
        attached_before = transformer(**inputs()).sample
    attached.detach()
    with quantised(transformer, kind), adapter.on(transformer):
        attached_after = transformer(**inputs()).sample
    with quantised(transformer, kind):
        without = transformer(**inputs()).sample
    torch.testing.assert_close(attached_before, attached_after)
    assert (without - attached_after).abs().max() > 1e-3
    assert type(transformer.transformer_blocks[0].attn.to_q) is nn.Linear


def test_what_names_the_base_are_the_unrounded_weights(transformer):
    base = base_of(transformer)
    attached = attach(transformer, Minor(rank=2))
    with quantised(transformer, "nf4"):
        assert base_of(transformer) == base
        adapter = attached.export()
    attached.detach()
    assert adapter.base == base
    adapter.check(transformer)


def test_an_adapter_of_other_weights_is_refused_on_a_rounded_base_too(transformer):
    attached = attach(transformer, Lora(rank=2))
    adapter = attached.export()
    attached.detach()
    weight = transformer.transformer_blocks[0].attn.to_q.weight
    weight.data *= 2
    with quantised(transformer, "fp8"), pytest.raises(WrongBase, match="the weights of this model are"):
        adapter.check(transformer)
    weight.data /= 2
    with quantised(transformer, "fp8"):
        adapter.check(transformer)


def test_a_transformer_says_how_its_matrices_are_stored(transformer):
    assert stored_as(transformer) == "as_loaded"
    with quantised(transformer, "int8"):
        attached = attach(transformer, Lora(rank=2))
        assert stored_as(transformer) == "int8"
        attached.detach()
    assert stored_as(transformer) == "as_loaded"


def test_an_unknown_format_is_refused(transformer):
    with (
        pytest.raises(ValueError, match="stored as 'int4': expected one of fp8, fp8_dynamic, int8, nf4"),
        quantised(transformer, "int4"),
    ):
        pass


def test_quantising_twice_is_refused(transformer):
    with (
        quantised(transformer, "fp8"),
        pytest.raises(
            ValueError, match="norm1.linear is a QuantisedLinear .* load the model without quantisation"
        ),
        quantised(transformer, "fp8"),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "sides", "said"),
    [
        ("nf4", (33, 31), "attn.to_q is 31 x 33, which nf4 cannot store .* of 64 weights: choose fp8"),
        ("fp8_dynamic", (64, 40), "to_q is 40 x 64, which fp8_dynamic cannot multiply .* of 16: choose fp8"),
    ],
)
def test_sides_that_do_not_suit_a_format_are_refused(transformer, kind, sides, said):
    transformer.transformer_blocks[0].attn.to_q = nn.Linear(*sides)
    with pytest.raises(ValueError, match=said), quantised(transformer, kind):
        pass
    with quantised(transformer, "fp8"):
        assert isinstance(transformer.transformer_blocks[0].attn.to_q, QuantisedLinear)


def test_a_gpu_that_does_not_multiply_in_fp8_is_refused(transformer, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with (
        pytest.raises(ValueError, match=r"capability 8.9 or above; this one has 8.6: choose fp8"),
        quantised(transformer, "fp8_dynamic", device="cuda"),
    ):
        pass
    assert stored_as(transformer) == "as_loaded"


def test_a_device_that_has_no_such_product_is_refused():
    with pytest.raises(ValueError, match=r"on CUDA GPUs and on CPUs, not on mps: choose fp8$"):
        check_can_multiply("fp8_dynamic", torch.device("mps"))
    for kind in set(FORMATS) - {"fp8_dynamic"}:  # restored before they are multiplied, so anything can
        check_can_multiply(kind, torch.device("mps"))


def test_weights_that_are_elsewhere_are_refused(transformer):
    transformer.to("meta")
    with (
        pytest.raises(
            ValueError, match=r"has no weights yet: quantise before enable_sequential_cpu_offload\(\)"
        ),
        quantised(transformer, "fp8"),
    ):
        pass


def test_a_model_without_blocks_is_refused():
    with (
        pytest.raises(ValueError, match="Linear does not say which of its parts are blocks"),
        quantised(nn.Linear(64, 64), "fp8"),
    ):
        pass
