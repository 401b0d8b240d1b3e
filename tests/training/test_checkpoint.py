import pytest
import torch

from urae.errors import BadFile
from urae.training.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    tensors = {"adapter": {"A": torch.full((2, 3), float(step))}, "optimizer": {"0.step": torch.tensor(step)}}
    return Checkpoint(step=step, tensors=tensors, state={"number": 0.1 + 0.2, "most": float("inf")})


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path = save_checkpoint(checkpoint(200), tmp_path, keep=1)
    assert path.name == "step-000200"
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.state) == (200, {"number": 0.1 + 0.2, "most": float("inf")})
    assert torch.equal(loaded.tensors["adapter"]["A"], checkpoint(200).tensors["adapter"]["A"])
    assert loaded.tensors["optimizer"]["0.step"].item() == 200


def test_the_latest_ones_are_kept(tmp_path):
    for step in (2, 999_998, 1_000_000):  # the last one has a digit more than its name is padded to
        save_checkpoint(checkpoint(step), tmp_path, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"step-999998", "step-1000000"}
    assert latest_checkpoint(tmp_path).name == "step-1000000"


def test_what_is_unfinished_is_neither_found_nor_kept(tmp_path):
    save_checkpoint(checkpoint(1), tmp_path, keep=2)
    (tmp_path / ".unfinished-step-000002").mkdir()
    (tmp_path / ".unfinished-step-000002" / "adapter.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path).name == "step-000001"
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


@pytest.mark.parametrize("name", ["adapter.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    path = save_checkpoint(checkpoint(1), tmp_path, keep=1)
    (path / name).write_bytes((path / name).read_bytes()[:-4])
    with pytest.raises(BadFile, match="step-000001 is damaged .*delete it to go on from the one before"):
        load_checkpoint(path)


def test_nothing_to_go_on_from(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
