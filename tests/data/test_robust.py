"""500 malformed files: each is rejected by name or read right, none crashes the run or enters the data set unseen."""

import io
import json
import os
import struct
import tarfile
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageCms

from urae.data import list_images
from urae.intake import Filters, import_images
from urae.io import Unreadable, decode, read_picture

EACH = 15


def picture(seed=0, mode="RGB"):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    return image.convert(mode)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(content, rng):
    return content[: int(len(content) * rng.uniform(0.1, 0.9))]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits=8, colour=2, content=b"", between=b""):
    """A PNG whose header says what it likes, with right checksums."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + data + chunk(b"IEND", b"")


def spoiled_png(seed, rng):
    content = bytearray(encoded(picture(seed)))
    content[int(rng.integers(60, len(content) - 30))] ^= 0x55
    return bytes(content)


def frames(kind, seed):
    return encoded(picture(seed), kind, save_all=True, append_images=[picture(seed + 1)])


def see_through(seed):
    image = picture(seed, "RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image)


def pale_palette(seed):
    return encoded(picture(seed, "RGB").quantize(8), transparency=0)


def wrong_profile(seed):
    """A CMYK image that says its colours are RGB."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return encoded(picture(seed, "CMYK"), "JPEG", icc_profile=srgb)


def text_bomb():
    packed = zlib.compress(bytes(80_000_000), 9)
    return png(48, 40, content=bytes(40 * 145), between=chunk(b"zTXt", b"x\0\0" + packed))


def tiff_beyond_its_end(seed):
    content = encoded(picture(seed), "TIFF")
    return content[:4] + struct.pack("<I", len(content) + 1000 + seed) + content[8:]


def grey_tiff(pixels, photometric, order="<"):
    """A TIFF of 16-bit grey."""
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: photometric, 277: 1, 278: height}
    tags |= {273: 8 + 2 + 9 * 12 + 4, 279: pixels.size * 2}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return start + entries + bytes(4) + pixels.astype(f"{order}u2").tobytes()


def white_is_zero(seed):
    return grey_tiff(np.random.default_rng(seed).integers(0, 65536, (40, 48)), photometric=0)


def beside_pixels(seed, between):
    rows = np.pad(np.asarray(picture(seed)).reshape(40, 144), ((0, 0), (1, 0)))
    return png(48, 40, content=rows.astype(np.uint8).tobytes(), between=between)


def with_gamma(seed, gamma):
    return beside_pixels(seed, chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000))))


def with_code_points(seed, primaries, transfer):
    return beside_pixels(seed, chunk(b"cICP", bytes([primaries, transfer, 0, 1])))


def wide_avif(seed):
    content = bytearray(encoded(picture(seed), "AVIF"))
    box = content.index(b"colrnclx")
    content[box + 8 : box + 12] = struct.pack(">HH", 9, 16)
    return bytes(content)


