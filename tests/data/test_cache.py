import fcntl
import json
import math
import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from small_disk import small_disk
from tiny import with_text_encoders, write_images
from urae.data import cache, make_cache, open_cache, scan_folder, write_manifest
from urae.data.pixels import load_pixels, training_buckets
from urae.errors import BadFile, CannotWrite, StaleCache
from urae.families import family_of
from urae.io import Unreadable


@pytest.fixture
def pipe(pipe):
    return with_text_encoders(pipe)


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", [(64, 64), (128, 96), (64, 128)])


def files(made) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((made.path / "entries").iterdir())}


def test_a_sample_is_what_the_family_says(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    entry = made.entries[0]
    original, detailed = (made.load(entry, kind) for kind in ("original", "detailed"))
    pixels = load_pixels(folder / entry.record.file, entry.bucket)[None]
    posterior = family_of(pipe).latents.encode(pipe, pixels)
    assert torch.equal(original.posterior.mean, posterior.mean[0])
    assert torch.equal(original.posterior.std, posterior.std[0])
    for sample, caption in ((original, "a"), (detailed, "a b")):
        embeddings = family_of(pipe).text.encode(pipe, [caption])
        assert sample.text.keys() == embeddings.keys()
        assert all(torch.equal(sample.text[name], tensor[0]) for name, tensor in embeddings.items())


def test_a_record_with_one_caption_has_that_one(pipe, folder, tmp_path):
    (folder / "00.json").write_text(json.dumps({"prompt": "z"}))
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    original, detailed = (made.load(made.entries[0], kind).text for kind in ("original", "detailed"))
    assert all(torch.equal(tensor, detailed[name]) for name, tensor in original.items())


def test_images_keep_their_shape(pipe, tmp_path):
    folder = write_images(tmp_path / "images", [(128, 128), (192, 144), (128, 256)])
    made = cache(pipe, folder, tmp_path / "cache", size=128)
    for entry in made.entries:
        width, height = entry.bucket
        assert made.load(entry).posterior.mean.shape == (16, height // 8, width // 8)
    assert [e.bucket[0] / e.bucket[1] for e in made.entries] == pytest.approx([1, 4 / 3, 1 / 2], rel=0.1)


def test_buckets_have_the_same_shapes_at_every_size():
    def shapes(size):
        return [(width / size, height / size) for width, height in training_buckets(size)]

    assert shapes(256) == shapes(1024) == shapes(4096)
    assert 8 <= len(shapes(1024)) <= 16
    assert all(0.95 <= math.prod(shape) <= 1.05 for shape in shapes(1024))


def test_pixels_cover_the_bucket_and_are_cropped_to_the_middle(tmp_path):
    # Left half black, right half white: squeezed to height 64 it is 128 wide, of which the middle 64 remain.
    pixels = np.zeros((128, 256, 3), np.uint8)
    pixels[:, 128:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_pixels(tmp_path / "a.png", (64, 64))
    assert loaded.shape == (3, 64, 64)
    assert loaded[:, :, :30].max() < -0.95
    assert loaded[:, :, 34:].min() > 0.95


def test_an_image_of_the_bucket_size_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_pixels(tmp_path / "a.png", (64, 48))
    assert np.array_equal(((loaded.permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8), pixels)


def test_pixels_are_never_enlarged(tmp_path):
    Image.new("RGB", (63, 64)).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"a\.png has 63x64 px, too few for 64x64, and images are never enlarged"
    ):
        load_pixels(tmp_path / "a.png", (64, 64))


def test_small_images_are_listed_and_nothing_is_enlarged(pipe, folder, tmp_path):
    with pytest.raises(ValueError, match=r"3 images are too small for 128 px.*00.png \(64x64\), 01.png"):
        cache(pipe, folder, tmp_path / "cache", size=128)
    assert not (tmp_path / "cache").exists()


def test_a_transparent_image_is_refused(pipe, folder, tmp_path):
    Image.fromarray(np.full((64, 64, 4), 128, np.uint8)).save(folder / "00.png")
    with pytest.raises(BadFile, match="00.png is transparent"):
        cache(pipe, folder, tmp_path / "cache", size=64)


def test_a_cache_is_reopened_as_it_was(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    opened = open_cache(tmp_path / "cache")
    assert opened == made
    assert opened.digest == made.digest
    opened.check(pipe)


def test_a_stopped_run_goes_on_and_is_not_taken_for_complete(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    before = files(made)
    (made.path / "records.jsonl").unlink()
    lost = next((made.path / "entries").glob("*.latents.safetensors"))
    lost.unlink()
    with pytest.raises(StaleCache, match="unfinished"):
        open_cache(made.path)
    after = files(cache(pipe, folder, made.path, size=64))
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {lost.name}


def test_another_caption_makes_its_entry_anew_and_no_other(pipe, folder, tmp_path):
    before = cache(pipe, folder, tmp_path / "cache", size=64)
    times = files(before)
    (folder / "01.json").write_text(json.dumps({"prompt": "q", "generated_prompt": "b c"}))
    after = cache(pipe, folder, tmp_path / "cache", size=64)
    changed = {name for name, time in files(after).items() if time != times[name]}
    assert changed == {f"{after.entries[1].record.id}.original.safetensors"}
    assert after.digest != before.digest


def test_other_weights_are_detected(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight[0] += 0.1
    with pytest.raises(StaleCache, match="cached with another VAE"):
        made.check(pipe)
    with pytest.raises(StaleCache, match="another identity"):
        cache(pipe, folder, tmp_path / "cache", size=64)


def test_another_size_needs_another_folder(pipe, folder, tmp_path):
    cache(pipe, folder, tmp_path / "cache", size=64)
    with pytest.raises(StaleCache, match=r"another size \(64 px, .* asked for 48 px"):
        cache(pipe, folder, tmp_path / "cache", size=48)


def test_text_encoders_may_stay_unloaded_once_cached(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    pipe.text_encoder = pipe.text_encoder_2 = None
    made.check(pipe)


def test_a_foreign_entry_is_never_used(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    first, second = (made.path / "entries" / f"{e.record.id}.latents.safetensors" for e in made.entries[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(StaleCache, match=r"was not made from 00\.png"):
        made.load(made.entries[0])


def cut(data: bytes) -> bytes:
    return data[:-10]


def flipped(data: bytes) -> bytes:
    return data[:-10] + bytes([data[-10] ^ 1]) + data[-9:]


@pytest.mark.parametrize("damaged", [cut, flipped])
@pytest.mark.parametrize("part", ["latents", "detailed"])
def test_a_damaged_entry_is_named_and_made_anew(pipe, folder, tmp_path, damaged, part):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    entry = made.path / "entries" / f"{made.entries[0].record.id}.{part}.safetensors"
    whole = entry.read_bytes()
    entry.write_bytes(damaged(whole))
    with pytest.raises(BadFile, match=f"{entry.name} in .* is damaged .*: cache the data again"):
        made.load(made.entries[0])
    report = make_cache(pipe, folder, tmp_path / "cache", size=64)
    assert (report.num_encoded, report.num_embedded) == ((1, 0) if part == "latents" else (0, 1))
    assert entry.read_bytes() == whole


def test_a_missing_entry_is_named(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    (made.path / "entries" / f"{made.entries[0].record.id}.latents.safetensors").unlink()
    with pytest.raises(BadFile, match=r"latents\.safetensors is missing: cache the data again"):
        made.load(made.entries[0])


def test_a_manifest_whose_image_changed_is_stale(pipe, folder, tmp_path):
    write_manifest(scan_folder(folder), folder / "m.jsonl")
    Image.new("RGB", (64, 64)).save(folder / "00.png")
    with pytest.raises(StaleCache, match=r"00\.png is not the image that the manifest names"):
        cache(pipe, folder / "m.jsonl", tmp_path / "cache", size=64)


def test_a_missing_image_is_named_when_the_others_are_done(pipe, folder, tmp_path):
    write_manifest(scan_folder(folder), folder / "m.jsonl")
    (folder / "00.png").unlink()
    with pytest.raises(BadFile, match=r"00\.png cannot be opened"):
        cache(pipe, folder / "m.jsonl", tmp_path / "cache", size=64)
    assert len(list((tmp_path / "cache" / "entries").glob("*.latents.safetensors"))) == 2


def test_a_manifest_with_another_size_than_the_image_has_is_stale(pipe, folder, tmp_path):
    """It would be enlarged, or be given a black border, without a word."""
    records = scan_folder(folder)
    write_manifest([replace(records[0], size=(256, 256)), *records[1:]], folder / "m.jsonl")
    with pytest.raises(StaleCache, match=r"00\.png has 64x64 px, not the 256x256 that the manifest names"):
        cache(pipe, folder / "m.jsonl", tmp_path / "cache", size=64)


def test_what_is_unreadable_can_be_told_to_another_process():
    error = pickle.loads(pickle.dumps(Unreadable("a.png", "transparent", "alpha 7")))
    assert str(error) == str(Unreadable("a.png", "transparent", "alpha 7"))
    assert (error.reason, error.detail) == ("transparent", "alpha 7")


def test_a_second_run_waits_for_the_first_and_finds_its_work_done(pipe, folder, tmp_path, capfd):
    out = tmp_path / "cache"
    cache(pipe, folder, out, size=64)
    reports = []
    second = threading.Thread(target=lambda: reports.append(make_cache(pipe, folder, out, size=64)))
    with (out / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second.start()
        second.join(1.0)
        assert second.is_alive()
        assert not reports
    second.join()
    assert (reports[0].num_encoded, reports[0].num_embedded) == (0, 0)
    assert f"another run is making {out}: waiting for it" in " ".join(capfd.readouterr().err.split())


def test_a_finished_cache_can_be_read_while_it_is_made_again(pipe, folder, tmp_path):
    """By another training, which starts now; if it is made of something else, it cannot."""
    out = tmp_path / "cache"
    before = cache(pipe, folder, out, size=64)
    stock = type(pipe.vae).encode
    opened = []

    def encode(self, *arguments, **options):
        opened.append((out / "records.jsonl").is_file())
        return stock(self, *arguments, **options)

    pipe.vae.encode = encode.__get__(pipe.vae)
    (out / "entries" / f"{before.entries[0].record.id}.latents.safetensors").unlink()
    cache(pipe, folder, out, size=64)
    Image.new("RGB", (64, 64)).save(folder / "00.png")
    cache(pipe, folder, out, size=64)
    assert opened == [True, False]


def test_a_folder_that_is_no_cache(tmp_path):
    with pytest.raises(BadFile, match="is not a cache"):
        open_cache(tmp_path)


def test_latents_are_stored_in_the_type_of_the_vae(pipe, folder, tmp_path):
    pipe.vae.to(torch.bfloat16)
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    entry = load_file(made.path / "entries" / f"{made.entries[0].record.id}.latents.safetensors")
    assert entry["mean"].dtype == torch.bfloat16
    assert made.load(made.entries[0]).posterior.mean.dtype == torch.float32


def test_a_changed_image_is_encoded_anew(pipe, folder, tmp_path):
    before = cache(pipe, folder, tmp_path / "cache", size=64)
    pixels = np.array(Image.open(folder / "00.png"))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "00.png")
    report = make_cache(pipe, folder, tmp_path / "cache", size=64)
    assert report.num_encoded == 1
    assert report.cache.entries[0].record.id != before.entries[0].record.id
    assert report.cache.digest != before.digest


def test_entries_of_another_size_are_not_read_even_under_their_name(pipe, folder, tmp_path):
    small, large = (cache(pipe, folder, tmp_path / str(size), size=size) for size in (32, 64))
    name = f"{small.entries[0].record.id}.latents.safetensors"
    (large.path / "entries" / name).write_bytes((small.path / "entries" / name).read_bytes())
    with pytest.raises(StaleCache, match="was not made from"):
        large.load(large.entries[0])


def test_captions_come_first_and_only_the_encoders_at_work_are_on_the_device(pipe, folder, tmp_path):
    moves = []
    for name in ("text_encoder", "text_encoder_2", "vae"):
        module = getattr(pipe, name)

        def to(device, name=name, stock=module.to):
            moves.append((name, str(device)))
            return stock(device)

        module.to = to
    cache(pipe, folder, tmp_path / "cache", size=64, device="cpu:0")
    there = [(name, "cpu:0") for name in ("text_encoder", "text_encoder_2")]
    back = [("text_encoder_2", "cpu"), ("text_encoder", "cpu")]
    assert moves == [*there, *back, ("vae", "cpu:0"), ("vae", "cpu")]


def test_every_unreadable_image_is_named_when_the_others_are_done(pipe, folder, tmp_path):
    write_manifest(scan_folder(folder), folder / "m.jsonl")
    for name in ("00.png", "02.png"):
        Image.new("RGB", (64, 64)).save(folder / name)
    with pytest.raises(BadFile, match=r"2 of 3 images could not be cached.*00\.png is not.*02\.png is not"):
        cache(pipe, folder / "m.jsonl", tmp_path / "cache", size=64)
    assert len(list((tmp_path / "cache" / "entries").glob("*.latents.safetensors"))) == 1
    with pytest.raises(StaleCache, match="unfinished"):
        open_cache(tmp_path / "cache")


def test_the_report_counts_what_was_done_and_what_lies_on_disk(pipe, folder, tmp_path):
    first, second = (make_cache(pipe, folder, tmp_path / "cache", size=64) for _ in range(2))
    assert (first.num_encoded, first.num_embedded) == (3, 6)
    assert (second.num_encoded, second.num_embedded) == (0, 0)
    assert first.images_per_second > 0
    assert first.num_bytes == sum(p.stat().st_size for p in (tmp_path / "cache" / "entries").iterdir())
    assert "3 images at 64 px" in str(first)
    assert "encoded 0 images (exact) and embedded 0 captions" in str(second)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"form": "tiny"}, "form is 'tiny': expected one of full, small"),
        ({"encoding": "fast"}, "encoding is 'fast'"),
    ],
)
def test_an_unknown_option_is_answered_with_the_known_ones(pipe, folder, tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        cache(pipe, folder, tmp_path / "cache", size=64, **option)


def test_the_small_form_is_close_to_the_full_one_and_smaller(pipe, folder, tmp_path):
    full, small = (
        make_cache(pipe, folder, tmp_path / form, size=64, form=form) for form in ("full", "small")
    )
    exact, rounded = (made.cache.load(made.cache.entries[0]) for made in (full, small))
    assert torch.equal(rounded.posterior.mean, exact.posterior.mean)
    torch.testing.assert_close(rounded.posterior.std, exact.posterior.std, rtol=0.01, atol=0)
    for name, tensor in exact.text.items():
        assert (rounded.text[name] - tensor).norm() < 0.01 * tensor.norm()
    assert open_cache(tmp_path / "small").form == "small"
    with pytest.raises(StaleCache, match="another form"):
        cache(pipe, folder, tmp_path / "small", size=64)


def test_a_list_of_records_that_lacks_a_line_is_not_taken_for_complete(pipe, folder, tmp_path):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    listed, before = made.path / "records.jsonl", files(made)
    whole = listed.read_bytes()
    listed.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(StaleCache, match="unfinished"):
        open_cache(made.path)
    assert cache(pipe, folder, tmp_path / "cache", size=64) == made
    assert (listed.read_bytes(), files(made)) == (whole, before)


def test_a_cache_of_an_earlier_version_is_read(pipe, folder, tmp_path):
    """It has no hash of its list, and a lock and a half-written file may lie in it."""
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    header = json.loads((made.path / "cache.json").read_text())
    del header["records"]
    (made.path / "cache.json").write_text(json.dumps(header))
    (made.path / "lock").touch()
    assert open_cache(made.path) == made
    assert make_cache(pipe, folder, tmp_path / "cache", size=64).num_encoded == 0


@pytest.mark.parametrize(
    "change", [{"size": "64"}, {"identity": {}}, {"identity": {"latents": 1, "text": "a"}}]
)
def test_a_header_of_other_types_is_named(pipe, folder, tmp_path, change):
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    header = json.loads((made.path / "cache.json").read_text())
    (made.path / "cache.json").write_text(json.dumps(header | change))
    with pytest.raises(BadFile, match=r"cache.json of .*expected"):
        open_cache(made.path)


def test_a_place_that_cannot_be_written_is_named_before_the_work(pipe, folder, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out is not a folder: give another place"):
        cache(pipe, folder, tmp_path / "out", size=64)


@pytest.mark.parametrize("num_bytes", [700])
def test_a_disk_without_room_is_one_sentence_and_the_same_call_goes_on(pipe, folder, tmp_path, num_bytes):
    whole = cache(pipe, folder, tmp_path / "whole", size=64)
    with small_disk(num_bytes), pytest.raises(CannotWrite, match=r"cannot be written: .*run again"):
        cache(pipe, folder, tmp_path / "cache", size=64)
    assert not list((tmp_path / "cache").rglob(".urae-*"))
    made = cache(pipe, folder, tmp_path / "cache", size=64)
    assert made.digest == whole.digest
    for name in files(whole):
        assert made.store.entry(name) == whole.store.entry(name)
