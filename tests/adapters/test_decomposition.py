"""The decomposition against a full fp64 SVD, and its cache."""

import pytest
import torch
from tiny_flux import fresh_transformer

from urae.adapters import Minor, attach, decompose, decompose_cached
from urae.adapters.decomposition import _krylov

KINDS = ("smallest", "largest")


def random_matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / columns**0.5


def decaying(size, decades):
    """Singular values from 1 down to 10^-decades, as trained weights have them."""
    left = torch.linalg.qr(random_matrix(size, size, 1)).Q
    right = torch.linalg.qr(random_matrix(size, size, 2)).Q
    return ((left * torch.logspace(0, -decades, size)) @ right).float()


def assert_agrees_with_full_svd(weight, rank, kind, tolerance=1e-3):
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    chosen = slice(-rank, None) if kind == "smallest" else slice(None, rank)
    product = (U[:, chosen] * S[chosen]) @ Vh[chosen]
    found = decompose(weight, rank=rank, kind=kind)
    A, B = found.factors()
    assert A.dtype == B.dtype == torch.float32
    assert A.shape == (rank, weight.shape[1])
    assert B.shape == (weight.shape[0], rank)
    assert (B.double() @ A.double() - product).norm() < tolerance * product.norm()
    torch.testing.assert_close(found.S, S[chosen], rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(512, 512), (704, 448), (448, 704), (48, 32), (32, 48)], ids=str)
def test_random_matrices_of_every_orientation(shape, kind):
    assert_agrees_with_full_svd(random_matrix(*shape), 8, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decades", [2, 5])
def test_decaying_spectra(decades, kind):
    assert_agrees_with_full_svd(decaying(512, decades), 8, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_too_small_for_the_iteration(kind):
    for size in (30, 90, 200, 215, 220):
        assert_agrees_with_full_svd(decaying(size, 3), 8, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_weights(kind):
    assert_agrees_with_full_svd(random_matrix(512, 512).bfloat16(), 8, kind)


def test_the_iteration_itself_converges_where_it_should():
    for weight, kind in ((random_matrix(512, 512), "smallest"), (decaying(512, 5), "largest")):
        assert _krylov(weight.double(), 8, kind) is not None


def test_a_cluster_apart_from_the_rest():
    left, right = (torch.linalg.qr(random_matrix(512, 512, seed)).Q for seed in (1, 2))
    singular = torch.cat([torch.linspace(3, 1, 496), torch.full((16,), 0.5)])
    assert_agrees_with_full_svd((left * singular) @ right, 16, "smallest")


def test_without_a_gap_the_triplets_are_still_singular_triplets():
    found = decompose(torch.eye(512), rank=16, kind="smallest")
    torch.testing.assert_close(found.S, torch.ones(16, dtype=torch.float64))
    torch.testing.assert_close(found.V.mT @ found.V, torch.eye(16, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("zeros", [8, 40])
def test_singular_matrices(zeros):
    weight = random_matrix(512, 512)
    weight[:zeros] = 0
    _, S, _ = torch.linalg.svd(weight.double())
    found = decompose(weight, rank=16, kind="smallest")
    torch.testing.assert_close(found.S, S[-16:], rtol=1e-3, atol=1e-9)


def test_impossible_requests():
    with pytest.raises(
        ValueError, match=r"rank 33 is impossible for a 32 x 48 weight; choose a rank from 1 to 32"
    ):
        decompose(random_matrix(32, 48), rank=33, kind="smallest")
    with pytest.raises(ValueError, match="NaN or infinite"):
        decompose(torch.full((32, 32), torch.nan), rank=4, kind="smallest")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3072, 3072), (3072, 1536), (1536, 3072)], ids=str)
def test_the_size_of_flux(shape, kind):
    assert_agrees_with_full_svd(random_matrix(*shape), 16, kind)


def test_cache_returns_what_it_stored(tmp_path):
    weight = random_matrix(48, 32)
    first = decompose_cached(weight, rank=4, kind="smallest", cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    written = entry.stat().st_mtime_ns
    second = decompose_cached(weight, rank=4, kind="smallest", cache=tmp_path)
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in "USV")
    assert entry.stat().st_mtime_ns == written


def test_cache_keeps_weights_ranks_kinds_and_dtypes_apart(tmp_path):
    weight = random_matrix(48, 32)
    for other in (weight, weight + 1e-6, weight.bfloat16(), weight.mT.contiguous()):
        for rank in (3, 4):
            for kind in KINDS:
                decompose_cached(other, rank=rank, kind=kind, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4 * 2 * 2


def truncate_file(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate_file, flip_a_bit, empty])
def test_a_damaged_entry_is_computed_again(tmp_path, damage, caplog):
    weight = random_matrix(48, 32)
    first = decompose_cached(weight, rank=4, kind="smallest", cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    intact = entry.read_bytes()
    damage(entry)
    second = decompose_cached(weight, rank=4, kind="smallest", cache=tmp_path)
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in "USV")
    assert "damaged" in caplog.text
    assert entry.read_bytes() == intact
    assert list(tmp_path.iterdir()) == [entry]


def test_attach_fills_and_reads_the_cache(tmp_path):
    first = attach(fresh_transformer(), Minor(rank=4), cache=tmp_path).state_dict()
    entries = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(entries) == 17
    second = attach(fresh_transformer(), Minor(rank=4), cache=tmp_path).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == entries
