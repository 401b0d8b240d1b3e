"""What pictures are called, what they were asked to show, and that nothing is measured twice."""

import json

import numpy as np
import pytest
from PIL import Image

from urae.errors import BadFile
from urae.generation import save_png
from urae.metrics import METRICS, Options
from urae.metrics.features import FeatureCache, feature_key, versions
from urae.metrics.matching import prompts_by_id
from urae.metrics.pictures import LazyPicture, MeasuredPicture, as_candidates, collect


def picture(shade: int, **info: str) -> Image.Image:
    image = Image.new("RGB", (32, 16), (shade, 0, 0))
    image.info = dict(info)
    return image


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        save_png(picture(i, prompt=f"shade {i}"), tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


def prompts(samples) -> dict[str, str]:
    return {sample.name: sample.prompt for sample in samples}


def test_a_png_s_own_prompt_is_read(folder):
    assert prompts(collect("a", folder, "png")) == {"0": "shade 0", "1": "shade 1", "2": "shade 2"}
    in_memory = [picture(i, prompt=f"shade {i}") for i in range(2)]
    assert list(prompts(collect("a", in_memory, "png")).values()) == ["shade 0", "shade 1"]


def test_prompts_by_name_in_order_or_none(folder, tmp_path):
    lines = [json.dumps({"id": str(i), "prompt": f"line {i}"}) for i in range(3)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    assert prompts(collect("a", folder, tmp_path / "prompts.jsonl"))["2"] == "line 2"
    assert prompts(collect("a", folder, {str(i): f"map {i}" for i in range(3)}))["1"] == "map 1"
    files = sorted(folder.iterdir(), reverse=True)
    assert prompts(collect("a", files, ["x", "y", "z"])) == {"2": "x", "1": "y", "0": "z"}
    (sample, *_) = collect("a", folder, "names")
    assert (sample.prompt, sample.unit) == ("", "0")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"0": "a", "1": "b", "9": "c"}, "no picture for 1 of 3 prompts, such as '9'"),
        ({"0": "a"}, "2 pictures that no prompt names, such as '1'"),
        (["a"], "3 pictures and there are 1 prompts"),
    ],
)
def test_pictures_and_prompts_must_agree(folder, given, message):
    with pytest.raises(ValueError, match=message):
        collect("ours", folder, given)


def test_a_picture_without_its_prompt_is_named(folder):
    picture(0).save(folder / "other.png")
    with pytest.raises(ValueError, match="the picture other of ours does not hold its prompt: give a file"):
        collect("ours", folder, "png")


def test_a_graph_of_comfyui_is_no_prompt(folder):
    save_png(picture(7, prompt=json.dumps({"3": {"class_type": "KSampler"}})), folder / "comfy.png")
    with pytest.raises(
        ValueError, match="the picture comfy of ours holds a graph of ComfyUI instead of its prompt"
    ):
        collect("ours", folder, "png")
    save_png(picture(7, prompt="{braces} of a kind"), folder / "comfy.png")
    assert prompts(collect("a", folder, "png"))["comfy"] == "{braces} of a kind"


def test_prompts_end_at_line_feeds_alone_and_may_begin_with_a_mark(tmp_path):
    file = tmp_path / "prompts.jsonl"
    text = "a lighthouse\u2028at\x85dusk"
    file.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"id": "a", "prompt": text}, ensure_ascii=False).encode() + b"\r\n"
    )
    assert prompts_by_id(file) == {"a": text}


