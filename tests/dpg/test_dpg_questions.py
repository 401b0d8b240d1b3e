"""The official csv format: what is read, what is refused, and that written questions are read back."""

from __future__ import annotations

import csv

import pytest
from dpg_material import OFFICIAL, item, question, scene_items

from urae.dpg.questions import read_questions, write_questions
from urae.errors import BadFile


@pytest.fixture
def official(tmp_path):
    path = tmp_path / "dpg_bench.csv"
    path.write_text(OFFICIAL, encoding="utf-8-sig")
    return path


def test_the_official_format(official):
    tiger, cup = read_questions(official)
    assert (tiger.id, tiger.prompt, cup.id) == ("partiprompts97", "A tiger, striped.", "7")
    assert [q.parents for q in tiger.questions] == [(), (1,)]
    assert [q.parents for q in cup.questions] == [(), (1,), (), (1, 3)]
    assert (cup.questions[1].category, cup.questions[1].broad) == ("attribute - color", "attribute")
    assert cup.questions[3].text == "Is the cup on the desk?"


def test_written_questions_are_read_back_and_have_every_column(official, tmp_path):
    for items in (read_questions(official), tuple(scene_items())):
        path = write_questions(items, tmp_path / "new" / "own.csv")
        assert read_questions(path) == items
    with path.open(newline="") as file, official.open(encoding="utf-8-sig", newline="") as other:
        assert next(csv.reader(file)) == next(csv.reader(other))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dependency,", "depends,", "no column 'dependency'"),
        (",Is the cup red?", ",", "line 5 of .* has no question_natural_language"),
        ('"1, 3"', "one", "the number of a question is 'one'"),
        ('"1, 3"', "9", "prompt '7' has a question that depends on 9"),
        ("7,A red cup on a desk,,3", "7,A red cup on a desk,,2", "two questions of one number"),
        ("7,A red cup on a desk,,1,0", "7,A red cup on a desk,,1,4", "depend on each other in a circle"),
        ("7,A red cup on a desk,,3", "7,A red mug,,3", "2 different texts for the prompt '7'"),
        (OFFICIAL.split("\n", 1)[1], "", "holds no questions"),
        ('"A tiger, striped."', '"A tiger', "cannot be read as csv"),
    ],
)
def test_what_is_wrong_is_named(official, old, new, message):
    assert old in OFFICIAL
    official.write_text(OFFICIAL.replace(old, new, 1))
    with pytest.raises(BadFile, match=message):
        read_questions(official)


def test_an_item_checks_its_graph():
    with pytest.raises(ValueError, match="depends on 3"):
        item("a", question(1), question(2, 3))
    with pytest.raises(ValueError, match="circle"):
        item("a", question(1, 1))
