"""Measuring on the miniature, whose answer is known: linear interpolation draws one object, stock positions copies."""

import json
import re
from dataclasses import replace

import pytest
import torch

from urae.errors import UraeError
from urae.families import family_of
from urae.fitting import STOCK, FittingRequest, plan_fitting, run_fitting
from urae.fitting.run import surely_worse
from urae.training.randomness import normal

REQUEST = FittingRequest(images="mini:clean:10", size=256, rules=("linear",), sigmas=(0.2, 0.9))
DROPPED = f"{STOCK}, proportional"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fitted")


@pytest.fixture(scope="module")
def plan(pipeline, folder):
    return plan_fitting(pipeline, REQUEST, out=folder)


@pytest.fixture(scope="module")
def result(plan, folder):
    return run_fitting(plan, folder / "errors.jsonl")


def test_the_policy_that_draws_best_is_chosen(result):
    assert result.chosen in ("linear", "linear, proportional")
    assert result.policy.linear
    assert result.default == "linear, proportional"


def test_where_the_best_is_not_told_apart_the_default_stays(result):
    best = result.errors["linear"]
    near = {
        picture: tuple(e + (-1) ** i * 0.001 for e in row) for i, (picture, row) in enumerate(best.items())
    }
    near[next(iter(near))] = tuple(e + 0.005 for e in next(iter(best.values())))
    tied = replace(result, errors={**result.errors, result.default: near}, worse={STOCK: 9, DROPPED: 9})
    assert (tied.best, tied.chosen) == ("linear", result.default)
    far = {picture: tuple(e + 0.1 for e in row) for picture, row in best.items()}
    assert replace(tied, errors={**result.errors, result.default: far}).chosen == "linear"


def test_low_noise_alone_would_choose_the_reverse(result):
    low, high = ({row.name: row.levels[place] for row in result.ranking} for place in (0, 1))
    assert low[STOCK] < low[result.chosen]
    assert high[STOCK] > 1.2 * high[result.chosen]


def test_what_is_surely_worse_is_measured_no_further(result):
    assert {STOCK, DROPPED} <= result.worse.keys()
    assert len(result.errors[DROPPED]) == result.worse[DROPPED] == 9  # 2^10 / 10 is the first above 3 / 0.05
    assert len(result.errors[STOCK]) == len(result.errors[result.chosen]) == 10


def test_an_error_is_that_of_the_conditional_velocity(plan, result, pipeline):
    """At guidance 1, on noise that belongs to the picture and the level."""
    picture = list(plan.pictures)[3]
    sample = plan.data[plan.pictures[picture]]
    clean = sample.posterior.mean[None]
    noise = normal(clean.shape, seed=0, step=900_000, sample=int(picture[:8], 16), purpose="policy")
    with plan.candidates["linear"].on(pipeline), torch.no_grad():
        velocity = family_of(pipeline).calls.velocity(
            pipeline.transformer,
            0.1 * clean + 0.9 * noise,
            sigma=torch.tensor([0.9]),
            embeddings={name: tensor[None] for name, tensor in sample.text.items()},
            guidance=1.0,
        )
    expected = (velocity - (noise - clean)).square().mean().item()
    assert result.errors["linear"][picture][1] == pytest.approx(expected, rel=1e-5)


def test_numbers_of_stopped_policies_compare_with_the_others(result):
    """The chosen one's mean and the paired difference, not the mean of nine easy pictures."""
    best, own = result.scores(result.chosen), result.scores(DROPPED)
    difference = sum(own[p] - best[p] for p in own) / 9
    row = next(row for row in result.ranking if row.name == DROPPED)
    assert row.error == pytest.approx(sum(best.values()) / 10 + difference)
    assert row.above.difference.value == pytest.approx(difference)


def test_a_stopped_run_goes_on_and_ends_alike(plan, result, tmp_path, folder):
    whole = (folder / "errors.jsonl").read_text().splitlines(keepends=True)
    assert len(whole) == sum(map(len, result.errors.values())) == 38
    torn = tmp_path / "errors.jsonl"
    torn.write_text("".join(whole[:35]) + whole[35][:50])
    assert run_fitting(plan, torn) == result
    assert torn.read_text() == "".join(whole)