def test_pictures_are_read_by_the_one_door(tmp_path):
    """16 bits and colour profiles as the data room reads them; a PostScript file under another name is refused."""
    Image.fromarray(np.full((16, 32), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    assert LazyPicture(tmp_path / "deep.png").image.getpixel((0, 0)) == (128, 128, 128)
    picture(90).save(tmp_path / "page.eps")
    (tmp_path / "page.png").write_bytes((tmp_path / "page.eps").read_bytes())
    with pytest.raises(BadFile, match="page.png is none of JPEG, PNG"):
        LazyPicture(tmp_path / "page.png").size  # noqa: B018
    Image.new("RGBA", (32, 16), (9, 9, 9, 90)).save(tmp_path / "glass.png")
    with pytest.raises(BadFile, match="glass.png is transparent"):
        LazyPicture(tmp_path / "glass.png").image  # noqa: B018


def test_folders_that_cannot_be_measured(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected a folder of pictures"):
        collect("ours", tmp_path / "nowhere", "names")
    with pytest.raises(ValueError, match="ours holds no pictures"):
        collect("ours", tmp_path / "empty", "names")
    picture(0).save(folder / "0.jpg")
    with pytest.raises(ValueError, match="two pictures named 0"):
        collect("ours", folder, "names")
    (tmp_path / "text.png").write_text("nothing")
    with pytest.raises(BadFile, match="is none of JPEG, PNG"):
        LazyPicture(tmp_path / "text.png").image  # noqa: B018


def test_a_single_candidate_is_named_after_its_folder(folder):
    assert as_candidates(folder) == {"pictures": folder}
    assert list(as_candidates([picture(0)])) == ["images"]
    assert as_candidates({"ours": folder}) == {"ours": folder}


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0).save(tmp_path / "turned.jpg", exif=exif)
    turned = LazyPicture(tmp_path / "turned.jpg")
    assert turned.size == turned.image.size == (16, 32)


def test_a_released_picture_is_read_again(tmp_path):
    picture(1).save(tmp_path / "a.png")
    one = LazyPicture(tmp_path / "a.png")
    assert one.image.getpixel((0, 0)) == (1, 0, 0)
    picture(2).save(tmp_path / "a.png")
    assert one.image.getpixel((0, 0)) == (1, 0, 0)
    one.release()
    assert one.image.getpixel((0, 0)) == (2, 0, 0)


def test_features_are_kept_whole(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache = FeatureCache(tmp_path)
    assert "ab12" not in cache
    cache["ab12"] = value.T
    np.testing.assert_array_equal(FeatureCache(tmp_path)["ab12"], value.T)
    cache["ab13"] = np.array(0.25)
    assert float(FeatureCache(tmp_path)["ab13"]) == 0.25
    files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["ab12.safetensors", "ab13.safetensors"]


def test_an_entry_with_a_flipped_bit_anywhere_is_measured_again(tmp_path):
    FeatureCache(tmp_path)["ab12"] = np.arange(3.0)
    file = tmp_path / "ab" / "ab12.safetensors"
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        kept = FeatureCache(tmp_path)
        assert "ab12" not in kept or np.array_equal(kept["ab12"], np.arange(3.0))
    file.write_bytes(b"half")
    again = FeatureCache(tmp_path)
    assert "ab12" not in again
    again["ab12"] = np.ones(3)
    np.testing.assert_array_equal(FeatureCache(tmp_path)["ab12"], np.ones(3))


def test_a_key_holds_what_the_number_depends_on(monkeypatch):
    def key(name: str, shade: int = 0, prompt: str = "a", partner: int | None = None, crops: int = 8) -> str:
        other = None if partner is None else LazyPicture(picture(partner))
        sample = MeasuredPicture(picture=LazyPicture(picture(shade)), name="x", prompt=prompt, partner=other)
        metric = METRICS[name]
        return feature_key(metric, metric.open(None, Options(device="cpu", num_crops=crops)), sample)

    assert key("grid") != key("stripes")
    assert key("grid") != key("grid", shade=1)
    assert key("psnr", partner=1) != key("psnr", partner=2)
    assert key("mini_alignment", prompt="a") != key("mini_alignment", prompt="b")
    assert key("mini_patch_kid", crops=4) != key("mini_patch_kid", crops=8)
    before = key("grid")
    reader = METRICS["mini_recognition"].open(None, Options(device="cuda", num_crops=8))
    sample = MeasuredPicture(picture=LazyPicture(picture(0)), name="x", prompt="a")
    assert feature_key(METRICS["mini_recognition"], reader, sample) != key("mini_recognition")
    monkeypatch.setitem(versions(), "pillow", "0.1")
    assert key("grid") != before
    # Shared where it is the same: by every prompt where none is read, and by metrics of the same features.
    assert key("grid", prompt="a") == key("grid", prompt="b")
    assert key("mini_patch_fid") == key("mini_patch_kid")
