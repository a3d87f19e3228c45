"""Runs read from their folders, and the copies that are kept of them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from subspace.errors import ArgumentError, FormatError, MissingFileError
from subspace.training import TrainConfig
from subspace.training.sweep.copy import copy_run
from subspace.training.sweep.read import find_runs
from subspace.training.sweep.summary import make_table6


def write_run(folder, *, validation=0.5, test=0.5, sha256="1", **options):
    config = TrainConfig(**options)
    folder.mkdir(parents=True)
    record = {
        "options": config.to_options(),
        "model": {"name": "m"},
        "data": {"name": "d", "sha256": sha256},
        "before": {"accuracy": 0.1},
        "after": {"accuracy": test},
        "history": [{"step": 1, "validation_accuracy": validation, "train_accuracy": 0.9}],
        "trainable_parameters": 10,
    }
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def write_weights(folder, value=0.1):
    (folder / "adapter_config.json").write_text("{}")
    for name in ("adapter_model", "initial_A"):
        save_file({"x": torch.full((2, 3), value)}, folder / f"{name}.safetensors")


def test_runs_are_found_at_any_depth_in_the_order_of_a_table(tmp_path):
    for rank in (64, 8):
        for seed in (1, 0):
            write_run(tmp_path / f"deep/{rank}/{seed}", rank=rank, seed=seed)
    write_run(tmp_path / "head", method="head")
    write_run(tmp_path / ".hidden.unfinished/new", rank=2)
    found = find_runs([tmp_path])
    names = [(c.config.method, c.config.rank, c.config.seed) for c in found]
    assert names[:4] == [("lora", 8, 0), ("lora", 8, 1), ("lora", 64, 0), ("lora", 64, 1)]
    assert [c.config.method for c in found] == ["lora"] * 4 + ["head"]
    assert all(c.reused for c in found)


def test_a_run_that_is_named_twice_counts_once(tmp_path):
    run = write_run(tmp_path / "runs/r8", rank=8)
    assert len(find_runs([run, tmp_path / "runs"])) == 1


def test_of_several_rates_the_best_on_validation_is_used_at_every_seed(tmp_path):
    for rate, validation in ((1e-3, 0.5), (2e-3, 0.8), (4e-3, 0.8), (8e-3, 0.6)):
        write_run(tmp_path / f"{rate}", learning_rate=rate, validation=validation, test=rate)
    write_run(tmp_path / "other", learning_rate=2e-3, seed=1, validation=0.1, test=0.25)
    found = find_runs([tmp_path])
    used = {(c.config.learning_rate, c.config.seed) for c in found if not c.searched}
    assert used == {(2e-3, 0), (2e-3, 1)}  # of equals the smaller one
    (row,) = make_table6(found)
    assert row.test == (2e-3, 0.25)
    assert [rate for rate, _ in row.searched] == [1e-3, 2e-3, 4e-3, 8e-3]


def test_runs_of_two_sweeps_are_not_one_table(tmp_path):
    write_run(tmp_path / "a", steps=300)
    write_run(tmp_path / "b", seed=1, steps=600)
    with pytest.raises(ArgumentError, match="trained with steps 600"):
        find_runs([tmp_path])
    # Two data sets may take different numbers of steps.
    write_run(tmp_path / "c/other", steps=600, data="icd10-pairs")
    assert len(find_runs([tmp_path / "a", tmp_path / "c"])) == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ({"data": "x.csv"}, {"data": "x.csv", "sha256": "2"}, "data sha256 '2'"),
        ({}, {"model": "other", "data": "icd10-pairs"}, "model 'other'"),
        ({"alpha": 16}, {"alpha": 32}, r"alpha 32\.0"),
        ({"learning_rate": 1e-3}, {"learning_rate": 1e-2}, r"learning_rate 0\.01"),  # no search
        ({"rslora": True}, {"rank": 4}, "rslora False"),
    ],
)
def test_runs_that_make_no_row_are_refused(tmp_path, ours, theirs, said):
    write_run(tmp_path / "a", **ours)
    write_run(tmp_path / "b", seed=1, **theirs)
    with pytest.raises(ArgumentError, match=rf"b was trained with {said}, \S+a with"):
        find_runs([tmp_path])


def test_what_a_reference_or_another_rank_may_differ_in(tmp_path):
    write_run(tmp_path / "r8", rslora=True, alpha=16)
    write_run(tmp_path / "r64", rslora=True, alpha=128, rank=64)
    write_run(tmp_path / "head", method="head", learning_rate=1.0)  # of it rslora means nothing
    assert len(find_runs([tmp_path])) == 3


def test_a_copy_of_a_run_counts_once_and_another_run_of_its_kind_is_refused(tmp_path):
    """A gallery holds the compared runs twice: in runs, and in adapters with the weights."""
    write_run(tmp_path / "adapters/r8")
    write_run(tmp_path / "runs/r8")
    write_weights(tmp_path / "adapters/r8")
    assert [c.folder for c in find_runs([tmp_path])] == [tmp_path / "adapters/r8"]
    write_weights(tmp_path / "runs/r8")
    assert len(find_runs([tmp_path])) == 1
    write_run(tmp_path / "again", test=0.6)
    with pytest.raises(ArgumentError, match="two runs of one configuration, r8-seed0; give one"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{}", '{"options": 3}', '{"options": {"rank": -1}}', '{"options": {"unheard": 1}}',
        '{"options": {"targets": 3}}', '{"options": {"learning_rate": "fast"}}',
        '{"options": {"targets": [null]}}', '{"options": {}, "before": {}}', "nonsense",
    ],
)  # fmt: skip
def test_a_damaged_record_names_its_file(tmp_path, text):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(FormatError, match=r"training\.json"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("options", {"data": 3}), ("options", {"shuffle_labels": "no"}),
        ("model", {"name": ["m"]}), ("data", {}), ("after", {"accuracy": float("nan")}),
        ("after", {"accuracy": 50}), ("history", {"step": 1}), ("history", [3]),
    ],
)  # fmt: skip
def test_a_record_with_a_part_of_another_kind_names_its_file(tmp_path, part, value):
    path = write_run(tmp_path / "run") / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))
    with pytest.raises(FormatError, match=r"training\.json: not the record of a run"):
        find_runs([tmp_path])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no run in it"):
        find_runs([tmp_path])


def test_a_kept_copy_follows_the_run(tmp_path):
    run = write_run(tmp_path / "run", rank=8)
    (cell,) = find_runs([run])
    store = tmp_path / "store"
    assert copy_run(cell, store) is None  # a record alone
    write_weights(run)
    copy = copy_run(cell, store)
    assert copy == store / "r8-seed0"
    for file in run.iterdir():
        assert (copy / file.name).read_bytes() == file.read_bytes()
    stamp = (copy / "adapter_model.safetensors").stat().st_mtime_ns
    assert copy_run(cell, store) == copy
    assert (copy / "adapter_model.safetensors").stat().st_mtime_ns == stamp

    # The weights go away and the copy stays; trained anew, the run is copied anew.
    (run / "adapter_model.safetensors").unlink()
    assert copy_run(cell, store) == copy
    (run / "training.json").write_text((run / "training.json").read_text() + "\n")
    assert copy_run(cell, store) is None
    write_weights(run, value=0.2)
    assert copy_run(cell, store) == copy
    assert load_file(copy / "adapter_model.safetensors")["x"][0, 0] == torch.tensor(0.2)
    assert not list(store.glob(".*"))


def test_what_is_no_copy_is_not_written_over(tmp_path):
    """Someone's own runs may have the names of a gallery's copies."""
    run = write_run(tmp_path / "run", rank=8)
    write_weights(run)
    (cell,) = find_runs([run])
    other = write_run(tmp_path / "store" / "r8-seed0", rank=8, learning_rate=0.5)
    write_weights(other)
    with pytest.raises(ArgumentError, match=r"store/r8-seed0: in the place of a copy of \S+/run"):
        copy_run(cell, tmp_path / "store")
    (other / "training.json").unlink()
    with pytest.raises(ArgumentError, match="move or delete it, or choose another folder"):
        copy_run(cell, tmp_path / "store")
    assert (other / "adapter_model.safetensors").exists()