# kind -> (ending, the file of a number, the reason it is rejected for)
MALFORMED = {
    "empty": (".jpg", lambda i, rng: b"", "empty"),
    "random bytes": (".jpg", lambda i, rng: rng.bytes(int(rng.integers(1, 4000))), "format"),
    "an error page": (".jpg", lambda i, rng: b"<html><body>404 Not Found</body></html>" * (i + 1), "format"),
    "an archive": (".webp", lambda i, rng: b"PK\x03\x04" + rng.bytes(200 + i), "format"),
    "a gif named jpg": (".jpg", lambda i, rng: encoded(picture(i), "GIF"), "format"),
    "a bmp": (".bmp", lambda i, rng: encoded(picture(i), "BMP"), "format"),
    "postscript": (".tif", lambda i, rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),
    "a drawing": (".svg", lambda i, rng: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "format"),
    "a cut jpeg": (".jpg", lambda i, rng: cut(encoded(picture(i), "JPEG"), rng), "damaged"),
    "a cut png": (".png", lambda i, rng: cut(encoded(picture(i)), rng), "damaged"),
    "a cut webp": (".webp", lambda i, rng: cut(encoded(picture(i), "WEBP"), rng), "damaged"),
    "a cut tiff": (".tiff", lambda i, rng: cut(encoded(picture(i), "TIFF"), rng), "damaged"),
    "a cut avif": (".avif", lambda i, rng: cut(encoded(picture(i), "AVIF"), rng), "damaged"),
    "a spoiled png": (".png", spoiled_png, "damaged"),
    "a jpeg that ends in zeros": (".jpg", lambda i, rng: b"\xff\xd8\xff\xe0" + bytes(500 + i), "damaged"),
    "a tiff that points beyond its end": (".tif", lambda i, rng: tiff_beyond_its_end(i), "damaged"),
    "a bomb": (".png", lambda i, rng: png(30_000 + i, 30_000, 1, 0, bytes(1000)), "bomb"),
    "an animated webp": (".webp", lambda i, rng: frames("WEBP", i), "animated"),
    "an animated png": (".png", lambda i, rng: frames("PNG", i), "animated"),
    "a tiff of pages": (".tiff", lambda i, rng: frames("TIFF", i), "animated"),
    "transparent": (".png", lambda i, rng: see_through(i), "transparent"),
    "a transparent colour": (".png", lambda i, rng: pale_palette(i), "transparent"),
    "cmyk without a profile": (".jpg", lambda i, rng: encoded(picture(i, "CMYK"), "JPEG"), "colours"),
    "a profile of another space": (".jpg", lambda i, rng: wrong_profile(i), "colours"),
    "a broken profile": (".png", lambda i, rng: encoded(picture(i), icc_profile=rng.bytes(300)), "colours"),
    "lab": (".tif", lambda i, rng: encoded(picture(i, "LAB"), "TIFF"), "colours"),
    "floats": (".tif", lambda i, rng: encoded(picture(i, "F"), "TIFF"), "depth"),
    "white is zero": (".tif", lambda i, rng: white_is_zero(i), "depth"),
    "linear light": (".png", lambda i, rng: with_gamma(i, 1.0), "colours"),
    "high dynamic range": (".png", lambda i, rng: with_code_points(i, 9, 16), "colours"),
    "a wide avif": (".avif", lambda i, rng: wide_avif(i), "colours"),
    "32-bit integers": (".tif", lambda i, rng: encoded(picture(i, "I"), "TIFF"), "depth"),
}


def write(folder):
    """Every kind `EACH` times, and what no file's bytes can be; the reason expected of each name."""
    rng, expected = np.random.default_rng(0), {}
    for kind, (ending, make, reason) in MALFORMED.items():
        for number in range(EACH):
            name = f"{kind} {number}{ending}"
            (folder / name).write_bytes(make(number, rng))
            expected[name] = reason
    for number in range(EACH):
        expected |= _odd(folder, number)
    return expected


def _odd(folder, number):
    os.symlink("nowhere", folder / f"link {number}.jpg")
    os.mkfifo(folder / f"pipe {number}.jpg")
    (folder / f"directory {number}.jpg").mkdir()
    sidecars = {"json": b'{"prompt": ', "number": b'{"prompt": 7}', "latin": b'{"prompt": "\xe9"}'}
    for name, content in sidecars.items():
        (folder / f"{name} {number}.png").write_bytes(encoded(picture(number)))
        (folder / f"{name} {number}.json").write_bytes(content)
    _damaged_shard(folder / f"shard {number}.tar", number)
    names = [f"link {number}.jpg", f"pipe {number}.jpg", f"shard {number}.tar/(the rest)"]
    return dict.fromkeys([*names, *(f"{name} {number}.png" for name in sidecars)], "sidecar")


def _damaged_shard(path, number):
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("0.png")
        info.size = 3000
        tar.addfile(info, io.BytesIO(bytes(3000)))
    path.write_bytes(path.read_bytes()[: 600 + number])


@pytest.fixture(scope="module")
def malformed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malformed")
    expected = write(folder)
    good = [encoded(picture(1000 + number)) for number in range(5)]
    for number, content in enumerate(good):
        (folder / f"good {number}.png").write_bytes(content)
    out = tmp_path_factory.mktemp("out")
    done = import_images([folder], out / "x", Filters(size=16, duplicates=-1))
    return folder, expected, good, done


def test_every_malformed_file_is_rejected_by_name_for_its_own_reason(malformed):
    folder, expected, _, done = malformed
    found = {reject.name.removeprefix(f"{folder.as_posix()}/"): reject.reason for reject in done.rejects}
    wrong = {
        name: (found.get(name), reason) for name, reason in expected.items() if found.get(name) != reason
    }
    # A shard's only image is cut as well as the shard.
    extra = {name for name in found.keys() - expected.keys() if not name.endswith(".tar/0.png")}
    assert (wrong, extra) == ({}, set())
    assert len(expected) >= 500


def test_only_the_good_files_enter_the_data_set(malformed):
    _, _, good, done = malformed
    taken = [(done.manifest.parent / record.file).read_bytes() for record in done.records]
    assert sorted(taken) == sorted(good)


