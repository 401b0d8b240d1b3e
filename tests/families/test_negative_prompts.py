"""Negative prompts: taken by every method where guidance is by a second call, refused where it is not."""

import pytest
from tiny_families import TINY, drawn

from urae.generation import Direct, Hiflow, Imax, Provenance, Sdedit, Tiled, generate, plan_drawing
from urae.generation.asking import DrawingRequest

LARGE, NATIVE = (128, 128), (64, 64)
PIPES = {tiny.name: tiny for tiny in TINY}
METHODS = {
    "direct": Direct(),
    "tiled": Tiled(),
    "sdedit": Sdedit(native_steps=1),
    "imax": Imax(native_steps=1),
    "hiflow": Hiflow(native_steps=1),
}


def made(pipe, **settings):
    return generate(pipe, "a b", **{"size": LARGE, "steps": 2, **settings})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_led_away_from_it_in_both_passes_and_says_so(name):
    pipe, natives = PIPES["Chroma"].pipe, []
    plain, other = (
        made(pipe, method=METHODS[name], negative=text, on_native=natives.append) for text in ("", "c d")
    )
    assert plain.tobytes() != other.tobytes()
    assert ("negative" in plain.info, other.info["negative"]) == (False, "c d")
    assert Provenance.from_info(other.info).negative == "c d"
    assert len({picture.tobytes() for picture in natives}) == len(natives)


def test_it_is_the_stock_pipelines_own():
    tiny = PIPES["Chroma"]
    found = made(tiny.pipe, size=NATIVE, policy="none", negative="c d", guidance=4.0)
    stock = drawn(tiny, size=NATIVE, negative="c d", guidance=4.0)
    assert found.tobytes() == tiny.pipe.image_processor.numpy_to_pil(stock[None])[0].tobytes()


def test_an_unguided_native_pass_does_without():
    natives = []
    for text in ("", "c d"):
        method = Sdedit(native_steps=1, native_guidance=1.0)
        made(PIPES["Chroma"].pipe, method=method, negative=text, on_native=natives.append)
    assert natives[0].tobytes() == natives[1].tobytes()


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (
            "FLUX.1",
            {},
            "but this model takes no negative prompt: leave it out; if it is from a picture, give an empty",
        ),
        ("FLUX.1", {"method": "sdedit"}, "takes no negative prompt"),
        ("Chroma", {"guidance": 1}, "a negative prompt has no effect at guidance 1: leave it out"),
    ],
)
def test_where_it_has_no_effect_it_is_refused_before_the_work(family, settings, message):
    asked = DrawingRequest(prompt="a", negative="c", size=LARGE, **settings)
    with pytest.raises(ValueError, match=message):
        plan_drawing(PIPES[family].pipe, asked)


@pytest.mark.parametrize(
    ("family", "direct", "imax"),
    [
        ("FLUX.1", 3.5, 7.0),
        ("Chroma", 5.0, 5.0),
        ("Krea 2", 5.5, 5.5),
        ("FLUX.2", 4.0, 4.0),
        ("Z-Image", 6.0, 6.0),
        ("Qwen-Image", 4.0, 4.0),
    ],
)
def test_guidance_that_is_left_open_is_the_models(family, direct, imax):
    pipe = PIPES[family].pipe
    plans = [
        plan_drawing(pipe, DrawingRequest(prompt="a", size=LARGE, method=way)) for way in ("direct", "imax")
    ]
    assert [plan.images[0].guidance for plan in plans] == [direct, imax]
    assert plans[1].asked.method.native_guidance == direct
