"""What `attach` promises: identity at the start, an untouched base, exact arithmetic, a trackless end."""

import pytest
import torch
from peft import LoraConfig
from tiny_flux import (
    LOW_RANK,
    SPECS,
    TARGETS,
    fresh_transformer,
    name_of,
    output,
    predict,
    train,
    trained_adapter,
)

from urae.adapters import Full, Lora, Major, Mica, Minor, attach, decompose

every_spec = pytest.mark.parametrize("spec", SPECS, ids=name_of)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def snapshot(transformer):
    return {
        "modules": [(name, id(module), type(module)) for name, module in transformer.named_modules()],
        "parameters": [(name, id(parameter)) for name, parameter in transformer.named_parameters()],
        "flags": [parameter.requires_grad for parameter in transformer.parameters()],
        "attributes": sorted(transformer.__dict__),
        "hooks": [
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in transformer.modules()
        ],
    }


@every_spec
@every_dtype
def test_identity_at_the_start(spec, dtype):
    transformer = fresh_transformer(dtype)
    before = output(transformer, dtype)
    attach(transformer, spec)
    assert torch.equal(output(transformer, dtype), before)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # stock norms of an fp32 base
@every_spec
@every_dtype
def test_identity_under_autocast(spec, dtype):
    transformer = fresh_transformer(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        before = output(transformer, dtype)
        attach(transformer, spec)
        assert torch.equal(output(transformer, dtype), before)


@every_spec
@every_dtype
def test_only_the_adapter_learns(spec, dtype):
    transformer = fresh_transformer(dtype)
    weights = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    attached = attach(transformer, spec)
    own = {id(parameter) for parameter in attached.parameters()}
    assert all(parameter.dtype == torch.float32 for parameter in attached.parameters())
    predict(transformer, dtype).float().square().mean().backward()
    learning = {id(p) for p in transformer.parameters() if p.grad is not None}
    assert learning == own == {id(p) for p in transformer.parameters() if p.requires_grad}
    train(attached, dtype=dtype)
    attached.detach()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in transformer.state_dict().items())


@every_spec
@every_dtype
def test_detach_leaves_no_trace(spec, dtype):
    transformer = fresh_transformer(dtype)
    transformer.proj_out.requires_grad_(False)
    before, prediction = snapshot(transformer), output(transformer, dtype)
    attached = attach(transformer, spec)
    train(attached, dtype=dtype)
    assert not torch.equal(output(transformer, dtype), prediction)
    attached.detach()
    assert snapshot(transformer) == before
    assert torch.equal(output(transformer, dtype), prediction)


@every_spec
def test_the_base_keeps_its_dtype(spec):
    transformer = fresh_transformer(torch.bfloat16)
    attached = attach(transformer, spec)
    assert transformer.dtype == torch.bfloat16
    attached.detach()
    assert transformer.dtype == torch.bfloat16


@pytest.mark.parametrize("spec", [Minor(rank=4), Major(rank=4)], ids=name_of)
def test_difference_form_equals_the_dense_model(spec):
    """Y = X W + X (A B - A0 B0), computed with dense weights."""
    transformer = fresh_transformer()
    attached = attach(transformer, spec)
    train(attached, steps=3, lr=10.0)
    prediction, state = output(transformer), attached.state_dict()
    attached.detach()
    with torch.no_grad():
        for name in TARGETS:
            A, B, A0, B0 = (state[f"{name}.{factor}"].double() for factor in ("A", "B", "A0", "B0"))
            weight = transformer.get_submodule(name).weight
            weight.copy_(weight.double() + B @ A - B0 @ A0)
    torch.testing.assert_close(prediction, output(transformer), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("spec", "kind"), [(Minor(rank=4), "smallest"), (Major(rank=4), "largest")])
