"""W's own values are found once, kept, and never believed when W is another or the file damaged."""

import json
import os

import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file

import subspace
from subspace.cache import Cache, default_folder
from subspace.measures.amplification import pretrained_values
from subspace.measures.amplification.pretrained_values import ValuesOf
from subspace.pretrained import open_pretrained
from tests.support.memory import adapter, gaussian

UPDATE = adapter(gaussian(40, 30, 4))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A base of one module, small, and a cache that keeps even the small."""
    monkeypatch.setattr(pretrained_values, "KEPT_FROM", 0)
    return write(tmp_path / "model")


def write(folder, seed=0, when=None):
    folder.mkdir(exist_ok=True)
    W = torch.randn(40, 30, generator=torch.Generator().manual_seed(seed))
    save_file({"q.weight": W}, folder / "model.safetensors")
    if when is not None:
        os.utime(folder / "model.safetensors", ns=(when, when))
    return folder


def entries(folder):
    return sorted(folder.glob("*.json"))


def in_w(model, cache, **options):
    return subspace.amplification(UPDATE, model, cache=cache, **options)[0].w_in_w


@pytest.fixture
def computed(monkeypatch):
    """Count how often W's values are really found."""
    calls = []
    before = pretrained_values.linalg.leading

    def counted(W, k, **options):
        calls.append(k)
        return before(W, k, **options)

    monkeypatch.setattr(pretrained_values.linalg, "leading", counted)
    return calls


def test_a_second_adapter_pays_nothing(model, tmp_path, computed):
    cache = tmp_path / "cache"
    first = subspace.amplification(UPDATE, model, cache=cache)
    again = subspace.amplification(adapter(gaussian(40, 30, 8, seed=1)), model, cache=cache)
    assert len(computed) == 1
    assert len(entries(cache)) == 1
    bare = subspace.amplification(UPDATE, model)
    assert first.to_dict() == bare.to_dict()
    assert again[0].w_in_w > first[0].w_in_w
    assert len(computed) == 2


def test_the_values_are_bit_equal_from_the_cache(model, tmp_path):
    cache = tmp_path / "cache"
    cold = subspace.amplification(UPDATE, model, cache=cache).to_dict()
    assert subspace.amplification(UPDATE, model, cache=cache).to_dict() == cold


def test_what_was_kept_for_another_rank_changes_nothing(model, tmp_path, computed, monkeypatch):
    """Entries are of a fixed number of values: the bytes do not depend on who came first."""
    monkeypatch.setattr(pretrained_values, "STEP", 4)
    base = open_pretrained(model)
    values_of = ValuesOf(base, Cache(tmp_path / "cache"))
    weight = base["q"]
    norm = float(torch.linalg.norm(weight.W.double()))
    exact = torch.linalg.svdvals(weight.W.double())
    for k, count, size in ((3, 1, 4), (9, 2, 12), (4, 2, 4), (10, 2, 12)):
        found = values_of(weight, weight.W, norm, k, torch.device("cpu"))
        assert len(found.S) == len(found.error) == size
        assert_allclose(found.S, exact[:size], rtol=1e-8)
        assert len(computed) == count


def test_a_small_w_is_not_kept(tmp_path):
    in_w(write(tmp_path / "model"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_model_that_moves_keeps_its_entries(model, tmp_path, computed):
    cache = tmp_path / "cache"
    in_w(model, cache)
    in_w(model.rename(tmp_path / "elsewhere"), cache)
    assert len(computed) == 1


def test_each_part_of_the_key_counts(model, tmp_path):
    """Time, size, rows that are read, and the place in the file."""
    cache, file = tmp_path / "cache", model / "model.safetensors"
    in_w(model, cache)
    os.utime(file, ns=(1, 1))
    in_w(model, cache)
    assert len(entries(cache)) == 2
    data = bytearray(file.read_bytes())
    data[-40 * 30 * 4] ^= 1  # in row 0, which is a stripe
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))
    in_w(model, cache)
    assert len(entries(cache)) == 3
    W = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    save_file({"p.weight": W, "q.weight": W.clone()}, file)
    both = Cache(tmp_path / "both")
    base = open_pretrained(model)
    norm = float(torch.linalg.norm(W))
    for name in ("p", "q"):
        ValuesOf(base, both)(base[name], base[name].W, norm, 2, torch.device("cpu"))
    assert len(entries(tmp_path / "both")) == 2


