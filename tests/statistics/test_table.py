"""The table: what is marked, what is escaped, and that its page holds the pictures behind each number."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from urae.statistics import Column, Interval, tabulate
from urae.statistics.table import UNTRAINED

PROMPTS = [f"prompt {i}" for i in range(12)]
QUALITY = Column(name="quality", direction="higher", digits=2)


def around(level: float, *, spread: float = 0.1, seed: int = 0) -> dict[str, float]:
    noise = np.random.default_rng(seed).normal(scale=spread, size=len(PROMPTS))
    return {prompt: level + float(value) for prompt, value in zip(PROMPTS, noise, strict=True)}


def ladder(direction="higher", **levels):
    scores = {name: {"quality": around(level, seed=i)} for i, (name, level) in enumerate(levels.items())}
    return tabulate(scores, columns=[Column(name="quality", direction=direction, digits=2)])


def marks(table) -> dict[str, str]:
    return {name: row["quality"].mark for name, row in table.cells.items()}


def test_best_and_second_are_marked_where_the_difference_is_real():
    assert marks(ladder(a=1, b=3, c=2)) == {"a": "", "b": "best", "c": "second"}


def test_the_direction_decides_who_is_best():
    assert marks(ladder("lower", a=1, b=3, c=2)) == {"a": "best", "b": "", "c": "second"}
    assert marks(ladder("neither", a=1, b=3, c=2)) == {"a": "", "b": "", "c": ""}


def test_a_lead_within_the_noise_is_not_marked():
    table = ladder(a=1, b=1.01, c=0)
    assert table.cells["b"]["quality"].value != table.cells["a"]["quality"].value
    assert marks(table) == {"a": "", "b": "", "c": ""}


def test_best_alone_where_the_second_is_not_clear():
    assert marks(ladder(a=3, b=1, c=1.01)) == {"a": "best", "b": "", "c": ""}


def test_the_worse_of_two_is_not_second_best():
    assert marks(ladder(a=3, b=1)) == {"a": "best", "b": ""}


def test_marks_are_corrected_for_every_pair_of_the_column():
    """Nine wins of nine are real between two candidates (p = 0.004) and not among six (15 pairs)."""
    scores = {"a": {"quality": dict.fromkeys(PROMPTS[:9], 1.0)}}
    names = "bcdef"
    for i, name in enumerate(names):
        scores[name] = {"quality": dict.fromkeys(PROMPTS[:9], 0.0)}
        expected = "best" if 2 / 2**9 * (i + 1) * (i + 2) / 2 <= 0.05 else ""
        assert tabulate(scores, columns=[QUALITY]).cells["a"]["quality"].mark == expected
    assert expected == ""


def test_numbers_of_a_whole_set_are_shown_without_interval_and_never_marked():
    table = tabulate(
        {"a": {"fid": 12.5}, "b": {"fid": 90.0}}, columns=[Column(name="fid", direction="lower", digits=1)]
    )
    assert "| a | 12.5 |" in table.to_markdown()
    assert "[" not in table.to_markdown()


def test_every_form_shows_the_interval_of_a_number_of_a_whole_set():
    kid = Interval(value=0.5, low=0.25, high=0.75, count=9, confidence=0.95)
    table = tabulate({"a": {"kid": kid}}, columns=[Column(name="kid", direction="lower", digits=2)])
    for text in (table.to_markdown(), table.to_html({})):
        assert "[0.25, 0.75]" in text


def test_markdown_shows_marks_intervals_and_absent_numbers():
    scores = {"a": {"quality": around(3)}, "b": {"quality": around(1, seed=1)}, "closed": {}}
    table = tabulate(scores, columns=[QUALITY])
    lines = table.to_markdown().splitlines()
    assert lines[0] == "|  | quality ↑ |"
    assert re.fullmatch(r"\| a \| \*\*[23]\.\d\d\*\* \[\d\.\d\d, \d\.\d\d\] \|", lines[2])
    assert lines[4] == "| closed | – |"
    assert "Means over 12 prompts" in table.to_markdown()


def test_untrained_weights_print_as_such_in_place_of_the_number(tmp_path):
    column = Column(name="quality", direction="higher", untrained=True)
    scores = {"a": {"quality": around(7.77)}, "b": {"quality": around(1)}}
    table = tabulate(scores, columns=[column])
    page = table.to_html(drawn(tmp_path, ["a", "b"]))
    for text in (table.to_markdown(), page):
        assert text.count(UNTRAINED) == 2
        assert "7.7" not in text
    assert json.loads(table.to_json())["columns"][0]["untrained"] is True


HOSTILE = r'[50%] a_b & {c} #1 $x^2$ ~\ <script>alert("1")</script> | *x*'


def test_the_table_says_where_no_mark_is_possible():
    """Three candidates are three pairs: six wins of six have p = 0.09 after Holm's correction."""
    levels = {
        name: dict.fromkeys(PROMPTS[:6], level) for name, level in zip("abc", (1.0, 2.0, 3.0), strict=True)
    }
    scores = {name: {"quality": values} for name, values in levels.items()}
    said = "With 3 candidates and 6 prompts nothing can be marked, however large the difference: it takes at least 7"
    table = tabulate(scores, columns=[QUALITY])
    assert said in table.to_markdown()
    assert marks(table) == {"a": "", "b": "", "c": ""}
    two = tabulate({name: scores[name] for name in "ab"}, columns=[QUALITY])
    assert "nothing can be marked" not in two.to_markdown()
    assert marks(two) == {"a": "", "b": "best"}


def test_values_that_agree_show_no_false_certainty():
    equal = {"a": {"quality": dict.fromkeys(PROMPTS, 1.0)}}
    assert "| a | 1.00 |" in tabulate(equal, columns=[QUALITY]).to_markdown()
    share = Column(name="quality", direction="higher", digits=2, bounds=(0, 1))
    assert "| a | 1.00 [0.76, 1.00] |" in tabulate(equal, columns=[share]).to_markdown()


