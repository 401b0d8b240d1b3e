"""A subject of one's own: a word for it, captions that are dropped, a held-out picture, on top of another adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tiny import with_text_encoders, write_images
from urae.data import cached_dataset
from urae.data.dataset import CAPTION, drawn_caption
from urae.families import family_of
from urae.recipes import flux_2k, flux_2k_subject, mini_2x_subject
from urae.training import read_metrics, train
from urae.training.resume import run_identity


@pytest.fixture
def pipe(pipe):
    return with_text_encoders(pipe)


def dataset(pipe, folder, trigger="zorb"):
    return cached_dataset(pipe, str(folder), size=64, scenes=folder, trigger=trigger)


def test_as_many_captions_are_dropped_as_asked_and_none_by_default():
    drawn = [drawn_caption(0.2, 0.3, seed=1, step=step, place=0) for step in range(3000)]
    shares = {kind: drawn.count(kind) / len(drawn) for kind in ("dropped", "original", "detailed")}
    assert shares["dropped"] == pytest.approx(0.3, abs=0.03)
    assert shares["original"] == pytest.approx(0.7 * 0.2, abs=0.03)
    for step in range(50):  # without it, runs go on as they began
        key = np.random.SeedSequence((1, step, 0, CAPTION))
        first = np.random.Generator(np.random.Philox(key)).random()
        kind = drawn_caption(0.2, seed=1, step=step, place=0)
        assert kind == ("original" if first < 0.2 else "detailed")


def test_the_word_is_put_before_captions_that_lack_it_and_stands_for_none(pipe, tmp_path):
    folder = write_images(tmp_path / "pictures", [(64, 64)] * 3)
    (folder / "00.json").write_text(json.dumps({"prompt": "a zorb on b"}))
    (folder / "01.json").unlink()
    data = dataset(pipe, folder)
    captions = {entry.record.file: entry.record.captions for entry in data.entries}
    assert captions["00.png"] == {"original": "a zorb on b"}
    assert captions["01.png"] == {"original": "zorb"}
    assert captions["02.png"] == {"original": "zorb, c", "detailed": "zorb, c d"}
    known = family_of(pipe).text.encode(pipe, ["zorb"])
    loaded = data[[entry.record.file for entry in data.entries].index("01.png")].text
    assert all(torch.equal(loaded[name], tensor[0]) for name, tensor in known.items())


def test_a_word_comes_too_late_for_a_cache_and_each_word_has_its_own(pipe, tmp_path):
    folder = write_images(tmp_path / "pictures", [(64, 64)] * 2)
    first, second = (str(dataset(pipe, folder, word).sources[0].cache.path) for word in ("a", "b"))
    assert first != second
    with pytest.raises(ValueError, match=r"trigger 'c' has no effect on .*, whose captions are embedded"):
        cached_dataset(pipe, first, size=64, scenes=folder, trigger="c")


def test_a_subject_is_trained_on_top_of_another_adapter_with_a_picture_held_out(pipe, tmp_path):
    """The start is a part of its own: the file holds this run's factors and names the other."""
    folder = write_images(tmp_path / "pictures", [(64, 64)] * 4)
    small = {
        "data": str(folder),
        "size": 64,
        "steps": 2,
        "batch_size": 2,
        "adapter.rank": 2,
        "sample_every": 0,
    }
    train(pipe, flux_2k(**small, out=str(tmp_path / "2k"), num_validation=0, validate_every=0))
    first = tmp_path / "2k" / "adapter.safetensors"
    changes = {**small, "out": str(tmp_path / "subject"), "start": str(first), "validate_every": 1}
    adapter = train(pipe, flux_2k_subject(**changes, caption_dropout=0.5))
    assert adapter.start
    assert adapter.spec.rank == 2
    rows = read_metrics(tmp_path / "subject" / "metrics.jsonl")
    assert sum("validation" in json.dumps(row) for row in rows) >= 2


def test_dropped_captions_are_the_empty_ones_embeddings(pipe, tmp_path):
    folder = write_images(tmp_path / "pictures", [(64, 64)] * 4)
    empty = {name: tensor[0] for name, tensor in family_of(pipe).text.encode(pipe, [""]).items()}
    from dataclasses import replace

    data = replace(dataset(pipe, folder), empty=empty)
    batches = list(data.stream(2, seed=0, caption_mix=0.2, caption_dropout=0.5, stop=20))
    dropped = [
        all(torch.equal(sample.text[name], empty[name]) for name in empty) for b in batches for sample in b
    ]
    assert 0.3 < np.mean(dropped) < 0.7
    train_on, held_out = data.split(1)
    assert (len(train_on), len(held_out)) == (3, 1)
    assert train_on.empty is empty


def test_a_sample_prompt_says_the_word_and_there_has_to_be_one():
    recipe = mini_2x_subject(trigger="gloop")
    assert recipe.shown_prompts == ("a glossy gloop on a wood background",)
    with pytest.raises(ValueError, match="asks for a trigger, and there is none: set trigger"):
        mini_2x_subject(trigger="")
    with pytest.raises(ValueError, match="caption_dropout is 1"):
        mini_2x_subject(caption_dropout=1.0)


def test_runs_from_before_the_keys_go_on():
    plain = run_identity(flux_2k(), data="d", base="b", start="")
    assert not {"caption_dropout", "trigger"} & plain.keys()
    assert run_identity(flux_2k_subject(), data="d", base="b", start="s")["trigger"] == "ohwx"
