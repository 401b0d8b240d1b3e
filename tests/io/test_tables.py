"""Whatever stands in a cell, the table keeps its columns and the text its letters."""

import re

import pytest

from urae.io.tables import Markdown, escape_markdown, markdown_table

ODD = [
    "a|b",
    "a\nb",
    "*x*",
    "<b>",
    "`c`",
    "[l](u)",
    "a\\|b",
    "$x$",
    "~~x~~",
    "# h",
    "a\u2028b",
    "{{x}}",
    "_u_",
]


def cells(line):
    """Of a row, as a reader of Markdown splits it."""
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def test_a_table_as_it_is_written():
    table = markdown_table(
        ["", "quality ↑", "p (Holm)"], [["ours", Markdown("**0.5**"), 3], ["a|b", "–", ""]], right=[1]
    )
    assert table == (
        "|  | quality ↑ | p (Holm) |\n| --- | ---: | --- |\n| ours | **0.5** | 3 |\n| a\\|b | – |  |"
    )


@pytest.mark.parametrize("text", ODD)
def test_an_odd_cell_is_one_cell_of_plain_text(text):
    header, _, row = markdown_table([text, "b"], [[text, "x"]]).split("\n")
    for line in (header, row):
        assert len(cells(line)) == 2
        assert re.sub(r"\\(.)", r"\1", cells(line)[0]) == " ".join(text.split())


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells: expected 2"):
        markdown_table(["a", "b"], [["1"]])


def test_ready_cells_stay_on_one_line():
    assert markdown_table(["a"], [[Markdown("`x`\n[y]")]]).endswith("| `x` [y] |")
    assert escape_markdown("a_b\n c") == "a\\_b c"
