import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from tiny import with_text_encoders, write_images
from urae.data import Cache, CachedDataset, Entry, Record, Source, cached_dataset, hold_out
from urae.data.cache_files import Folder, part_name
from urae.data.dataset import drawn_caption, turns
from urae.data.sources import split_mix


def entries(num: int, buckets=((64, 64), (80, 48), (48, 80)), first: int = 0) -> tuple[Entry, ...]:
    """Entries that are not on disk: their order does not depend on what is in them."""
    made = []
    for index in range(first, first + num):
        bucket = buckets[index * index % len(buckets)]
        record = Record(id=f"{index:064x}", file="", size=bucket, captions={"original": ""}, source="")
        made.append(Entry(record=record, bucket=bucket, keys={"latents": str(index)}))
    return tuple(made)


def dataset(*nums: int, shares: tuple[float, ...] = (1.0,)) -> CachedDataset:
    sources = []
    for number, (num, share) in enumerate(zip(nums, shares, strict=True)):
        made = Cache(
            store=Folder(Path(f"source-{number}")),
            size=64,
            identity={},
            encoding="exact",
            form="full",
            entries=entries(num, first=1000 * number),
            source="",
        )
        sources.append(Source(cache=made, entries=made.entries, share=share))
    return CachedDataset(tuple(sources))


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """Twelve records in two sources, with random numbers in their files."""
    torch.manual_seed(0)
    sources = dataset(6, 6, shares=(0.7, 0.3)).sources
    return CachedDataset(tuple(written(source, tmp_path_factory.mktemp("cache")) for source in sources))


def written(source: Source, folder: Path) -> Source:
    store = Folder(folder)
    (folder / "entries").mkdir()
    made = []
    for entry in source.entries:
        record = replace(entry.record, captions={"original": "", "detailed": ""})
        made.append(replace(entry, record=record, keys=dict.fromkeys(("latents", *record.captions), "key")))
        latents = {"mean": torch.randn(16, 8, 8), "std": torch.rand(16, 8, 8)}
        texts = {kind: {"prompt_embeds": torch.randn(7, 32)} for kind in record.captions}
        for part, tensors in {"latents": latents, **texts}.items():
            store.write_entry(part_name(record.id, part), tensors, key="key")
    return replace(source, cache=replace(source.cache, store=store, entries=tuple(made)), entries=tuple(made))


def contents(batch) -> list[tuple]:
    """What is in a batch, to be compared bit for bit."""
    return [
        (sample.id, sample.posterior.mean.numpy().tobytes(), sample.posterior.std.numpy().tobytes())
        + tuple(tensor.numpy().tobytes() for tensor in sample.text.values())
        for sample in batch
    ]


# --- one source --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_batches_have_one_bucket_and_their_size(batch_size):
    data = dataset(20)
    for batch in islice(data.batches(batch_size, seed=0), 30):
        assert len(batch) == batch_size
        assert len({data.entries[index].bucket for index in batch}) == 1


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_every_record_is_seen_equally_often(batch_size):
    data = dataset(20)
    counts = Counter(index for batch in islice(data.batches(batch_size, seed=0), 40) for index in batch)
    # Queues hold back less than a batch of each bucket, so counts differ by what is still in them.
    assert max(counts.values()) - min(counts[index] for index in range(20)) <= 2


def test_an_epoch_of_single_images_holds_each_once():
    order = [index for (index,) in islice(dataset(20).batches(1, seed=0), 40)]
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))
    assert order[:20] != order[20:]


def test_the_order_is_a_function_of_the_seed():
    first = list(islice(dataset(20).batches(4, seed=1), 50))
    assert first == list(islice(dataset(20).batches(4, seed=1), 50))
    assert first != list(islice(dataset(20).batches(4, seed=2), 50))
    assert first[30:] == list(islice(dataset(20).batches(4, seed=1), 30, 50))


# --- several sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.7, 0.3), (0.999, 0.001), (0.2, 0.3, 0.5), (0.6, 0.3, 0.06, 0.04)]
)
def test_at_any_moment_each_source_has_had_its_share_to_within_one(shares):
    taken = [0] * len(shares)
    for turn, chosen in enumerate(islice(turns(shares), 2500), start=1):
        taken[chosen] += 1
        assert all(abs(share * turn - had) < 1 for share, had in zip(shares, taken, strict=True))


def test_random_shares_are_met_as_well():
    rng = random.Random(0)
    for _ in range(20):
        weights = [rng.random() for _ in range(rng.randint(2, 6))]
        shares = [weight / sum(weights) for weight in weights]
        taken = Counter(islice(turns(shares), 300))
        assert all(abs(share * 300 - taken[number]) < 1 for number, share in enumerate(shares))


def test_batches_hold_the_shares_but_for_what_waits_for_its_shape():
    data = dataset(50, 20, shares=(0.25, 0.75))
    order = list(islice(data.order(0), 4000))
    assert abs(sum(index >= 50 for index in order) - 3000) < 1
    seen = [index for batch in islice(data.batches(4, seed=0), 1000) for index in batch]
    assert (
        abs(sum(index >= 50 for index in seen) - 3000) <= 1 + 3 * 3
    )  # three buckets, each less than a batch


