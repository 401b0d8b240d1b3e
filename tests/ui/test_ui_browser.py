"""The page in a real browser: from a prompt to a picture at 4x, in two tabs, on a phone, and when drawing is killed."""

import io
import multiprocessing
import os
import signal

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from ui_page import wait_for

import processes
from browser import browsing, needs_chromium, resize
from urae import recipes
from urae.training import save_recipe

pytestmark = [needs_chromium, pytest.mark.slow]
PROMPT = "a flat tiger on a wood background"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as driver:
        driver.get(page.link)
        yield driver


@pytest.fixture
def driver(browser):
    resize(browser, 1280, 800)
    browser.get_log("browser")
    return browser


def find(driver, query):
    return driver.find_elements(By.CSS_SELECTOR, query)


def ask(driver, query, what="innerText"):
    """In one step, since an element that was found may be gone with its page before it is read."""
    return driver.execute_script(f"return document.querySelector(arguments[0])?.{what} ?? ''", query)


def click(driver, query):
    wait_for(lambda: find(driver, query))
    driver.execute_script("document.querySelector(arguments[0]).click()", query)


def test_from_a_prompt_to_a_picture_at_4x(page, driver, tmp_path):
    """Four native pictures, then the third of them at 4x, watched in another tab. What is shown at 100% is the command
    line's picture, to the pixel."""
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    second = driver.current_window_handle
    driver.get(f"{page.url}/jobs")
    driver.switch_to.window(first)
    find(driver, "#prompt")[0].send_keys(PROMPT)
    click(driver, "#sketch")
    wait_for(lambda: ask(driver, "article", "dataset.state") == "done")
    natives = [image.get_attribute("alt") for image in find(driver, ".tiles img")]
    assert len(natives) == 4

    click(driver, f'[data-larger="4x"][data-native="{natives[2]}"]')
    wait_for(lambda: ask(driver, "article .preview", "naturalWidth"))
    wait_for(lambda: ask(driver, "article", "dataset.state") == "done")
    (name,) = [image.get_attribute("alt") for image in find(driver, ".tiles img")]
    words = ("--size", "512x512", "--method", "sdedit", "--native", page.out / natives[2])
    made = processes.urae("generate", PROMPT, *words, "--out", tmp_path)
    assert made.returncode == 0, made.stderr
    assert_shown_at_100_percent(driver, page, name, np.asarray(Image.open(tmp_path / name).convert("RGB")))

    # The other tab has heard of both jobs by itself.
    driver.switch_to.window(second)
    wait_for(lambda: len(find(driver, '[data-state="done"]')) == 2)
    assert len(find(driver, ".tiles img")) == 5
    assert driver.get_log("browser") == []
    driver.close()
    driver.switch_to.window(first)


def assert_shown_at_100_percent(driver, page, name, expected):
    driver.get(f"{page.url}/look?p={name}")
    wait_for(lambda: ask(driver, ".pane img", "naturalWidth") == expected.shape[1])
    driver.execute_script("document.querySelector('#zoom').click(); scrollTo(0, 0)")
    box = driver.execute_script("return document.querySelector('.pane img').getBoundingClientRect().toJSON()")
    left, top = round(box["x"]), round(box["y"])
    shown = np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB"))
    # Without the rows that hold the caption.
    patch = shown[top : top + expected.shape[0] - 60, left : left + expected.shape[1]]
    assert patch.shape[0] > 400
    assert np.array_equal(patch, expected[: patch.shape[0]])


def test_a_killed_drawing_process_is_said_and_gone_on_from(page, driver):
    driver.get(page.url)
    for query, words in (("#prompt", "a glossy apple"), ("#seeds", "-5"), ("#steps", "20")):
        find(driver, query)[0].send_keys(words)
    click(driver, '[data-size="128x128"]')
    click(driver, "#draw .primary")
    wait_for(lambda: find(driver, ".tiles img"))
    kept = ask(driver, ".tiles img", "alt")
    for child in multiprocessing.active_children():
        if child.name.startswith("SpawnProcess"):
            os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: ask(driver, "article", "dataset.state") == "failed")
    assert "finished pictures are kept" in ask(driver, ".message")
    written = (page.out / kept).stat().st_mtime_ns
    click(driver, '[data-post="/again"]')
    wait_for(lambda: ask(driver, "article", "dataset.state") == "done")
    assert len(find(driver, ".tiles img")) == 6
    assert (page.out / kept).stat().st_mtime_ns == written


def test_every_page_fits_a_phone(page, driver):
    resize(driver, 390, 844, phone=True)
    job = page.draw(prompt=f"{PROMPT}, " * 40, size="128x128", steps="1", seeds="7-8")
    run = page.out.parent / "runs" / f"a-run-with-quite-a-long-name-{'of-many-words-' * 4}"
    run.mkdir(parents=True)
    (run / "adapter.safetensors").touch()
    save_recipe(recipes.mini_2x(), run / "recipe.yaml")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    page.wait(job)
    names = ",".join(path.name for path in page.out.glob("*.png"))
    for path in ("/", "/jobs", f"/job/{job}", f"/look?p={names[:200].rpartition('.png')[0]}.png", "/runs"):
        driver.get(page.url + path)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390, path
        if path == "/":
            assert run.name in ask(driver, "form", "innerText")
        if path == "/jobs":  # a long prompt does not push the others off the page
            assert ask(driver, ".card h2", "clientHeight") < 120
        assert find(driver, "main h1")
