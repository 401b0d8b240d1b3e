"""Pictures are read right or refused by a named reason, and nothing else ever comes out of the door."""

import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile

from urae.io.embedded import picture_texts, write_png
from urae.io.pictures import (
    PICTURE_SUFFIXES,
    Unreadable,
    decode,
    is_picture_name,
    picture_size,
    read_bytes,
    read_picture,
    size_of,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def picture(mode="RGB"):
    return Image.fromarray(PIXELS).convert(mode)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *, bits=8, colour=2, packed=b"", between=b"", behind=b"", interlaced=0):
    """A PNG whose header says what it likes, with right checksums."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    data = chunk(b"IHDR", header) + between + chunk(b"IDAT", packed) + behind
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def rows(num=40):
    return zlib.compress(np.pad(PIXELS.reshape(40, 144), ((0, 0), (1, 0)))[:num].tobytes())


def pixels(content):
    image = decode(content, name="x")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason(content):
    with pytest.raises(Unreadable, match="^x ") as raised:
        decode(content, name="x")
    return raised.value.reason


# --- what is read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_lossless_pixels_are_themselves(kind):
    assert (pixels(encoded(picture(), kind, lossless=True)) == PIXELS).all()


def test_every_orientation_is_turned_upright():
    """Where the first row and column of the stored picture are seen, by the EXIF standard."""
    stored = PIXELS[:4, :6]
    seen = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }
    for orientation, expected in seen.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        for kind in ("PNG", "TIFF", "WEBP"):
            content = encoded(Image.fromarray(stored), kind, exif=exif, lossless=True)
            assert (pixels(content) == expected).all(), (orientation, kind)
            assert size_of(content, name="x") == expected.shape[1::-1]
        behind = (
            encoded(Image.fromarray(stored))[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + chunk(b"IEND", b"")
        )
        assert (pixels(behind) == expected).all()
        assert size_of(behind, name="x") == expected.shape[1::-1]


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_other_modes_show_the_same_picture(mode):
    image = picture("L").convert(mode)
    assert (pixels(encoded(image)) == np.asarray(image.convert("RGB"))).all()


def test_palettes_are_followed():
    image = picture().quantize(16)
    assert (pixels(encoded(image)) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_become_8_over_the_whole_range(kind):
    grey = np.linspace(0, 65535, 48 * 40).round().astype(np.uint16).reshape(40, 48)
    assert (pixels(encoded(Image.fromarray(grey), kind)) == np.round(grey / 257)[..., None]).all()


def test_an_almost_opaque_picture_keeps_its_colours():
    image = picture("RGBA")
    image.putalpha(252)
    assert (pixels(encoded(image)) == PIXELS).all()


def test_a_profile_is_followed_and_srgb_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp!", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp!", b"gXYZ", 1)
    assert (pixels(encoded(picture(), icc_profile=srgb)) == PIXELS).all()
    found = pixels(encoded(picture(), icc_profile=swapped))
    assert np.abs(found - PIXELS[..., [1, 0, 2]].astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("interlaced", "size"), [(0, (1, 1)), (1, (1, 1)), (1, (3, 2)), (1, (8, 8)), (1, (13, 7)), (0, (5, 3))]
)
@pytest.mark.parametrize(("bits", "colour"), [(8, 2), (1, 0), (2, 3), (16, 0), (8, 6)])
def test_a_png_of_any_layout_is_whole(bits, colour, interlaced, size):
    """Opaque white, written here row by row; the empty passes of a small interlaced picture have no rows."""
    width, height = size
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for left, top, across, down in steps if interlaced else [(0, 0, 1, 1)]:
        columns = len(range(left, width, across))
        line = b"\0" + b"\xff" * ((columns * bits * channels + 7) // 8)
        data += line * (len(range(top, height, down)) if columns else 0)
    palette = chunk(b"PLTE", b"\xff" * 12) if colour == 3 else b""
    layout = {"bits": bits, "colour": colour, "interlaced": interlaced, "between": palette}
    assert (pixels(png(width, height, packed=zlib.compress(data), **layout)) == 255).all()
    assert reason(png(width, height, packed=zlib.compress(data[:-1]), **layout)) == "damaged"


def test_a_photograph_of_200_megapixels_is_no_bomb(tmp_path):
    """In one bit a pixel, so that it takes little: Pillow's own limit is 179 megapixels."""
    width, height = 16_384, 12_288
    line = b"\0" + b"\xff" * (width // 8)
    content = png(width, height, bits=1, colour=0, packed=zlib.compress(line * height, 1))
    (tmp_path / "x.png").write_bytes(content)
    assert picture_size(tmp_path / "x.png") == (width, height)
    image = decode(content, name="x")
    assert (image.size, image.getpixel((width - 1, height - 1))) == ((width, height), (255, 255, 255))


# --- what is refused -------------------------------------------------------------------------------------------


def grey_tiff(photometric):
    tags = {
        256: 48,
        257: 40,
        258: 16,
        259: 1,
        262: photometric,
        277: 1,
        278: 40,
        273: 8 + 2 + 9 * 12 + 4,
        279: 3840,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II" + struct.pack("<HIH", 42, 8, len(tags)) + entries + bytes(4) + PIXELS.tobytes()[:3840]


def see_through():
    image = picture("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image)


def cicp(*points, behind=b"", padding=0):
    text = chunk(b"tEXt", b"k\0" + b"x" * padding)
    return png(48, 40, packed=rows(), between=text + chunk(b"cICP", bytes(points)), behind=behind)


REFUSED = {
    "nothing": (b"", "empty"),
    "an error page": (b"<html>404</html>", "format"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),
    "encapsulated postscript": (b"\xc5\xd0\xd3\xc6" + bytes(60), "format"),
    "a gif": (encoded(picture(), "GIF"), "format"),
    "a bmp": (encoded(picture(), "BMP"), "format"),
    "a bomb": (png(30_000, 30_000, bits=1, colour=0), "bomb"),
    "frames": (encoded(picture(), save_all=True, append_images=[picture().rotate(9)]), "animated"),
    "transparent": (see_through(), "transparent"),
    "cmyk": (encoded(picture("CMYK"), "JPEG"), "colours"),
    "lab": (encoded(picture("LAB"), "TIFF"), "colours"),
    "a broken profile": (encoded(picture(), icc_profile=b"x" * 300), "colours"),
    "linear light": (png(48, 40, packed=rows(), between=chunk(b"gAMA", b"\0\1\x86\xa0")), "colours"),
    "high dynamic range": (cicp(9, 16, 0, 1), "colours"),
    "the same far behind": (cicp(9, 16, 0, 1, padding=70_000), "colours"),
    "floats": (encoded(picture("F"), "TIFF"), "depth"),
    "32-bit integers": (encoded(picture("I"), "TIFF"), "depth"),
    "white is zero": (grey_tiff(0), "depth"),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_single_reading_is_refused_by_its_reason(content, expected):
    assert reason(content) == expected


HDR = png(48, 40, packed=rows())
DAMAGED = {
    "black rows": png(48, 40, packed=rows(20)),
    "no rows": png(48, 40, packed=zlib.compress(b"")),
    "one byte less": png(48, 40, packed=zlib.compress(zlib.decompress(rows())[:-1])),
    "another checksum of the rows": png(48, 40, packed=rows()[:-1] + b"?"),
    "a wrong checksum": HDR[:-20] + bytes([HDR[-20] ^ 1]) + HDR[-19:],
    "ends in cICP": HDR[:33] + b"\0\0\0\4cICP",
    "ends in cICP's first byte": HDR[:33] + b"\0\0\0\4cICP\1",
    "ends in cICP after pixels": HDR[:-12] + b"\0\0\0\4cICP\1",
    "a short cICP": cicp(1),
    "a long text": png(
        48, 40, packed=rows(), between=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(80_000_000), 9))
    ),
    "a jpeg of zeros": b"\xff\xd8\xff\xe0" + bytes(500),
    "half a jpeg": encoded(picture(), "JPEG")[:700],
    "half a webp": encoded(picture(), "WEBP")[:700],
    "half a tiff": encoded(picture(), "TIFF")[:700],
    "half an avif": encoded(picture(), "AVIF")[:700],
    "an avif that ends in nclx": b"\0\0\0\x1cftypavif" + bytes(16) + b"colrnclx\0",
}


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(content, lenient, monkeypatch):
    """Even where another package has told Pillow to take truncated images."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    assert reason(content) == "damaged"
    assert lenient is ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_whatever_is_changed_only_a_picture_or_unreadable_comes_out(kind):
    whole, rng = encoded(picture().resize((12, 9)), kind), np.random.default_rng(1)
    for number in range(150):
        content = bytearray(whole[: rng.integers(8, len(whole))] if number % 3 == 0 else whole)
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            content[place] = rng.integers(256)
        with suppress(Unreadable):
            assert decode(bytes(content), name="x").mode == "RGB"


def test_files_that_cannot_be_opened_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(3 * 2**30)  # which takes no room on the disk
    for name in ("pipe.png", "folder.png", "link.png", "large.png", "absent.png", "a\0b.png"):
        for read in (read_picture, read_bytes):
            with pytest.raises(Unreadable, match="cannot be opened") as raised:
                read(tmp_path / name)
            assert raised.value.reason == "missing"


def test_a_name_that_is_no_text_is_one_refused_file(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\x1b[31m.png")
    with open(path, "wb") as file:
        file.write(b"no picture")
    with pytest.raises(Unreadable) as raised:
        read_picture(path)
    assert (
        str(raised.value)
        .encode()
        .endswith(b"caf\\xe9.png is none of JPEG, PNG, WEBP, TIFF, AVIF: replace or remove it")
    )
    same = pickle.loads(pickle.dumps(raised.value))
    assert (str(same), same.reason) == (str(raised.value), "format")


def test_no_rule_of_pillow_is_left_changed_and_no_warning_comes_from_threads(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow alone would warn of 1,920, and refuse 2,001
    content, wrong = encoded(picture()), []

    def read():
        for _ in range(30):
            if not (np.asarray(decode(content, name="x")) == PIXELS).all():
                wrong.append(1)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters) == (
        1000,
        False,
        filters,
    )


# --- headers, texts, writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_the_size_is_read_from_the_header_alone(tmp_path, kind):
    content = encoded(picture(), kind)
    (tmp_path / "x").write_bytes(content)
    assert picture_size(tmp_path / "x") == size_of(content, name="x") == (48, 40)
    if kind == "PNG":
        (tmp_path / "x").write_bytes(content[:200])
        assert picture_size(tmp_path / "x") == (48, 40)


def test_texts_are_read_without_pixels(tmp_path):
    texts = {"prompt": "Zürich", "policy": "猫 😀\n{}", "empty": "", "long": "x" * 100_000}
    write_png(picture(), tmp_path / "x.png", texts=texts)
    assert picture_texts(tmp_path / "x.png") == texts
    with Image.open(tmp_path / "x.png") as image:
        assert {key: image.info[key] for key in texts} == texts
    kinds = [
        chunk(b"tEXt", b"a\0one"),
        chunk(b"zTXt", b"b\0\0" + zlib.compress(b"two")),
        chunk(b"iTXt", b"c\0\1\0de\0\0" + zlib.compress("drei é".encode())),
        chunk(b"iTXt", b"d\0\0\0\0\0" + "vier é".encode()),
    ]
    (tmp_path / "y.png").write_bytes(png(48, 40, packed=b"no pixels", between=b"".join(kinds)))
    assert picture_texts(tmp_path / "y.png") == {"a": "one", "b": "two", "c": "drei é", "d": "vier é"}


def test_pictures_of_other_formats_have_no_texts_and_bombs_of_text_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(encoded(picture(), "JPEG", comment="hidden"))
    assert picture_texts(tmp_path / "x") == {}
    for wrong in (chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2_000_000))), b"\xff" * 20):
        (tmp_path / "x").write_bytes(png(48, 40, between=wrong))
        with pytest.raises(Unreadable):
            picture_texts(tmp_path / "x")


def test_a_png_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png"):
        write_png(picture(), tmp_path / "x.jpg", texts={})
    with pytest.raises(OSError, match="cannot write mode LAB"):
        write_png(picture("LAB"), tmp_path / "x.png", texts={})
    assert os.listdir(tmp_path) == []
    write_png(picture(), tmp_path / "x.png", texts={"a": "b"})
    assert (np.asarray(read_picture(tmp_path / "x.png")) == PIXELS).all()
    with pytest.raises(ValueError, match="exists already"):
        write_png(picture(), tmp_path / "x.png", texts={}, replace=False)


def test_names_of_pictures():
    assert all(is_picture_name(f"x{suffix.upper()}") for suffix in PICTURE_SUFFIXES)
    assert not any(is_picture_name(name) for name in ("x.gif", "png", ".png.txt", "x.png.tmp"))
