import json
import os
import random
import shutil

import pytest
import torch

from small_disk import small_disk
from urae.errors import BadFile, CannotWrite
from urae.io import remove_leftovers
from urae.io.files import MACHINE
from urae.training.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint

DAMAGED = "step-000001 is damaged .*: delete it to go on from the one before"


def checkpoint(step: int) -> Checkpoint:
    tensors = {"adapter": {"A": torch.full((2, 3), float(step))}, "optimizer": {"0.step": torch.tensor(step)}}
    return Checkpoint(step=step, tensors=tensors, state={"number": 0.1 + 0.2, "most": float("inf")})


def assert_whole(loaded: Checkpoint, step: int) -> None:
    assert (loaded.step, loaded.state) == (step, {"number": 0.1 + 0.2, "most": float("inf")})
    assert torch.equal(loaded.tensors["adapter"]["A"], checkpoint(step).tensors["adapter"]["A"])
    assert loaded.tensors["optimizer"]["0.step"].item() == step


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path = save_checkpoint(checkpoint(200), tmp_path, keep=1)
    assert path.name == "step-000200"
    assert_whole(load_checkpoint(path), 200)


def test_one_without_digests_is_still_read(tmp_path):
    path = save_checkpoint(checkpoint(200), tmp_path, keep=1)
    (path / "digests.json").unlink()
    (path / "state.json").write_text('{"step": 200, "number": 0.30000000000000004, "most": Infinity}')
    assert_whole(load_checkpoint(path), 200)


def test_the_latest_ones_are_kept(tmp_path):
    for step in (2, 999_998, 1_000_000):  # the last one has a digit more than its name is padded to
        save_checkpoint(checkpoint(step), tmp_path, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"step-999998", "step-1000000"}
    assert latest_checkpoint(tmp_path).name == "step-1000000"


def test_what_is_beside_checkpoints_is_passed_over_and_stays(tmp_path):
    save_checkpoint(checkpoint(1), tmp_path, keep=1)
    for name in ("step-000002-best", "step-best", "step-", "step-2 (copy)", "notes"):
        shutil.copytree(tmp_path / "step-000001", tmp_path / name)
    for name in ("step-000003.tar", "step-000004"):
        (tmp_path / name).write_bytes(b"")
    before = {path.name for path in tmp_path.iterdir()} - {"step-000001"}
    assert latest_checkpoint(tmp_path).name == "step-000001"
    save_checkpoint(checkpoint(5), tmp_path, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == before | {"step-000005"}


def test_what_is_unfinished_is_neither_found_nor_kept(tmp_path):
    save_checkpoint(checkpoint(1), tmp_path, keep=2)
    # Of a process that is gone, and of an earlier one with our own id.
    for process, number in ((2**22 + 1, 0), (os.getpid(), 1)):
        unfinished = tmp_path / f".urae-{MACHINE}-{process}-{number}-step-000002.tmp"
        unfinished.mkdir()
        (unfinished / "adapter.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path).name == "step-000001"
    assert len(remove_leftovers(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_bit_that_has_changed_anywhere_is_found(tmp_path):
    path = save_checkpoint(checkpoint(1), tmp_path, keep=1)
    rng, tried = random.Random(0), 0
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            file.write_bytes(changed)
            with pytest.raises(BadFile, match=DAMAGED):
                load_checkpoint(path)
            tried += 1
        file.write_bytes(content)
    assert tried > 400
    assert_whole(load_checkpoint(path), 1)


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("name", ["adapter.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path, name, digests):
    path = save_checkpoint(checkpoint(1), tmp_path, keep=1)
    if not digests:
        (path / "digests.json").unlink()
    (path / name).write_bytes((path / name).read_bytes()[:-4])
    with pytest.raises(BadFile, match=DAMAGED):
        load_checkpoint(path)


def test_a_file_that_is_gone_and_another_format_are_named(tmp_path):
    path = save_checkpoint(checkpoint(1), tmp_path, keep=1)
    written = json.loads((path / "digests.json").read_text())
    (path / "digests.json").write_text(json.dumps(written | {"format": 2}))
    with pytest.raises(BadFile, match="its format is 2, and this version reads 1"):
        load_checkpoint(path)
    (path / "digests.json").write_text(json.dumps(written))
    (path / "optimizer.safetensors").unlink()
    with pytest.raises(BadFile, match="optimizer.safetensors has changed since it was written"):
        load_checkpoint(path)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    save_checkpoint(checkpoint(1), tmp_path, keep=1)
    with (
        small_disk(60),
        pytest.raises(CannotWrite, match=r"\d/step-000002/adapter.safetensors cannot be written: .*again"),
    ):
        save_checkpoint(checkpoint(2), tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    save_checkpoint(checkpoint(2), tmp_path, keep=1)
    assert_whole(load_checkpoint(tmp_path / "step-000002"), 2)


def test_nothing_to_go_on_from(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
