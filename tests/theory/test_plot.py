"""Figures that show the numbers, and a page that loads nothing."""

import sys
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from urae.errors import MissingExtra
from urae.theory import (
    Section,
    bound_figure,
    error_curve,
    exact_error,
    printed_bound,
    random_problem,
    save_figure,
    share_figure,
    simulate,
    valid_bound,
    write_page,
)


@pytest.fixture(scope="module")
def problem():
    return random_problem(0, teacher_gap=2.0, noise=0.3)


def test_each_noise_level_is_a_curve_with_its_minimum_marked(problem):
    axes = share_figure(problem, noises=[0.2, 0.6]).axes[0]
    curves = {line.get_label(): line for line in axes.lines if len(line.get_xdata()) > 1}
    assert set(curves) == {"0.2", "0.6"}
    for noise, line in curves.items():
        own = type(problem)(**{**vars(random_problem(0, teacher_gap=2.0)), "noise": float(noise)})
        np.testing.assert_allclose(line.get_ydata(), error_curve(own).at(line.get_xdata()))
    dots = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert sorted(dot.get_xdata()[0] for dot in dots) == pytest.approx([0.104, 1.0], abs=1e-3)


def test_the_bounds_are_drawn_as_computed(problem):
    steps = np.array([0, 1, 10])
    runs = [
        simulate(problem, shares=s, steps=t, repeats=10) for s, t in ((0.5, steps), ([0.0, 0.5, 1.0], 10))
    ]
    figure = bound_figure(problem, share=0.5, steps=steps, by_steps=runs[0], by_share=runs[1])
    left, right = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    for label, which in (
        ("exact", exact_error),
        ("bound as printed", printed_bound),
        ("valid bound", valid_bound),
    ):
        np.testing.assert_allclose(drawn[label], which(problem, shares=0.5, steps=steps).total)
    np.testing.assert_allclose(right.containers[0].lines[0].get_ydata(), runs[1].mean)


def test_no_text_is_cut_off(problem):
    """Constrained layout keeps labels, titles and legends inside the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = share_figure(problem, noises=[0.1, 0.6])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()


def test_a_picture_is_written_whole(problem, tmp_path):
    path = save_figure(share_figure(problem, noises=[0.1]), tmp_path / "new" / "share.png")
    assert Image.open(path).size == (1024, 672)
    assert [file.name for file in path.parent.iterdir()] == ["share.png"]


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.cells, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("href", "src") if key in values]
        if tag == "img":
            self.images.append(values)

    def handle_data(self, data):
        self.cells.append(data)


def test_the_page_holds_its_figures_and_loads_nothing(problem, tmp_path):
    section = Section(
        heading="Error & share",
        text="Less than < it seems.",
        figure=share_figure(problem, noises=[0.1]),
        alt="a curve",
        table=[("noise", "share"), ("0.1", "0.00")],
    )
    path = write_page(tmp_path / "page.html", title="Theorem <2.4>", sections=[section])
    page = Page()
    page.feed(path.read_text())
    (image,) = page.images
    assert image["alt"] == "a curve"
    assert all(link.startswith("data:") for link in page.links)
    assert {"Error & share", "Less than < it seems.", "Theorem <2.4>", "0.1", "0.00"} <= set(page.cells)
    picture = ElementTree.fromstring(b64decode(image["src"].split(",")[1]))
    assert picture.tag.endswith("svg")


def test_a_missing_matplotlib_answers_with_the_line_that_installs_it(problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'urae\[theory\]'"):
        share_figure(problem, noises=[0.1])
