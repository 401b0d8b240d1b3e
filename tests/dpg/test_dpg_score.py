"""The scoring rule on graphs small enough to score by hand, and each departure of the published script."""

from __future__ import annotations

import pytest
from dpg_material import item, question

from urae.dpg.scoring import read_answer, score

FIRST = item("first", question(1))
"""The published script forgets the first question of a file."""
CHAIN = item("chain", question(1), question(2, 1), question(3, 2))
DIAMOND = item("diamond", question(1), question(2, 1), question(3, 1), question(4, 2, 3))
BACKWARDS = item("backwards", question(3, 2), question(2, 1), question(1))


def said(one, *texts: str) -> dict[int, str]:
    return {q.id: text for q, text in zip(one.questions, texts, strict=True)}


def scored(one, *tiles, compat="fixed") -> float:
    result = score([FIRST, one], {one.id: [said(one, *tile) for tile in tiles]}, compat=compat)
    return result.prompts[one.id]


@pytest.mark.parametrize("compat", ["fixed", "official"])
@pytest.mark.parametrize(
    ("one", "texts", "expected"),
    [
        (CHAIN, ("yes", "yes", "yes"), 1),
        (CHAIN, ("no", "yes", "yes"), 0),
        (CHAIN, ("yes", "no", "yes"), 1 / 3),
        (DIAMOND, ("yes", "yes", "no", "yes"), 2 / 4),
        (DIAMOND, ("yes", "no", "yes", "yes"), 2 / 4),
        (DIAMOND, ("no", "yes", "yes", "yes"), 0),
        (DIAMOND, ("yes", "yes", "yes", "no"), 3 / 4),
    ],
)
def test_a_question_counts_if_all_it_depends_on_does(one, texts, expected, compat):
    assert scored(one, texts, compat=compat) == pytest.approx(expected)


def test_the_order_of_the_file_matters_to_the_published_script_alone():
    assert scored(BACKWARDS, ("yes", "yes", "no")) == 0
    assert scored(BACKWARDS, ("yes", "yes", "no"), compat="official") == pytest.approx(1 / 3)


def test_a_prompt_is_the_mean_of_its_pictures_and_the_benchmark_that_of_its_prompts():
    assert scored(CHAIN, ("yes", "yes", "yes"), ("no", "yes", "yes")) == pytest.approx(1 / 2)
    answers = {
        "chain": [said(CHAIN, "yes", "no", "no")],
        "diamond": [said(DIAMOND, "yes", "yes", "yes", "yes")],
    }
    assert score([CHAIN, DIAMOND], answers).mean == pytest.approx((1 / 3 + 1) / 2)


def test_categories_are_shares_of_yes_before_dependencies():
    one = item("a", question(1), question(2, 1, kind="attribute - color"), question(3, kind="other - count"))
    tiles = [said(one, "no", "yes", "yes"), said(one, "yes", "yes", "no")]
    result = score([FIRST, one], {"a": tiles})
    assert {name: (s.yes, s.questions) for name, s in result.categories.items()} == {
        "entity - whole": (1, 2),
        "attribute - color": (2, 2),
        "other - count": (1, 2),
    }
    assert list(result.broad) == ["entity", "attribute", "other"]
    last = score([FIRST, one], {"a": tiles}, compat="official")
    assert {name: (s.yes, s.questions) for name, s in last.broad.items()} == {
        "entity": (1, 1),
        "attribute": (1, 1),
        "other": (0, 1),
    }


def test_the_published_script_forgets_the_first_question_and_fails_on_what_depends_on_it():
    answers = {"chain": [said(CHAIN, "yes", "yes", "yes")], "first": [said(FIRST, "yes")]}
    result = score([CHAIN, FIRST], answers, compat="official")
    assert (result.prompts, result.left_out) == ({"first": 1.0}, ("chain",))
    assert score([CHAIN, FIRST], answers).left_out == ()
    # Where nothing depends on it the prompt stays, one question shorter.
    free = item("free", question(1), question(2))
    assert score([free], {"free": [said(free, "no", "yes")]}, compat="official").prompts == {"free": 1.0}
    assert score([FIRST], {"first": [said(FIRST, "yes")]}, compat="official").left_out == ("first",)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("yes", True),
        ("Yes.", True),
        (" \n**NO**, it is not", False),
        ("yesterday", None),
        ("It is; yes", None),
        ("", None),
        ("?!", None),
    ],
)
def test_the_first_word_decides(text, read):
    assert read_answer(text) is read
    assert scored(item("a", question(1)), (text,)) == float(read is True)


@pytest.mark.parametrize("text", ["Yes/No", "yes or no", "No / Yes.", "**Yes** and no", "yes|no", "Yes, no"])
def test_an_answer_that_is_both_is_none(text):
    assert read_answer(text) is None


@pytest.mark.parametrize("text", ["Yes, there is nothing else", "Yes yes", "yes or so"])
def test_an_answer_that_goes_on_is_read_by_its_first_word(text):
    assert read_answer(text) is True


def test_only_yes_letter_by_letter_is_yes_to_the_published_script():
    assert scored(CHAIN, ("Yes", "yes", "yes"), compat="official") == 0


@pytest.mark.parametrize(("second", "expected"), [("no", {"odd": 0.0}), ("yes", {})])
def test_the_published_script_fails_only_where_it_comes_to_the_question_that_it_forgot(second, expected):
    """It asks a question's parents in order, and stops at the first that was answered no."""
    odd = item("odd", question(1), question(2), question(3, 2, 1))
    result = score([odd], {"odd": [said(odd, "yes", second, "yes")]}, compat="official")
    assert result.prompts == expected
    assert result.left_out == (() if expected else ("odd",))


def test_an_item_without_answers_is_not_counted_and_an_unknown_rule_is_refused():
    assert score([CHAIN, FIRST], {"first": [said(FIRST, "no")]}).prompts == {"first": 0.0}
    with pytest.raises(ValueError, match="compat is 'both': expected fixed or official"):
        score([FIRST], {}, compat="both")
