from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from urae.data import Dataset, Record, hold_out
from urae.data.cache import Cache, Entry


def entries(num: int, buckets=((64, 64), (80, 48), (48, 80))) -> tuple[Entry, ...]:
    """Entries that are not on disk: their order does not depend on what is in them."""
    made = []
    for index in range(num):
        bucket = buckets[index * index % len(buckets)]
        record = Record(id=f"{index:064x}", file="", size=bucket, captions={"original": ""}, source="")
        made.append(Entry(record=record, bucket=bucket, key=""))
    return tuple(made)


def dataset(num: int) -> Dataset:
    made = Cache(path=Path(), size=64, identity={}, entries=entries(num), source="")
    return Dataset(cache=made, entries=made.entries)


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


def test_records_stay_on_their_side_of_the_split_when_others_are_added():
    train, held = hold_out(entries(40), 10)
    assert (len(train), len(held)) == (30, 10)
    assert not {e.record.id for e in train} & {e.record.id for e in held}
    later_train, later_held = hold_out(entries(41), 10)
    moved = {e.record.id for e in train} & {e.record.id for e in later_held}
    assert len(moved) == 0
    assert len(later_train) == 31


@pytest.mark.parametrize("num", [-1, 40])
def test_something_must_remain_to_train_on(num):
    with pytest.raises(ValueError, match=r"cannot be held out of 40: expected 0 to 39"):
        hold_out(entries(40), num)
