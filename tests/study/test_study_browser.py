"""A rater in a real browser: through a whole study by keys, and by touch on a phone."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from study_material import HOSTILE, IDS, NAMES, PROMPTS, draw, running, small_study, wait_for

from browser import browsing, needs_chromium, resize
from urae.study.manifest import ASPECTS, read_study
from urae.study.outcome import count_votes

pytestmark = [needs_chromium, pytest.mark.slow]
SIZE = 640
"""Larger than the panes, so that there is something to move at 100%."""


@pytest.fixture(scope="module")
def drawn_large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    return small_study(draw(folder / "drawn", SIZE), folder / "study", preview=320).folder


@pytest.fixture
def large(drawn_large, tmp_path):
    with running(read_study(shutil.copytree(drawn_large, tmp_path / "large"))) as site:
        yield site


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def driver(browser):
    """The browser without cookies, at the size of a desk."""
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    resize(browser, 1280, 800)
    browser.get_log("browser")
    return browser


def keys(driver, *pressed: str) -> None:
    for key in pressed:
        driver.find_element(By.TAG_NAME, "body").send_keys(key)


def text(driver, query: str) -> str:
    # In one step: an element that was found may be gone with its page before it is read.
    return driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", query)


def at(driver, path: str) -> None:
    wait_for(lambda: driver.current_url.endswith(path))
    wait_for(lambda: driver.execute_script("return document.readyState") == "complete")


def start(driver, site, rater: int) -> None:
    driver.get(f"{site.url}/join/{site.tokens[rater - 1]}")
    driver.find_element(By.ID, "join").click()


def screen(driver) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB"), dtype=int)


def panes(driver) -> list[dict]:
    """Name, box, and the box of the native picture of each."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.pane')].map(pane => ({...pane.getBoundingClientRect().toJSON(), "
        "name: pane.dataset.picture, picture: pane.querySelector('.native').getBoundingClientRect().toJSON()}))"
    )


def native(site, name: str) -> np.ndarray:
    return np.asarray(Image.open(site.study.pictures[name]).convert("RGB"), dtype=int)


def test_a_rater_votes_through_a_whole_study_by_keys(large, driver):
    """The sharp picture in the first aspect, and places 2 and 3 in the others; then submits."""
    start(driver, large, 1)
    for position in range(1, len(IDS) + 1):
        at(driver, f"/ballot/{position}")
        item = next(item for item in large.study.items if text(driver, ".prompt") == item.prompt)
        shown = [item.pictures[pane["name"]] for pane in panes(driver)]
        keys(driver, str(shown.index("sharp") + 1))
        # The next open question becomes the active one when the vote is saved.
        wait_for(lambda: text(driver, ".active h2") == "Prompt alignment")
        keys(driver, "2")
        wait_for(lambda: text(driver, ".active h2") == "Visual aesthetics")
        keys(driver, "3")
        wait_for(lambda position=position: text(driver, "#answered") == str(position))
        keys(driver, Keys.ARROW_RIGHT)
    at(driver, "/finish")
    assert "All 6 prompts are answered" in text(driver, "body")
    driver.find_element(By.ID, "submit").click()
    wait_for(lambda: "have been submitted" in text(driver, "body"))
    outcome = count_votes(large.study)
    assert outcome.num_submitted == 1
    assert outcome.aspects["overall"].standings["sharp"].votes == 6
    assert [slot.value for slot in outcome.aspects["alignment"].slots] == [0, 1, 0]
    assert [slot.value for slot in outcome.aspects["aesthetics"].slots] == [0, 0, 1]
    # No breach of the policy, no missing file, no error of the script.
    assert driver.get_log("browser") == []


