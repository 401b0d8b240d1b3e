"""The documentation site builds, every page is in its navigation, and a link that leads nowhere stops it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ZENSICAL = Path(sys.executable).with_name("zensical")


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """The site of a copy of the docs, in `folder`/site."""
    return subprocess.run([ZENSICAL, "build", "--strict"], cwd=folder, capture_output=True, text=True)


def test_the_site_builds_without_a_dead_link(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    result = built(tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tmp_path / "site" / "reference" / "settings" / "index.html").read_text()
    assert "caption_mix" in page

    with (tmp_path / "docs" / "index.md").open("a") as file:
        file.write("\n[nowhere](guides/plan.md#no-such-heading)\n")
    assert built(tmp_path).returncode != 0


def test_every_page_is_in_the_navigation():
    def pages(entry):
        values = entry.values() if isinstance(entry, dict) else entry
        return [page for part in values for page in ([part] if isinstance(part, str) else pages(part))]

    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages(nav)) == written
