"""Seeds as a user writes them."""

import pytest

from urae.generation import DrawingRequest
from urae.generation.seeds import MOST_SEEDS, seeds_of


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0-3", [0, 1, 2, 3]), (" 5, 1 - 2 ,9", [5, 1, 2, 9]), ("7-7", [7])]
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "a", "3-1", "1-", "0.5", "0-999999999", "1,1", "0-3,2", f"0-{MOST_SEEDS}"]
)
def test_other_seeds_are_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="seed"):
        seeds_of(text)


def test_a_request_takes_ranges_and_keeps_numbers():
    assert DrawingRequest(prompt="x", size=128, seed=["0-2", "9"]).seeds == [0, 1, 2, 9]
    assert DrawingRequest(prompt="x", size=128, seed="3-4").seeds == [3, 4]
    assert DrawingRequest(prompt="x", size=128, seed=7).is_for_one
    assert not DrawingRequest(prompt="x", size=128, seed="7").is_for_one
