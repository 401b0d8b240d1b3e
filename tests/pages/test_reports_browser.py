"""Reports in a real browser, on a phone and in dark mode: nothing is clipped, and every text can be read."""

import json

import pytest
from PIL import Image

from browser import browsing, needs_chromium, resize
from urae.quickstart.report import MeasuredWay
from urae.quickstart.report import write_report as write_quickstart
from urae.recipes import mini_2x
from urae.statistics import Column, tabulate
from urae.training.report import write_report as write_run
from urae.training.settings import save_recipe

pytestmark = [needs_chromium, pytest.mark.slow]
PROMPTS = [f"a prompt of some length, number {number}" for number in range(6)]
LEAST = 4.5
"""Contrast of text and ground that WCAG 2.2 asks for (1.4.3)."""
CONTRASTS = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parts(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
return [...document.body.querySelectorAll("*")].filter((element) => [...element.childNodes].some(
  (node) => node.nodeType === 3 && node.data.trim())).map((element) => {
  const style = getComputedStyle(element);
  const ink = element instanceof SVGElement ? style.fill : style.color;
  const [low, high] = [light(parts(ink)), light(ground(element))].sort((a, b) => a - b);
  return [element.textContent.trim().slice(0, 40), (high + 0.05) / (low + 0.05)];
});
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def table(folder):
    columns = [Column(name=f"metric_{letter}", direction="higher", digits=3) for letter in "abcdefgh"]
    scores = {
        name: {c.name: {prompt: level + i for i, prompt in enumerate(PROMPTS)} for c in columns}
        for name, level in (("ours", 1.0), ("base", 2.0))
    }
    file = folder / "picture.png"
    Image.new("RGB", (64, 64), "teal").save(file)
    pictures = {name: dict.fromkeys(PROMPTS, file) for name in scores}
    return tabulate(scores, columns=columns).save(folder / "table.html", pictures=pictures)


def quickstart(folder):
    ways = (("native", 128), *((name, size) for size in (256, 512) for name in ("direct", "policy", "truth")))
    numbers = {"object": 2 / 3, "background": 1.0, "repetition": 0.2, "patches": 20.0, "detail": 0.6}
    columns = []
    for name, size in ways:
        picture, file = Image.new("RGB", (64, 64), "teal"), folder / f"{name}-{size}.png"
        picture.save(file)
        columns.append(
            MeasuredWay(
                name=name, size=size, images=[picture] * 3, files=[file] * 3, numbers=numbers, seconds=1
            )
        )
    for factor in (2, 4):
        metrics(folder / f"mini-{factor}x")
    return write_quickstart(folder, columns=columns, prompts=PROMPTS[:3], machine="a machine")


def run(folder):
    metrics(folder)
    save_recipe(mini_2x(out=str(folder)), folder / "recipe.yaml")
    return write_run(folder, plan="the plan " * 40)


def metrics(folder):
    folder.mkdir(exist_ok=True)
    rows = [{"step": step, "loss": 1 / step, "seconds": 0.5} for step in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("report", [table, quickstart, run])
def test_a_report_is_whole_on_a_phone_and_readable_in_both_modes(driver, tmp_path, report):
    page = report(tmp_path)
    resize(driver, 390, 844, phone=True)
    driver.get(page.as_uri())
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    grounds = set()
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grounds.add(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        contrasts = driver.execute_script(CONTRASTS)
        assert len(contrasts) > 10
        assert [pair for pair in contrasts if pair[1] < LEAST] == []
    assert len(grounds) == 2
