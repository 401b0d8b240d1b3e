"""The pictures of `urae ui` in docs/images, taken of the page itself in a real browser, on the miniature.

PYTHONPATH=tests:tests/ui .venv/bin/python docs/pictures.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ui_page import Page, serving

from browser import browsing, resize

IMAGES = Path(__file__).parent / "images"
PROMPT = "a flat tiger on a wood background"
ADAPTER = {"size": "512x512", "adapters": "mini:4x"}


def drawn(page: Page, **fields: str) -> list[str]:
    """The names of a finished job's pictures."""
    before = {path.name for path in page.out.glob("*.png")}
    assert page.wait(page.draw(**fields)) == "done"
    return sorted({path.name for path in page.out.glob("*.png")} - before)


def main() -> None:
    with TemporaryDirectory() as folder, serving(Path(folder)) as page:
        (native,) = drawn(page, prompt=PROMPT, size="512x512", method="direct", policy="none", seeds="1")
        (adapted,) = drawn(page, prompt=PROMPT, seeds="1", **ADAPTER)
        with browsing(Path(folder) / "profile") as driver:
            resize(driver, 960, 900)
            driver.get(page.link)
            driver.find_element("id", "prompt").send_keys(PROMPT)
            driver.save_screenshot(str(IMAGES / "ui-draw.png"))
            resize(driver, 960, 620)
            driver.get(f"{page.url}/look?p={native},{adapted}")
            driver.save_screenshot(str(IMAGES / "ui-look.png"))


if __name__ == "__main__":
    main()