def test_every_reject_says_what_was_wrong(malformed):
    *_, done = malformed
    lines = (done.manifest.parent / "import" / "rejects.jsonl").read_text().splitlines()
    assert Counter(json.loads(line)["reason"] for line in lines) == done.counts
    assert all(reject.detail for reject in done.rejects)


def test_a_packed_text_that_unpacks_to_much_more_is_refused():
    with pytest.raises(Unreadable, match="cannot be read as an image"):
        decode(text_bomb(), name="x")


def test_listing_opens_no_pipe(malformed):
    folder, *_ = malformed
    assert sum("pipe" in item.name for item in list_images(folder)) == EACH


# --- what is unusual and has one right reading ---------------------------------------------------------------


def decoded(content):
    image = decode(content, name="x")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_damaged_metadata_cost_no_pixels():
    content = encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(200)))
    assert (decoded(content) == np.asarray(picture())).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_either_order_become_8(order):
    grey = np.random.default_rng(0).integers(0, 65536, (40, 48))
    assert (decoded(grey_tiff(grey, 1, order)) == np.round(grey / 257)[..., None]).all()


@pytest.mark.parametrize("colour", [2, 6])
def test_16_bits_of_colour_become_8_to_within_a_level(colour):
    """Pillow takes the upper 8 bits: 255 v / 65535 without rounding, at most one level away."""
    values = np.random.default_rng(0).integers(0, 65536, (40, 48, 3))
    alpha = [np.full((40, 48, 1), 65535)] if colour == 6 else []
    rows = np.concatenate([values, *alpha], axis=2).astype(">u2").reshape(40, -1).view(np.uint8)
    content = png(48, 40, 16, colour, np.pad(rows, ((0, 0), (1, 0))).tobytes())
    assert np.abs(decoded(content) - np.round(values / 257)).max() <= 1


@pytest.mark.parametrize("usual", [with_gamma(0, 0.45455), with_code_points(0, 1, 13)])
def test_what_a_png_says_of_usual_colours_changes_nothing(usual):
    assert (decoded(usual) == np.asarray(picture())).all()


# CIE xy of red, green and blue.
PRIMARIES = {
    "srgb": [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)],
    "display p3": [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)],
    "adobe rgb": [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)],
}
WHITE, D50 = (0.3127, 0.3290), np.array([0.9642, 1, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_d50(primaries):
    """From linear RGB to XYZ as profiles have it, by the primaries and white of D65."""
    red, green, blue, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in [*primaries, WHITE])
    colours = np.stack([red, green, blue], axis=1)
    cones = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    return np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ (colours * np.linalg.solve(colours, white))


def profile(primaries, gamma):
    """An ICC profile of version 2, written by hand."""

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    matrix = to_d50(primaries)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78), b"wtpt": D50}
    tags |= {
        b"rXYZ": matrix[:, 0],
        b"gXYZ": matrix[:, 1],
        b"bXYZ": matrix[:, 2],
        b"cprt": b"text\0\0\0\0x\0\0\0",
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        content = value if isinstance(value, bytes) else b"XYZ \0\0\0\0" + fixed(value)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    head = (
        struct.pack(">I4sI", start + len(data), b"lcms", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    )
    return head + bytes(28) + fixed(D50) + bytes(48) + struct.pack(">I", len(tags)) + table + data


@pytest.mark.parametrize(("name", "gamma"), [("display p3", 2.2), ("adobe rgb", 563 / 256), ("srgb", 1.0)])
def test_colours_are_those_that_the_formulas_give(name, gamma):
    """Decode the curve, change the primaries, clip, apply sRGB's curve: computed here without a colour library."""
    content = encoded(picture(), icc_profile=profile(PRIMARIES[name], gamma))
    linear = (np.asarray(picture()) / 255) ** (round(gamma * 256) / 256)
    change = np.linalg.inv(to_d50(PRIMARIES["srgb"])) @ to_d50(PRIMARIES[name])
    light = np.clip(linear @ change.T, 0, 1)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(decoded(content) - 255 * srgb).max() < 0.75


def test_an_almost_opaque_picture_is_a_picture_and_cmyk_of_a_jpeg_is_not():
    image = picture(mode="RGBA")
    image.putalpha(252)
    assert (decoded(encoded(image)) == np.asarray(picture())).all()
    with pytest.raises(Unreadable, match=r"profile \(CMYK\): replace or remove it"):
        decode(encoded(picture(mode="CMYK"), "JPEG"), name="x")


def test_a_file_with_more_bytes_than_any_image_is_not_read(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(3 * 2**30)  # which takes no room on the disk
    with pytest.raises(Unreadable, match=r"large\.png cannot be opened \(File too large\)"):
        read_picture(tmp_path / "large.png")
