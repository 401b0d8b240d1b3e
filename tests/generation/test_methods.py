"""Methods by name, and their options as texts and JSON."""

import json

import pytest

from urae.generation import Direct, Esrgan, Hiflow, Imax, Sdedit, Tiled, method_from_texts, method_named
from urae.generation.methods import METHODS, options_of
from urae.resolution import ResolutionPolicy


@pytest.mark.parametrize("name", METHODS)
def test_a_name_is_the_method_with_its_defaults(name):
    assert method_named(name, {}) == METHODS[name]() == method_from_texts(name, [])
    assert METHODS[name].name == name


@pytest.mark.parametrize(
    "method",
    [
        Direct(),
        Sdedit(start_sigma=0.5, native_policy=ResolutionPolicy(shift=2.0)),
        Imax(shift="policy", repeat_text=True, native_steps=3),
        Hiflow(reference="picture", cutoff=0.3, shifted_patches=True),
        Tiled(window=96, weighting="tapered", windows_per_call=8),
        Esrgan(weights="a.safetensors"),
    ],
)
def test_options_round_trip_through_json(method):
    assert method_named(method.name, json.loads(json.dumps(options_of(method)))) == method


def test_texts_become_values(tmp_path):
    file = tmp_path / "own.json"
    file.write_text(ResolutionPolicy(shift=2.0).to_json())
    settings = ["weight=0.5", "low_pass_level=2", "shifted_patches=true", "shift=4", "schedule=constant"]
    assert method_from_texts("imax", [*settings, f"native_policy={file}"]) == Imax(
        weight=0.5,
        low_pass_level=2,
        shifted_patches=True,
        shift=4.0,
        schedule="constant",
        native_policy=ResolutionPolicy(shift=2.0),
    )
    assert method_from_texts("imax", ["shift=policy"]).shift == "policy"
    assert method_from_texts("tiled", ["window=96", "overlap=0.25"]) == Tiled(window=96, overlap=0.25)
    assert method_from_texts("tiled", ["window=native"]) == Tiled()
    assert method_from_texts("esrgan", ["weights=a=b.safetensors"]) == Esrgan(weights="a=b.safetensors")
    assert method_from_texts("hiflow", ["reference=picture"]) == Hiflow(reference="picture")
    assert method_from_texts("sdedit", ["native_policy=reference"]).native_policy == (
        ResolutionPolicy.reference()
    )
    assert method_from_texts("sdedit", ["native_policy=none"]) == Sdedit()


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("magic", "weight=1", "method is 'magic': expected one of direct, tiled, sdedit, imax"),
        (
            "imax",
            "strength=1",
            "strength is not an option of imax: valid options are native_steps, native_guid",
        ),
        ("sdedit", "weight=1", "weight is not an option of sdedit, it is one of imax: valid options are"),
        ("direct", "weight=1", "weight is not an option of direct, it is one of imax: it has none"),
        (
            "direct",
            "start_sigma=1",
            "start_sigma is not an option of direct, it is one of sdedit and hiflow: it has none",
        ),
        ("tiled", "window=big", "window is 'big': expected a whole number"),
        ("imax", "weight", "the setting 'weight' has no value: expected option=value"),
        ("imax", "weight=much", "weight is 'much': expected a number"),
        ("imax", "native_steps=1.5", "native_steps is '1.5': expected a whole number"),
        ("imax", "repeat_text=yes", "repeat_text is 'yes': expected true or false"),
        ("imax", "schedule=linear", "schedule is 'linear': expected one of cosine_decay"),
        ("imax", "shift=auto", "shift is 'auto': expected a number"),
        ("imax", "native_policy=mine", "native_policy is 'mine': expected none, reference or the name of"),
    ],
)
def test_what_is_no_option_is_refused(name, setting, message):
    with pytest.raises(ValueError, match=message):
        method_from_texts(name, [setting])


def test_an_option_stands_once():
    with pytest.raises(ValueError, match="the setting 'weight' is given twice: give it once"):
        method_from_texts("imax", ["weight=0.5", "weight=0.6"])