def test_a_value_that_rounds_to_zero_has_no_sign():
    near = Interval(value=-0.001, low=-0.004, high=0.004, count=9, confidence=0.95)
    table = tabulate({"a": {"quality": near}}, columns=[QUALITY])
    assert "| a | 0.00 [0.00, 0.00] |" in table.to_markdown()
    assert "-0.00" not in table.to_html({})


def test_a_markdown_cell_cannot_leave_its_cell():
    table = tabulate({"a|b\n| c *x* <b>": {"quality": around(1)}}, columns=[QUALITY])
    row = table.to_markdown().splitlines()[2]
    assert row.startswith(r"| a\|b \| c \*x\* \<b\> | ")


def test_json_keeps_every_value_and_comparison():
    table = ladder(a=1, b=3)
    read = json.loads(table.to_json())
    assert read["cells"]["a"]["quality"]["scores"] == table.cells["a"]["quality"].scores
    assert read["comparisons"]["quality"]["a against b"]["below"] == len(PROMPTS)
    assert read["comparisons"]["quality"]["a against b"]["real"] is True


def drawn(folder, names, prompts=PROMPTS):
    """A plain picture of its own colour for each candidate and prompt."""
    files: dict[str, dict] = {}
    for row, name in enumerate(names):
        for place, prompt in enumerate(prompts):
            file = folder / f"{row}-{place}.png"
            Image.new("RGB", (64, 48), (row * 120, place * 20, 90)).save(file)
            files.setdefault(name, {})[prompt] = file
    return files


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_the_picture_behind_each_number(tmp_path):
    table = ladder(a=1, b=3)
    text = table.to_html(drawn(tmp_path, ["a", "b"]))
    uris = dict(
        re.findall(
            r"\.(picture-\d+-prompt-\d+) \{ background-image: url\(data:image/jpeg;base64,(.*?)\)", text
        )
    )
    assert len(uris) == 2 * len(PROMPTS)
    shown = [attributes for tag, attributes in Page(text).tags if tag == "span"]
    behind = {
        attributes["class"].split()[1]: attributes["aria-label"]
        for attributes in shown
        if ":" in attributes["aria-label"]
    }
    for css, label in behind.items():
        name, prompt = label.split(": ")
        picture = Image.open(io.BytesIO(base64.b64decode(uris[css])))
        expected = ("ab".index(name) * 120, PROMPTS.index(prompt) * 20, 90)
        assert np.abs(np.subtract(picture.getpixel((5, 5)), expected)).max() <= 4
    assert len(behind) == 2 * len(PROMPTS)


@pytest.mark.parametrize(("direction", "first"), [("higher", min), ("lower", max)])
def test_pictures_come_worst_first(tmp_path, direction, first):
    table = ladder(direction, a=1)
    text = table.to_html(drawn(tmp_path, ["a"]))
    section = text.split('<section id="cell-0-0">')[1].split("</section>")[0]
    numbers = [float(n) for n in re.findall(r"<figcaption>([\d.]+)</figcaption>", section)]
    assert numbers[0] == first(numbers)
    assert numbers == sorted(numbers, reverse=direction == "lower")
    labels = re.findall(r'aria-label="(.*?)"', section)
    scores = table.cells["a"]["quality"].scores
    assert [round(scores[label], 2) for label in labels] == numbers


def test_every_link_of_the_page_leads_somewhere_and_nothing_comes_from_outside(tmp_path):
    tags = Page(ladder(a=1, b=3).to_html(drawn(tmp_path, ["a", "b"]))).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    links = [attributes["href"] for _, attributes in tags if "href" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link.removeprefix("#") for link in links} == set(ids)
    assert not [tag for tag, attributes in tags if tag in ("script", "link") or "src" in attributes]


def test_the_page_is_escaped(tmp_path):
    hostile_prompts = ['"><script>alert(1)</script>', *PROMPTS[1:]]
    scores = {HOSTILE: {"quality": {prompt: float(i) for i, prompt in enumerate(hostile_prompts)}}}
    text = tabulate(scores, columns=[QUALITY], title="<b>").to_html(
        drawn(tmp_path, [HOSTILE], hostile_prompts)
    )
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "b" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text


def test_saving_by_suffix(tmp_path):
    table = ladder(a=1, b=3)
    pictures = drawn(tmp_path, ["a", "b"])
    assert table.save(tmp_path / "new" / "t.md").read_text() == table.to_markdown()
    assert table.save(tmp_path / "t.json").read_text() == table.to_json()
    assert table.save(tmp_path / "t.html", pictures=pictures).read_text() == table.to_html(pictures)
    assert not list(tmp_path.rglob("*.tmp"))
    for name, given in (("t.html", None), ("t.md", pictures), ("t.tex", None)):
        with pytest.raises(ValueError, match="expected .md or .json without, or .html with them"):
            table.save(tmp_path / name, pictures=given)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": {"other": 1.0}}, "a has the metric 'other' without a column: expected quality"),
        ({"a": {"quality": float("nan")}}, "expected a finite one"),
        ({"a": {"quality": around(1)}, "b": {"quality": {"x": 1.0}}}, "needs the same prompts"),
        ({"a": {"quality": {"x": 1.0}}}, "there are 1 different prompts"),
    ],
)
def test_errors(scores, message):
    with pytest.raises(ValueError, match=message):
        tabulate(scores, columns=[QUALITY])


def test_a_picture_that_is_missing_behind_a_number_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="b has no picture of 'prompt 0'"):
        ladder(a=1, b=2).to_html(drawn(tmp_path, ["a"]))