def test_each_source_has_epochs_of_its_own():
    order = list(islice(dataset(6, 3, shares=(0.5, 0.5)).order(0), 36))
    small = [index for index in order if index >= 6]
    assert all(sorted(small[at : at + 3]) == [6, 7, 8] for at in range(0, 18, 3))
    large = [index for index in order if index < 6]
    assert all(sorted(large[at : at + 6]) == list(range(6)) for at in range(0, 18, 6))


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0, 0.0), (1.5, -0.5)])
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(ValueError, match="expected numbers above 0 that add up to 1"):
        dataset(5, 5, shares=shares)


def test_shares_are_part_of_what_the_data_are():
    halves, thirds = dataset(5, 5, shares=(0.5, 0.5)), dataset(5, 5, shares=(0.3, 0.7))
    assert len({halves.digest, thirds.digest, dataset(5).digest}) == 3
    assert dataset(5).digest == dataset(5).sources[0].cache.digest


def test_a_mix_is_named_in_one_line(pipe, tmp_path):
    pipe = with_text_encoders(pipe)
    for seed, name in enumerate("ab"):
        write_images(tmp_path / name, [(64, 64)] * 2, seed=seed)
    data = cached_dataset(pipe, f"{tmp_path}/a:0.25, {tmp_path}/b:0.75", size=64, scenes=tmp_path)
    assert [source.share for source in data.sources] == [0.25, 0.75]
    assert [len(source.entries) for source in data.sources] == [2, 2]
    assert split_mix("mini:clean:4:0.5,mini:real:4:0.5") == [("mini:clean:4", 0.5), ("mini:real:4", 0.5)]
    assert split_mix("mini:clean:4") == [("mini:clean:4", 1.0)]
    (tmp_path / "a,b").mkdir()
    assert split_mix(f"{tmp_path}/a,b") == [(f"{tmp_path}/a,b", 1.0)]
    with pytest.raises(ValueError, match="data is 'a,b': expected each of several sources with its share"):
        split_mix("a,b")


# --- captions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mix", "low", "high"), [(0.0, 0, 0), (1.0, 1, 1), (0.2, 0.17, 0.23)])
def test_the_original_caption_has_its_probability(mix, low, high):
    drawn = [drawn_caption(mix, seed=0, step=step, place=place) for step in range(250) for place in range(8)]
    assert low <= drawn.count("original") / len(drawn) <= high


def test_a_sample_has_the_caption_that_was_drawn(on_disk):
    batches = list(islice(on_disk.batches(2, seed=3), 6))
    for step, samples in enumerate(on_disk.stream(2, seed=3, caption_mix=0.5, stop=6)):
        for place, sample in enumerate(samples):
            kind = drawn_caption(0.5, seed=3, step=step, place=place)
            index = batches[step][place]
            source = on_disk.sources[index // 6]
            expected = source.cache.load(source.entries[index % 6], kind)
            assert contents([sample]) == contents([expected])


# --- processes, workers, positions -------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_together_see_what_one_sees(on_disk, num_workers):
    settings = {"seed": 1, "caption_mix": 0.5, "stop": 5}
    alone = [contents(batch) for batch in on_disk.stream(4, **settings)]
    shares = [
        [
            contents(batch)
            for batch in on_disk.stream(
                4, **settings, process=process, num_processes=2, num_workers=num_workers
            )
        ]
        for process in range(2)
    ]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert (whole[::2], whole[1::2]) == (first, second)


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_position_continues_to_the_bit(on_disk, start):
    settings = {"seed": 1, "caption_mix": 0.5, "stop": 8}
    whole = [contents(batch) for batch in on_disk.stream(2, **settings)]
    assert [contents(batch) for batch in on_disk.stream(2, **settings, start=start)] == whole[start:]


def test_a_stream_leaves_the_global_generators_alone(on_disk):
    before = torch.get_rng_state()
    next(on_disk.stream(2, seed=0, caption_mix=0.5))
    assert torch.equal(before, torch.get_rng_state())


# --- held out ----------------------------------------------------------------------------------------------


def test_records_stay_on_their_side_of_the_split_when_others_are_added():
    train, held = hold_out(entries(40), 10)
    assert (len(train), len(held)) == (30, 10)
    assert not {e.record.id for e in train} & {e.record.id for e in held}
    later_train, later_held = hold_out(entries(41), 10)
    moved = {e.record.id for e in train} & {e.record.id for e in later_held}
    assert len(moved) == 0
    assert len(later_train) == 31


def test_a_split_leaves_every_source_its_own(on_disk):
    train, held = on_disk.split(3)
    assert (len(train), len(held)) == (9, 3)
    assert {e.record.id for e in train.entries} | {e.record.id for e in held.entries} == {
        e.record.id for e in on_disk.entries
    }
    assert [held[index].id for index in range(3)] == [entry.record.id for entry in held.entries]


def test_a_source_is_not_held_out_as_a_whole():
    one = dataset(1, 20, shares=(0.5, 0.5))
    ranked = hold_out(one.entries, 20)[0][0].record.id
    alone = replace(one.sources[0], entries=tuple(e for e in one.entries if e.record.id != ranked)[:1])
    with pytest.raises(ValueError, match="leaves none to train on of source-0"):
        CachedDataset((alone, one.sources[1])).split(20)


@pytest.mark.parametrize("num", [-1, 40])
def test_something_must_remain_to_train_on(num):
    with pytest.raises(ValueError, match=r"cannot be held out of 40: expected 0 to 39"):
        hold_out(entries(40), num)