def test_starting_factors_are_the_triplets_shared_evenly(spec, kind):
    transformer = fresh_transformer()
    state = attach(transformer, spec).state_dict()
    for name in TARGETS:
        A, B = state[f"{name}.A"], state[f"{name}.B"]
        assert torch.equal(A, state[f"{name}.A0"])
        assert torch.equal(B, state[f"{name}.B0"])
        S = decompose(transformer.get_submodule(name).weight, rank=4, kind=kind).S.float()
        torch.testing.assert_close(A @ A.mT, torch.diag(S), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(B.mT @ B, torch.diag(S), atol=1e-5, rtol=1e-4)


def test_differences_below_bf16_resolution_survive_autocast():
    """Two bf16 branches would round the difference of A and A0 away; here 1e-4 of A must act to 1%."""
    predictions = {}
    for scale in (0.0, 1e-4):
        transformer = fresh_transformer()
        attached = attach(transformer, Major(rank=4, targets=("single_transformer_blocks.2.attn.to_v",)))
        module = transformer.get_submodule("single_transformer_blocks.2.attn.to_v")
        (A,) = (p for name, p in attached.named_parameters().items() if name.endswith(".A"))
        with torch.no_grad():
            A.mul_(1 + scale)
        x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            predictions[scale] = module.lora_B["urae_0"](module.lora_A["urae_0"](x)).float()
    state = attached.state_dict()
    name = "single_transformer_blocks.2.attn.to_v"
    A0, B0 = state[f"{name}.A0"], state[f"{name}.B0"]
    exact = 1e-4 * x @ A0.mT @ B0.mT
    assert predictions[0.0].abs().max() == 0
    assert (predictions[1e-4] - exact).norm() < 0.02 * exact.norm()


def test_lora_starts_as_the_reference_does():
    torch.manual_seed(0)
    state = attach(fresh_transformer(), Lora(rank=8)).state_dict()
    A = torch.cat([tensor.flatten() for name, tensor in state.items() if name.endswith(".A")])
    assert abs(float(A.std()) - 1 / 8) < 0.01
    assert all(not tensor.any() for name, tensor in state.items() if name.endswith(".B"))
    torch.manual_seed(0)
    again = attach(fresh_transformer(), Lora(rank=8)).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_alpha_scales_the_update():
    torch.manual_seed(0)
    plain, scaled = fresh_transformer(), fresh_transformer()
    one, half = attach(plain, Lora(rank=4)), attach(scaled, Lora(rank=4, alpha=2))
    train(one, steps=2)
    state = one.state_dict()
    half.load_state_dict({n: t * 2 if n.endswith(".B") else t for n, t in state.items()})
    torch.testing.assert_close(output(scaled), output(plain))
    for name, (A, B) in half.export().factors.items():
        torch.testing.assert_close(B @ A, state[f"{name}.B"] @ state[f"{name}.A"])


def test_mica_is_pefts():
    torch.manual_seed(0)
    transformer, stock = fresh_transformer(), fresh_transformer()
    attached = attach(transformer, Mica(rank=4))
    stock.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(TARGETS), init_lora_weights="mica"))
    state = attached.state_dict()
    for name in TARGETS:
        theirs = stock.get_submodule(name).lora_B["default"].weight
        aligned = (theirs.mT @ state[f"{name}.B"]).detach().abs()
        torch.testing.assert_close(aligned, torch.eye(4), atol=1e-3, rtol=0)
        assert transformer.get_submodule(name).frozen_peft_weight_names == {"urae_0": ("lora_B",)}
    train(attached, steps=2)
    assert all(torch.equal(state[f"{name}.B"], attached.state_dict()[f"{name}.B"]) for name in TARGETS)


@every_spec
def test_state_dict_restores_the_exact_state(spec):
    torch.manual_seed(0)
    attached = attach(fresh_transformer(), spec)
    train(attached, steps=2)
    saved = {name: tensor.clone() for name, tensor in attached.state_dict().items()}
    expected = output(attached.transformer)
    torch.manual_seed(1)
    other = attach(fresh_transformer(), spec)
    if isinstance(spec, Minor | Major):  # as if decomposed on another machine
        other.load_state_dict({name: tensor + 1 for name, tensor in saved.items()})
    other.load_state_dict(saved)
    assert torch.equal(output(other.transformer), expected)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in other.state_dict().items())


def test_a_foreign_state_changes_nothing():
    attached = attach(fresh_transformer(), Minor(rank=4))
    before = {name: tensor.clone() for name, tensor in attached.state_dict().items()}
    for wrong in (Minor(rank=3), Lora(rank=4), Minor(rank=4, targets=("attn.to_q",))):
        with pytest.raises(ValueError, match="does not belong to this adapter"):
            attached.load_state_dict(attach(fresh_transformer(), wrong).state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in attached.state_dict().items())


@every_spec
def test_on_top_of_a_start(spec):
    """Identity to the started model, triplets of the effective weight, a self-contained export."""
    start = trained_adapter(Lora(rank=3))
    transformer = fresh_transformer()
    untouched = output(transformer)
    with start.on(transformer):
        started = output(transformer)
    attached = attach(transformer, spec, start=start)
    torch.testing.assert_close(output(transformer), started, atol=1e-5, rtol=0)
    train(attached, steps=2)
    trained, adapter = output(transformer), attached.export()
    assert (trained - started).abs().max() > 1e-4
    attached.detach()
    assert torch.equal(output(transformer), untouched)
    with adapter.on(transformer):
        torch.testing.assert_close(output(transformer), trained, atol=1e-5, rtol=0)
    assert adapter.start == start.hash