@pytest.mark.parametrize("damage", ["truncated", "emptied", "changed", "another", "negative"])
def test_a_damaged_entry_is_found_anew(model, tmp_path, damage, computed):
    cache = tmp_path / "cache"
    right = in_w(model, cache)
    (entry,) = entries(cache)
    text = entry.read_text()
    held = json.loads(text)
    if damage == "truncated":
        entry.write_text(text[: len(text) // 2])
    elif damage == "emptied":
        entry.write_text("")
    elif damage == "changed":
        held["entry"]["S"][0] *= 2
        entry.write_text(json.dumps(held))
    elif damage == "another":
        held["key"] += "x"
        entry.write_text(json.dumps(held))
    else:  # a sound file of values that cannot be
        Cache(cache).put(held["key"], held["entry"] | {"S": held["entry"]["S"][::-1]})
    assert in_w(model, cache) == right
    assert len(computed) == 2
    assert in_w(model, cache) == right  # and the entry is whole again
    assert len(computed) == 2


def test_another_w_is_another_key(model, tmp_path, computed):
    cache = tmp_path / "cache"
    first = in_w(model, cache)
    write(model, seed=1)
    second = in_w(model, cache)
    assert second != first
    assert len(computed) == 2
    assert len(entries(cache)) == 2


def test_verify_sees_what_the_key_cannot(tmp_path, monkeypatch):
    """Same size, same time, same rows at the stripes: only the digest tells."""
    monkeypatch.setattr(pretrained_values, "KEPT_FROM", 0)
    monkeypatch.setattr("subspace.pretrained.fingerprint._STRIPES", 2)
    cache, model = tmp_path / "cache", write(tmp_path / "model", when=10**18)
    stale = in_w(model, cache)
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = torch.tensor([9.0]).numpy().tobytes()  # the last row is no stripe
    file.write_bytes(data)
    os.utime(file, ns=(10**18, 10**18))
    assert in_w(model, cache) == stale  # as the docstring of the key says
    fresh = in_w(model, cache, verify_cache=True)
    assert fresh != stale
    assert fresh == in_w(model, None)
    assert in_w(model, cache) == fresh  # the entry was replaced


def test_nothing_is_kept_of_a_base_that_cannot_be_read(model, tmp_path):
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = torch.tensor([float("nan")]).numpy().tobytes()
    file.write_bytes(data)
    with pytest.raises(subspace.SubspaceError, match="NaN"):
        in_w(model, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_no_error(model, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert in_w(model, blocked / "cache") == in_w(model, None)
    assert not Cache(blocked / "cache").put("k", {"a": 1})


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.put("k", {"a": 1})

    def failing(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", failing)
    assert not cache.put("k", {"a": 2})
    monkeypatch.undo()
    assert cache.get("k") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_writer_that_was_killed_is_in_nobodys_way(tmp_path):
    cache = Cache(tmp_path)
    cache.put("k", {"a": 1})
    (entry,) = tmp_path.iterdir()
    for ending in ("", ".tmp", ".0"):
        (tmp_path / f".{entry.name}{ending}").write_text("half")
    assert cache.put("k", {"a": 2})
    assert cache.get("k") == {"a": 2}


def test_the_default_folder_is_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder().name == "lora-subspace"


def test_without_top_nothing_is_looked_up(model, tmp_path, computed):
    row = subspace.amplification(UPDATE, model, cache=tmp_path / "cache", top=False)[0]
    assert row.w_in_w != row.w_in_w
    assert row.to_dict()["w_in_w"] is None
    assert (row.w_in_w_method, row.to_dict()["w_in_w_error"]) == ("skipped", None)
    assert not (tmp_path / "cache").exists()
    assert computed == [16]  # a glance, for the range that chance has
    whole = subspace.amplification(UPDATE, model)[0]
    assert (row.factor, row.null_low) == (whole.factor, whole.null_low)
