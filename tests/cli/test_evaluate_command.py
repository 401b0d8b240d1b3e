"""`urae evaluate`: the table on the terminal and in each kind of file, and errors in one sentence."""

import json

import pytest
from PIL import Image, ImageFilter

from urae.cli import app
from urae.generation import save_png
from urae.mini import render, scene


@pytest.fixture
def folders(tmp_path):
    for i in range(6):
        image = render(scene(i), 128)
        blurred = image.filter(ImageFilter.GaussianBlur(3))
        for name, picture in (("sharp", image), ("soft", blurred)):
            picture.info = {"prompt": scene(i).caption()}
            save_png(picture, tmp_path / name / f"{i}.png")
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        app([str(argument) for argument in ("evaluate", *arguments)])
    return stopped.value.code


def test_four_kinds_of_table_from_one_run(folders, capsys):
    candidates = [f"--candidate={name}={folders / name}" for name in ("sharp", "soft")]
    files = [folders / f"table{suffix}" for suffix in (".md", ".json", ".html")]
    code = run(
        *candidates,
        "--metrics=psnr@sharp, mini_alignment",
        f"--against={folders / 'sharp'}",
        "--baseline=soft",
        f"--cache={folders / 'cache'}",
        *(f"--out={file}" for file in files),
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert all(f"wrote {file}" in printed for file in files)
    assert files[0].read_text() in printed
    assert "**58.92**" in files[0].read_text()
    cells = json.loads(files[1].read_text())["cells"]
    assert cells["sharp"]["mini_alignment"]["value"] == 1
    assert files[2].read_text().count("data:image/jpeg") == 12
    assert any((folders / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=table.pdf"], "expected a name that ends in .md, .json or .html"),
        (["--candidate=sharp"], "candidate is 'sharp': expected name=PATH"),
        (["--candidate=sharp=x"], "candidate 'sharp' is given twice"),
        (["--prompts=nowhere.jsonl"], "expected png, names, or a file of prompts"),
        (["--metrics=fid", "--against=sharp"], "fid needs weights"),
        (["--weights=clip=nowhere"], "there are no weights at nowhere"),
    ],
)
def test_what_cannot_be_is_one_sentence(folders, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(folders)
    assert run("--candidate=sharp=sharp", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(folders.glob("table.*"))


def test_what_no_table_can_hold_is_known_before_anything_is_measured(folders, capsys):
    fewer, other = folders / "fewer", folders / "other"
    for folder, num in ((fewer, 5), (other, 6)):
        folder.mkdir()
        for index in range(num):
            Image.new("RGB", (128, 128)).save(folder / f"x{index}.png")
    asked = ["--prompts=names", "--metrics=detail", f"--cache={folders / 'cache'}"]
    for given, said in (
        ([f"--candidate=a={fewer}"], "there are 5 different prompts: expected at least 6"),
        ([f"--candidate=a={other}", f"--candidate=b={folders / 'sharp'}"], "needs the same prompts"),
    ):
        assert run(*given, *asked) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert said in told
        assert "measuring" not in told
    assert not (folders / "cache").exists()


def test_without_prompts_names_count(folders, capsys):
    Image.new("RGB", (128, 128)).save(folders / "sharp" / "plain.png")
    arguments = (f"--candidate=a={folders / 'sharp'}", "--metrics=detail", f"--cache={folders / 'cache'}")
    assert run(*arguments) == 2
    assert "does not hold its prompt" in " ".join(capsys.readouterr().err.split())
    assert run(*arguments, "--prompts=names") == 0
    assert "Means over 7 prompts" in capsys.readouterr().out
