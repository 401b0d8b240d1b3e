"""Safetensors: what is written is what the library writes, and what lies is refused."""

import json
import struct

import pytest
import safetensors.torch
import torch

from urae.errors import BadFile
from urae.io.weights import WRITTEN, parse_weights, read_header, read_weights, write_weights

ONE = torch.arange(6, dtype=torch.float32).reshape(2, 3)


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start=0, end=4, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def many():
    """Every dtype, no values, no dimensions, and one that does not lie in one piece."""
    tensors = {f"t{i}": torch.arange(6).reshape(2, 3).to(dtype) for i, dtype in enumerate(WRITTEN)}
    return {**tensors, "none": torch.zeros(0, 3), "scalar": torch.tensor(1.5), "é": ONE.T}


@pytest.mark.parametrize("metadata", [{}, {"urae": '{"a": "é\n\t\x7f"}'}])
def test_the_bytes_are_the_librarys(tmp_path, metadata):
    whole = {name: tensor.contiguous() for name, tensor in many().items()}
    safetensors.torch.save_file(whole, tmp_path / "theirs.safetensors", metadata=metadata or None)
    write_weights(tmp_path / "ours.safetensors", many(), metadata)
    ours, theirs = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("ours", "theirs"))
    assert ours == theirs


def test_the_same_contents_are_the_same_bytes(tmp_path):
    metadata = {str(i): str(i) for i in range(20)}
    for name, order in (("a", 1), ("b", -1)):
        shuffled = dict(list(many().items())[::order])
        write_weights(tmp_path / f"{name}.safetensors", shuffled, dict(list(metadata.items())[::order]))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    write_weights(path, many(), {"b": "1", "a": "2"}, sync=True)
    for weights in (read_weights(path, finite=True), parse_weights(path.read_bytes(), name="x", finite=True)):
        assert weights.metadata == {"a": "2", "b": "1"}
        assert weights.tensors.keys() == many().keys()
        for name, tensor in many().items():
            assert weights.tensors[name].dtype == tensor.dtype
            assert torch.equal(weights.tensors[name], tensor)
    header = read_header(path)
    assert {name: one.shape for name, one in header.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in many().items()
    }
    assert (header.tensors["é"].dtype, header.metadata) == ("F32", {"a": "2", "b": "1"})


LYING = {
    "nothing": b"",
    "half a length": b"\1\0\0",
    "a length beyond the end": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": raw(b"{"),
    "no object": raw(b"[]"),
    "a name twice": raw(b'{"a": %b, "a": %b}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "the same name in other letters": raw(
        b'{"a": %b, "\\u0061": %b}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)
    ),
    "a list for a tensor": raw({"a": [1]}),
    "no shape": raw({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "a text as shape": raw({"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, bytes(4)),
    "a fraction as size": raw({"a": entry(shape=(1.0,))}, bytes(4)),
    "a negative size": raw({"a": entry(shape=(-1, -1))}, bytes(4)),
    "sizes that overflow": raw({"a": entry(0, 0, shape=(2**62, 4, 2**62))}),
    "many dimensions": raw({"a": entry(shape=(1,) * 70)}, bytes(4)),
    "an unknown dtype": raw({"a": entry(dtype="F33")}, bytes(4)),
    "a dtype that torch cannot compute with": raw({"a": entry(dtype="F4", shape=(8,))}, bytes(4)),
    "a dtype of scales": raw({"a": entry(dtype="F8_E8M0", shape=(4,))}, bytes(4)),
    "another shape than bytes": raw({"a": entry(shape=(2,))}, bytes(4)),
    "a place before the beginning": raw({"a": entry(-4, 0)}, bytes(4)),
    "three places": raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)),
    "an overlap": raw({"a": entry(), "b": entry()}, bytes(4)),
    "a gap": raw({"a": entry(4, 8)}, bytes(8)),
    "bytes that nobody owns": raw({"a": entry()}, bytes(5)),
    "too few bytes": raw({"a": entry()}, bytes(3)),
    "a number in the metadata": raw({"__metadata__": {"a": 1}}),
    "a list of metadata": raw({"__metadata__": ["a"]}),
    "a deep header": raw(b'{"a":' * 5000),
}


@pytest.mark.parametrize("content", LYING.values(), ids=LYING)
def test_a_file_that_lies_is_refused_by_name(tmp_path, content):
    path = tmp_path / "lying.safetensors"
    path.write_bytes(content)
    for read in (read_header, read_weights, lambda path: parse_weights(path.read_bytes(), name=path)):
        with pytest.raises(BadFile, match=r"lying\.safetensors"):
            read(path)


def test_no_metadata_may_be_null(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"__metadata__": None, "a": entry()}, bytes(4)))
    assert read_weights(path).metadata == parse_weights(path.read_bytes(), name="x").metadata == {}


def test_a_header_has_a_limit(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**26))
        file.truncate(2**27)  # which takes no room on the disk
    with pytest.raises(BadFile, match="its header has 67108864 bytes"):
        read_header(path)


def test_a_file_cut_at_any_byte_is_no_whole_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_weights(path, {"a": ONE}, {"k": "v"})
    whole = path.read_bytes()
    for end in range(len(whole)):
        with pytest.raises(BadFile):
            parse_weights(whole[:end], name="x")
    path.write_bytes(whole[:-1])
    with pytest.raises(
        BadFile, match=r"x\.safetensors is not a complete safetensors file .*: download, copy or save"
    ):
        read_weights(path)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_where_asked(tmp_path, dtype, value):
    path = tmp_path / "x.safetensors"
    write_weights(path, {"a": torch.tensor([1.0, value]).to(dtype)}, {})
    assert read_weights(path).tensors["a"].shape == (2,)
    with pytest.raises(BadFile, match=r"x\.safetensors holds NaN or infinite values in 'a'"):
        read_weights(path, finite=True)


def test_large_finite_doubles_are_finite(tmp_path):
    write_weights(tmp_path / "x.safetensors", {"a": torch.tensor([1e300], dtype=torch.float64)}, {})
    assert read_weights(tmp_path / "x.safetensors", finite=True).tensors["a"].item() == 1e300


def test_other_formats_are_refused_unread(tmp_path):
    torch.save({"a": ONE}, tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"weights\.pt is not a \.safetensors file: other formats can run code"
    ):
        read_weights(tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"absent\.safetensors does not exist"):
        read_header(tmp_path / "absent.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes((tmp_path / "weights.pt").read_bytes())
    with pytest.raises(BadFile, match=r"pickle\.safetensors is not a complete safetensors file"):
        read_weights(tmp_path / "pickle.safetensors")
