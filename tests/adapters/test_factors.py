import torch
from tiny_flux import TARGETS, fresh_transformer, train

from urae.adapters import Major, Minor, attach
from urae.adapters.factors import difference, stacked, truncated


def pairs(spec, lr):
    """(A, B), (A0, B0) per target after two steps."""
    attached = attach(fresh_transformer(), spec)
    train(attached, steps=2, lr=lr)
    state = attached.state_dict()
    factors = [tuple(state[f"{name}.{factor}"] for factor in ("A", "B", "A0", "B0")) for name in TARGETS]
    return [((A, B), (A0, B0)) for A, B, A0, B0 in factors]


def test_difference_is_exact_and_of_rank_2r():
    for trained, start in pairs(Minor(rank=4), lr=10.0):
        A, B = difference(trained, start)
        exact = trained[1].double() @ trained[0].double() - start[1].double() @ start[0].double()
        assert A.shape[0] == B.shape[1] == 8
        torch.testing.assert_close(B.double() @ A.double(), exact, atol=1e-7, rtol=0)


def test_difference_survives_bf16_where_stacking_does_not():
    """The published conversion stacks [-A0; A]. Rounded to bf16, its two products no longer cancel."""
    for spec in (Minor(rank=4), Major(rank=4)):
        errors, norm, moved = {"difference": 0.0, "stacked": 0.0}, 0.0, 0.0
        for (A, B), (A0, B0) in pairs(spec, lr=1.0):
            exact = B.double() @ A.double() - B0.double() @ A0.double()
            forms = {
                "difference": difference((A, B), (A0, B0)),
                "stacked": (torch.cat([-A0, A]), torch.cat([B0, B], dim=1)),
            }
            for form, (down, up) in forms.items():
                rounded = up.bfloat16().double() @ down.bfloat16().double()
                errors[form] += float((rounded - exact).square().sum())
            norm += float(exact.square().sum())
            moved += float((B0 @ A0).square().sum())
        assert 0.02 < (norm / moved) ** 0.5 < 0.05  # training changed the components by some 3%
        assert (errors["difference"] / norm) ** 0.5 < 0.004
        assert (errors["stacked"] / norm) ** 0.5 > 0.08


def test_stacking_adds_products_of_different_modules_and_ranks():
    one = {"a": (torch.randn(2, 5), torch.randn(4, 2)), "b": (torch.randn(1, 5), torch.randn(4, 1))}
    two = {"a": (torch.randn(3, 5), torch.randn(4, 3))}
    sum_ = stacked(one, two)
    torch.testing.assert_close(sum_["a"][1] @ sum_["a"][0], sum(B @ A for A, B in (one["a"], two["a"])))
    assert torch.equal(sum_["b"][0], one["b"][0])


def test_truncation_reports_exactly_what_it_leaves_out():
    A, B = torch.randn(6, 20), torch.randn(30, 6)
    (kept_A, kept_B), lost = truncated((A, B), 4)
    torch.testing.assert_close(torch.tensor(lost), (B @ A - kept_B @ kept_A).norm(), rtol=1e-4, atol=0)
    torch.testing.assert_close(torch.tensor(lost), torch.linalg.svdvals(B @ A)[4:].norm(), rtol=1e-4, atol=0)