def test_at_100_percent_every_pane_shows_the_same_place_pixel_for_pixel(large, driver):
    """Found in the pictures by their pixels, before and after moving by keys and by dragging."""
    start(driver, large, 1)
    at(driver, "/ballot/1")
    keys(driver, "z")
    wait_for(lambda: not driver.find_elements(By.CSS_SELECTOR, ".waiting"))
    assert text(driver, "#zoom") == "Fit"
    first = assert_same_place(driver, large)
    keys(driver, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    second = assert_same_place(driver, large)
    assert second[0] > first[0]
    keys(driver, *[Keys.ARROW_LEFT, Keys.ARROW_UP] * 9)
    # At the corner, as far as it goes: the pane's own edge is left out of the patch.
    assert assert_same_place(driver, large) == (8, 50)
    drag(driver, -60, -40)
    assert assert_same_place(driver, large) == (8 + 60, 50 + 40)
    # Twice as fine a screen: one pixel of the picture is still one of the screen.
    resize(driver, 1280, 800, scale=2)
    # The page hears of it with the next frame, which a screenshot draws.
    wait_for(lambda: screen(driver).any() and panes(driver)[0]["picture"]["width"] == SIZE / 2)
    keys(driver, Keys.ESCAPE)
    assert text(driver, "#zoom") == "100%"
    keys(driver, "1")
    wait_for(lambda: large.votes())
    assert large.votes()[0].zoomed


def drag(driver, dx: int, dy: int) -> None:
    pane = panes(driver)[1]
    x, y = pane["x"] + pane["width"] / 2, pane["y"] + pane["height"] / 2
    # The first few pixels tell a drag from a click, and do not move anything.
    points = [("mousePressed", 0, 0), ("mouseMoved", 9, 9), ("mouseMoved", 9 + dx, 9 + dy)]
    for kind, right, down in [*points, ("mouseReleased", 9 + dx, 9 + dy)]:
        event = {"type": kind, "x": x + right, "y": y + down, "button": "left", "buttons": 1, "clickCount": 1}
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def assert_same_place(driver, site) -> tuple[int, int]:
    """Where in the pictures the panes are; what they show must be exactly the pixels of that place."""
    places, shown = set(), screen(driver)
    for pane in panes(driver):
        # Without the corner that holds the number, and the edge that may be marked.
        left, top = round(pane["x"]) + 8, round(pane["y"]) + 50
        patch = shown[top : round(pane["bottom"]) - 8, left : round(pane["right"]) - 8]
        x, y = left - round(pane["picture"]["x"]), top - round(pane["picture"]["y"])
        picture = native(site, pane["name"])[y : y + patch.shape[0], x : x + patch.shape[1]]
        assert patch.shape == picture.shape
        assert np.array_equal(patch, picture)
        assert not np.array_equal(patch[1:, 1:], picture[:-1, :-1])
        places.add((x, y))
    assert len(places) == 1
    return places.pop()


def test_a_phone_shows_everything_at_once_and_is_voted_by_touch(large, driver):
    resize(driver, 390, 844, scale=2, phone=True)
    start(driver, large, 2)
    at(driver, "/ballot/1")
    for width, height in ((390, 844), (844, 390), (320, 568)):
        resize(driver, width, height, scale=2, phone=True)
        wait_for(lambda width=width: driver.execute_script("return innerWidth") == width)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert driver.execute_script("return document.documentElement.scrollHeight") <= height
        for pane in panes(driver):
            assert pane["width"] == pytest.approx(pane["height"], abs=1)
            assert pane["width"] >= 100
            assert 0 <= pane["x"] <= pane["x"] + pane["width"] <= width
    resize(driver, 390, 844, scale=2, phone=True)
    for button in driver.find_elements(By.CSS_SELECTOR, ".choices button"):
        assert button.rect["height"] >= 40
    tap(driver, driver.find_elements(By.CSS_SELECTOR, ".pane")[2])
    wait_for(lambda: text(driver, "#zoom") == "Fit")
    tap(driver, driver.find_elements(By.CSS_SELECTOR, ".pane")[0])
    wait_for(lambda: text(driver, "#zoom") == "100%")
    boxes = panes(driver)
    for place, aspect in enumerate(ASPECTS):
        tap(driver, driver.find_elements(By.CSS_SELECTOR, f"[data-aspect={aspect.name}] button")[place])
    wait_for(lambda: text(driver, "#answered") == "1")
    # Nothing jumps under the finger when another question becomes the active one.
    assert panes(driver) == boxes
    shown = [pane["name"] for pane in boxes]
    assert {vote.aspect: vote.picture for vote in large.votes()} == {
        aspect.name: shown[place] for place, aspect in enumerate(ASPECTS)
    }
    tap(driver, driver.find_element(By.ID, "next"))
    at(driver, "/ballot/2")
    assert driver.get_log("browser") == []


def tap(driver, element) -> None:
    box = element.rect
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_vote_that_did_not_arrive_is_not_shown_as_made(study, driver):
    with running(study) as site:
        start(driver, site, 1)
        at(driver, "/ballot/1")
        keys(driver, "1")
        wait_for(lambda: text(driver, "#status") == "Saved")
    keys(driver, Keys.ARROW_UP, "2")
    wait_for(lambda: "not saved" in text(driver, "#status"))
    pressed = driver.find_elements(By.CSS_SELECTOR, '[data-aspect="overall"] button[aria-pressed="true"]')
    assert [button.text for button in pressed] == ["1"]
    assert len(site.votes()) == 1


def test_a_hostile_prompt_is_read_and_not_run(large, driver):
    start(driver, large, 1)
    at(driver, "/ballot/1")
    prompts = []
    for position in range(1, len(IDS) + 1):
        driver.get(f"{large.url}/ballot/{position}")
        prompts.append(text(driver, ".prompt"))
    assert sorted(prompts) == sorted(PROMPTS.values())
    assert HOSTILE in prompts
    assert len(panes(driver)) == len(NAMES)
    assert driver.get_log("browser") == []
