import numpy as np
import pytest
import torch

from urae.training.randomness import PURPOSES, generator, normal

WHERE = {"seed": 5, "step": 7, "sample": 3}


def test_draws_are_a_function_of_where_they_are_made():
    torch.manual_seed(0)
    first = normal((4, 8), **WHERE, purpose="noise")
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, normal((4, 8), **WHERE, purpose="noise"))


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"step": 8}, {"sample": 4}, {"purpose": "posterior"}, {"seed": 7, "step": 5}]
)
def test_everything_that_names_a_draw_counts(other):
    first = normal((64,), **WHERE, purpose="noise")
    second = normal((64,), **{**WHERE, "purpose": "noise", **other})
    assert not (first == second).any()


def test_draws_leave_the_global_generators_alone():
    before = torch.get_rng_state()
    normal((64,), **WHERE, purpose="noise")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_stay_the_same_over_time():
    """A change here changes every result: checkpoints of before would not be continued as they were begun."""
    assert generator(**WHERE, purpose="sigma").random() == pytest.approx(SIGMA, abs=1e-15)
    assert normal((3,), **WHERE, purpose="noise").tolist() == pytest.approx(NOISE, abs=1e-6)


SIGMA = 0.904165339227619
NOISE = [-0.03116743266582489, -2.2038490772247314, -0.9750685691833496]


def test_normal_numbers_are_normal():
    drawn = normal((200_000,), **WHERE, purpose="noise").double()
    assert drawn.mean().abs() < 0.01
    assert drawn.std().item() == pytest.approx(1, abs=0.01)
    assert (drawn.abs() > 3).double().mean().item() == pytest.approx(0.0027, abs=0.0005)


def test_many_draws_do_not_collide():
    firsts = {
        generator(seed=0, step=s, sample=i, purpose=p).random()
        for s in range(60)
        for i in range(8)
        for p in PURPOSES
    }
    assert len(firsts) == 60 * 8 * len(PURPOSES)