@pytest.mark.parametrize(
    ("spec", "rank"), [(Lora(rank=4), 7), (Minor(rank=4), 11), (Major(rank=4), 11), (Mica(rank=4), 7)]
)
def test_export_rank_with_a_start(spec, rank):
    start = trained_adapter(Lora(rank=3, targets=("attn.to_q", "proj_mlp")))
    adapter = attach(fresh_transformer(), spec, start=start).export()
    ranks = {name: A.shape[0] for name, (A, _) in adapter.factors.items()}
    assert ranks["single_transformer_blocks.0.attn.to_q"] == rank
    assert ranks["single_transformer_blocks.0.attn.to_v"] == rank - 3
    assert ranks["single_transformer_blocks.0.proj_mlp"] == 3


def test_minor_triplets_are_those_of_the_effective_weight():
    start = trained_adapter(Lora(rank=3))
    transformer = fresh_transformer()
    state = attach(transformer, Minor(rank=4), start=start).state_dict()
    for name in TARGETS:
        A, B = start.factors[name]
        weight = transformer.get_submodule(name).weight.detach() + B @ A
        _, S, Vh = torch.linalg.svd(weight.double())
        minor = state[f"{name}.B0"].double() @ state[f"{name}.A0"].double()
        torch.testing.assert_close(minor, weight.double() @ Vh[-4:].mT @ Vh[-4:], atol=1e-6, rtol=0)


def test_full_keeps_changes_too_small_for_bf16():
    transformer = fresh_transformer(torch.bfloat16)
    attached = attach(transformer, Full(targets=("proj_out",)))
    for parameter in attached.parameters():
        parameter.data.add_(1e-6)
    differences = attached.export().differences
    assert all((difference == 1e-6).all() for difference in differences.values())


def test_gradients_agree_with_checkpointing():
    gradients = []
    for checkpointing in (False, True):
        transformer = fresh_transformer()
        attached = attach(transformer, Minor(rank=4))
        if checkpointing:
            transformer.enable_gradient_checkpointing()
            transformer.train()
        predict(transformer).square().mean().backward()
        gradients.append([parameter.grad for parameter in attached.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_injection_draws_no_random_numbers():
    for spec in (Minor(rank=4), Mica(rank=4), Full()):
        torch.manual_seed(0)
        attach(fresh_transformer(), spec)
        drawn = torch.rand(1)
        torch.manual_seed(0)
        fresh_transformer()
        assert torch.equal(torch.rand(1), drawn)


def test_targets_by_pattern():
    attached = attach(
        fresh_transformer(), Lora(rank=2, targets=("re:single_transformer_blocks.*to_q", "x_embedder"))
    )
    names = {name.rsplit(".", 1)[0] for name in attached.named_parameters()}
    assert names == {"x_embedder", *(f"single_transformer_blocks.{index}.attn.to_q" for index in range(3))}


def test_a_target_is_not_mistaken_for_a_longer_name():
    """peft alone would read "proj_out" as every module that ends so."""
    attached = attach(fresh_transformer(), Minor(rank=2, targets=(r"re:proj_out",)))
    assert list(attached.named_parameters()) == ["proj_out.A", "proj_out.B"]


@pytest.mark.parametrize("spec", LOW_RANK, ids=name_of)
def test_a_transformer_that_carries_an_adapter_is_refused(spec):
    transformer = fresh_transformer()
    attach(transformer, spec)
    for second in (Lora(rank=2), Full()):
        with pytest.raises(ValueError, match=r"already carries an adapter: detach or unload it first"):
            attach(transformer, second)


def test_full_then_another_is_refused():
    transformer = fresh_transformer()
    attach(transformer, Full())
    with pytest.raises(ValueError, match="already carries an adapter"):
        attach(transformer, Lora())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            Minor(rank=33),
            r"rank 33 is impossible for transformer_blocks.0.attn.to_q, which has 32 singular values",
        ),
        (Lora(targets=("attn.to_x",)), "target 'attn.to_x' matches no layer"),
        (Full(targets=("nothing",)), "target 'nothing' matches no layer"),
    ],
)
def test_impossible_specs_leave_the_transformer_alone(spec, message):
    transformer = fresh_transformer()
    before = snapshot(transformer)
    with pytest.raises(ValueError, match=message):
        attach(transformer, spec)
    assert snapshot(transformer) == before


def test_zero_minor_components_cannot_learn():
    transformer = fresh_transformer()
    transformer.transformer_blocks[0].attn.to_q.weight.data[:4] = 0
    with pytest.raises(
        ValueError, match=r"4 smallest singular values of transformer_blocks.0.attn.to_q are zero"
    ):
        attach(transformer, Minor(rank=4))


def test_a_full_start_is_refused():
    start = trained_adapter(Full(targets=("proj_out",)))
    with pytest.raises(ValueError, match="start is a full adapter"):
        attach(fresh_transformer(), Minor(rank=4), start=start)


def test_full_must_cover_its_start():
    with pytest.raises(
        ValueError, match=r"start changes 'transformer_blocks.0.attn.to_q.weight'.*add it to the targets"
    ):
        attach(fresh_transformer(), Full(targets=("proj_out",)), start=trained_adapter(Lora(rank=2)))