def test_what_decides_an_error_decides_its_key(plan, pipeline, folder):
    picture = next(iter(plan.pictures))
    keys = {plan.key(name, picture) for name in plan.candidates}
    assert len(keys) == 4
    shifted = {name: replace(policy, shift=9.0) for name, policy in plan.candidates.items()}
    assert {replace(plan, candidates=shifted).key(name, picture) for name in shifted} == keys
    other = replace(plan, request=replace(REQUEST, sigmas=(0.3, 0.9)))
    assert other.key("linear", picture) not in keys
    assert replace(plan, base="another").key("linear", picture) not in keys
    assert plan_fitting(pipeline, REQUEST, out=folder) == plan


def test_few_pictures_are_taken_by_their_content(pipeline, plan, folder):
    some = plan_fitting(pipeline, replace(REQUEST, pictures=8), out=folder)
    assert list(some.pictures) == list(plan.pictures)[:8]
    with pytest.raises(
        ValueError, match="mini:clean:5 gives 5 different pictures for . policies: expected at least"
    ):
        plan_fitting(pipeline, replace(REQUEST, images="mini:clean:5"), out=folder)


def test_more_policies_need_more_pictures(pipeline, folder):
    """The best sign test of 9 pictures, 2^-8, times 13 comparisons is above 5%; that of 10 is not."""
    every = replace(REQUEST, rules=FittingRequest(images="", size=256).rules, pictures=9)
    with pytest.raises(
        ValueError, match="gives 9 different pictures for 14 policies: expected at least 10, "
    ):
        plan_fitting(pipeline, every, out=folder)
    assert len(plan_fitting(pipeline, replace(every, pictures=10), out=folder).pictures) == 10


def test_on_a_cpu_no_block_can_be_swapped(pipeline, folder):
    with pytest.raises(ValueError, match="swap_blocks is 2, and on a CPU it has no effect"):
        plan_fitting(pipeline, replace(REQUEST, swap_blocks=2), out=folder)


def test_rounded_weights_have_errors_of_their_own(pipeline, plan, result, folder, tmp_path):
    rounded = plan_fitting(pipeline, replace(REQUEST, rules=(), pictures=6, base_weights="nf4"), out=folder)
    errors = run_fitting(rounded, tmp_path / "errors.jsonl").errors[STOCK]
    exact = {picture: result.errors[STOCK][picture] for picture in errors}
    assert errors != exact
    assert all(
        a == pytest.approx(b, rel=0.1) for p in errors for a, b in zip(errors[p], exact[p], strict=True)
    )


def test_the_page_holds_the_table_and_the_curves(result):
    page = result.to_html()
    assert all(row.name in page for row in result.ranking)
    assert page.count("<polyline") == 1  # the better linear one, against stock positions
    numbers = [float(n) for pair in re.findall(r'points="([^"]+)"', page) for n in re.split("[ ,]", pair)]
    assert len(numbers) == 4
    assert all(0 <= n <= 480 for n in numbers)
    assert numbers[3] > numbers[1]  # y grows downwards: at high noise the curve lies lower
    assert "<script" not in page
    assert json.loads(result.to_json())["chosen"] == result.chosen
    assert "**" + result.chosen + "**" in result.to_markdown()


def test_a_tie_stops_nobody():
    ten = {str(i): float(i) for i in range(10)}
    assert surely_worse({"a": ten, "b": dict(ten)}, num=2) == {}


def test_three_that_beat_each_other_in_turn_do_not_all_drop_out():
    """Each is better than the next on two pictures of three, as with Efron's dice; the lowest mean stays."""
    rounds = [(0, 1, 2), (2, 0, 1), (1, 2, 0)] * 100
    scores = {name: {str(i): float(one[k]) for i, one in enumerate(rounds)} for k, name in enumerate("abc")}
    scores["a"] = {picture: value - 0.01 for picture, value in scores["a"].items()}
    assert surely_worse(scores, num=3) == {"b": "a", "c": "b"}  # though c is better than a on two of three


def test_what_is_not_finite_is_no_error_of_a_policy(pipeline, plan, tmp_path):
    last = pipeline.transformer.proj_out.bias
    before = last.detach().clone()
    try:
        with torch.no_grad():
            last[0] = float("inf")
        with pytest.raises(UraeError, match="is not finite: open it in another type"):
            run_fitting(plan, tmp_path / "errors.jsonl")
    finally:
        with torch.no_grad():
            last.copy_(before)


def test_a_difference_stops_the_worse_as_soon_as_the_others_allow():
    worse, better = ({str(i): i + more for i in range(7)} for more in (0.1, 0.0))
    scores = {"a": worse, "b": better}
    assert surely_worse(scores, num=2) == {"a": "b"}
    assert surely_worse(scores, num=3) == {}  # 2^8 / 8 = 32 < 2 / 0.05
