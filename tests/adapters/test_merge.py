import math
from dataclasses import replace

import pytest
import torch
from tiny_flux import fresh_transformer, output, trained_adapter

from urae.adapters import Adapter, Full, Lora, Minor, merge, truncate
from urae.adapters.factors import product_norm
from urae.errors import WrongBase
from urae.resolution import ResolutionPolicy

POLICY = ResolutionPolicy(rope_scale=10, native_tokens=71)


@pytest.fixture(scope="module")
def one():
    return trained_adapter(Minor(rank=4), policy=POLICY, recipe={"name": "one"})


@pytest.fixture(scope="module")
def two():
    return trained_adapter(Lora(rank=3, targets=("attn.to_q", "proj_out")), seed=1, policy=POLICY)


def product(adapter, name):
    A, B = adapter.factors.get(name, (torch.zeros(1, 1), torch.zeros(1, 1)))
    return B @ A


def test_merging_is_the_weighted_sum_of_the_updates(one, two):
    with pytest.warns(UserWarning, match=r"the merged adapter has rank 11, its parts up to 8"):
        merged = merge([one, two], weights=[0.5, -2.0])
    assert merged.factors.keys() == one.factors.keys() | two.factors.keys()
    for name in merged.factors:
        torch.testing.assert_close(product(merged, name), 0.5 * product(one, name) - 2.0 * product(two, name))
    assert merged.policy == POLICY
    assert merged.base == one.base
    assert [part["hash"] for part in merged.recipe["merged"]] == [one.hash, two.hash]


def test_merged_output_is_that_of_both_adapters(one, two, tmp_path):
    transformer = fresh_transformer()
    with one.on(transformer), two.on(transformer):
        expected = output(transformer)
    with pytest.warns(UserWarning, match="rank 11"):
        path = merge([one, two]).save(tmp_path / "merged.safetensors")
    with Adapter.load(path, base=transformer).on(transformer):
        torch.testing.assert_close(output(transformer), expected, atol=1e-5, rtol=0)


def test_adapters_of_different_modules_merge_without_a_warning():
    parts = [trained_adapter(Lora(rank=4, targets=(target,))) for target in ("attn.to_q", "attn.to_k")]
    merged = merge(parts)
    assert {A.shape[0] for A, _ in merged.factors.values()} == {4}


def test_full_adapters_merge_by_sum():
    one, two = (trained_adapter(Full(targets=(target,))) for target in ("proj_out", "re:proj_out"))
    merged = merge([one, two], weights=[1.0, 2.0])
    torch.testing.assert_close(
        merged.differences["proj_out.weight"],
        one.differences["proj_out.weight"] + 2 * two.differences["proj_out.weight"],
    )
    assert merged.differences.keys() == one.differences.keys()


def test_low_rank_and_full_adapters_add_up(one, tmp_path):
    full = trained_adapter(Full(targets=("proj_out",)), policy=one.policy)
    merged = merge([one, full], weights=[1.0, 0.5])
    assert Adapter.load(merged.save(tmp_path / "both.safetensors")).hash == merged.hash
    transformer = fresh_transformer()
    with full.on(transformer), one.on(transformer, allow_other_base=True):
        added = output(transformer)
    with merge([full, one]).on(transformer):
        torch.testing.assert_close(output(transformer), added, atol=1e-6, rtol=0)


def test_policies_that_differ_need_one_named(one, two):
    other = replace(two, policy=replace(POLICY, shift=6.0))
    with pytest.raises(ValueError, match=r"different policies .*name the one to keep with policy="):
        merge([one, other])
    with pytest.raises(ValueError, match="different policies"):
        merge([one, replace(two, policy=None)])
    with pytest.warns(UserWarning, match="rank"):
        assert merge([one, other], policy=POLICY).policy == POLICY
    with pytest.warns(UserWarning, match="rank"):
        assert merge([one, other], policy=None).policy is None


def test_bases_that_differ_are_refused_unless_allowed(one, two):
    other = replace(two, base=replace(two.base, weights="0" * 64))
    with pytest.raises(WrongBase, match="made for different bases"):
        merge([one, other])
    with pytest.warns(UserWarning, match="rank"):
        merge([one, other], allow_other_base=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda one, two: ([one],), "1 adapter given: expected two or more"),
        (lambda one, two: ([one, two], [1.0]), "1 weights for 2 adapters"),
        (lambda one, two: ([one, two], [1.0, float("inf")]), "the weights are 1.0, inf: expected finite"),
    ],
)
def test_what_does_not_merge(one, two, arguments, message):
    adapters, *weights = arguments(one, two)
    with pytest.raises(ValueError, match=message):
        merge(adapters, weights=weights[0] if weights else ())


def test_truncation_is_the_best_approximation_and_says_its_error(one):
    result = truncate(one, rank=3)
    squares = total = 0.0
    for name in one.factors:
        dense = product(one, name).double()
        U, S, Vh = torch.linalg.svd(dense)
        torch.testing.assert_close(
            product(result.adapter, name).double(), (U[:, :3] * S[:3]) @ Vh[:3], atol=1e-5, rtol=0
        )
        squares += float((S[3:] ** 2).sum())
        total += float(dense.square().sum())
    assert result.error == pytest.approx(math.sqrt(squares / total), rel=1e-3)
    assert result.error < result.worst[1] < 1
    assert {A.shape[0] for A, _ in result.adapter.factors.values()} == {3}


def test_truncation_of_what_is_low_rank_already(two):
    result = truncate(two, rank=3)
    assert result.error == 0
    assert all(torch.equal(result.adapter.factors[name][0], two.factors[name][0]) for name in two.factors)


def test_what_cannot_be_truncated(one):
    with pytest.raises(ValueError, match="rank is 0: expected 1 or more"):
        truncate(one, rank=0)
    with pytest.raises(ValueError, match="a full adapter has no rank"):
        truncate(trained_adapter(Full(targets=("proj_out",))), rank=2)


def test_norm_of_a_product():
    A, B = torch.randn(3, 8), torch.randn(5, 3)
    assert product_norm((A, B)) == pytest.approx(float((B @ A).norm()), rel=1e-5)
