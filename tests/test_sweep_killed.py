"""Runs that are killed: they go on to the same bytes, and their processes end with the sweep."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from subspace.errors import ArgumentError
from subspace.training import train
from subspace.training.folder import find_last_checkpoint
from tests.support.samples import ROOT
from tests.support.tiny_world import tiny_config, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def config(world):
    return tiny_config(world)


def contents(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != "training.json"}


KILLED = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from subspace.training import TrainConfig, train
config = TrainConfig(**{options!r})
def tell(now):
    print(now.phase, now.step, flush=True)
train(config, {out!r}, checkpoint_every=10, progress=tell)
"""


def killed_at(config, out, step):
    """Train in a process of its own, and kill -9 it as it says that a step was done."""
    options = dict(vars(config))
    script = KILLED.format(tests=str(ROOT / "tests"), options=options, out=str(out))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    for line in process.stdout:
        if line.split() == ["training", str(step)]:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(60) == -signal.SIGKILL
    time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
@pytest.mark.parametrize(
    ("method", "kills"),
    [
        ("lora", ((3, None), (14, "checkpoint-10"), (33, "checkpoint-30"))),
        ("full", ((20, "checkpoint-10"),)),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(config, tmp_path, method, kills):
    """Killed before the first checkpoint, between two, and on one: the adapter is as unbroken."""
    config = replace(config, method=method, steps=36, eval_every=8)
    torch.set_num_threads(1)
    whole = train(config, tmp_path / "whole")
    out = tmp_path / "killed"
    hidden = tmp_path / ".killed.unfinished"
    for step, found in kills:
        killed_at(config, out, step)
        assert not out.exists()
        last = find_last_checkpoint(hidden / "trainer")
        # On a checkpoint's own step the signal may come before it is written, or after.
        names = {found} if step != 20 else {"checkpoint-10", "checkpoint-20"}
        assert (None if last is None else last.name) in names
    steps = []
    done = train(config, out, checkpoint_every=10, progress=lambda now: steps.append(now.step))
    assert min(s for s in steps if s) == int(last.name.split("-")[1]) + 1  # nothing done twice
    assert contents(done.folder) == contents(whole.folder)
    for part in ("before", "after", "history", "losses"):
        assert done.record[part] == whole.record[part], part
    assert not hidden.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_the_processes_of_a_killed_sweep_end_with_it(config, world, tmp_path):
    """A worker that lives on would hold its run's lock, and train where nobody looks."""
    words = [
        "train", "--model", str(world / "tiny-bert"), "--data", config.data, "--ranks", "1,2",
        "--steps", "100000", "--checkpoint-every", "10", "--jobs", "2",
        "--out", str(tmp_path / "o"),
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "subspace", *words], stderr=subprocess.DEVNULL, cwd=ROOT
    )
    trainers = [tmp_path / "o" / f".r{rank}-seed0.unfinished" / "trainer" for rank in (1, 2)]

    def until(held, seconds=120):
        end = time.monotonic() + seconds
        while not held():
            assert time.monotonic() < end
            assert process.poll() in (None, -signal.SIGKILL)
            time.sleep(0.05)

    until(lambda: all(find_last_checkpoint(trainer) for trainer in trainers))
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    fcntl = pytest.importorskip("fcntl")

    def free():
        for trainer in trainers:
            with (trainer.parent / "lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return False
        return True

    until(free, 20)
    steps = [find_last_checkpoint(trainer) for trainer in trainers]
    time.sleep(1)
    assert [find_last_checkpoint(trainer) for trainer in trainers] == steps


def test_an_unfinished_run_of_other_options_is_not_gone_on_with(config, tmp_path):
    def stop(now):
        if now.phase == "training" and now.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", checkpoint_every=5, progress=stop)
    assert find_last_checkpoint(tmp_path / ".run.unfinished" / "trainer").name == "checkpoint-10"
    steps = []
    other = replace(config, seed=6)
    done = train(other, tmp_path / "run", progress=lambda now: steps.append(now.step))
    assert 1 in steps
    assert contents(done.folder) == contents(train(other, tmp_path / "fresh").folder)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    for step, state in ((5, {"global_step": 5}), (10, {"global_step": 10})):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps(state))
    assert find_last_checkpoint(tmp_path).name == "checkpoint-10"
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text('{"global_st')
    assert find_last_checkpoint(tmp_path).name == "checkpoint-5"
    (tmp_path / "checkpoint-5" / "trainer_state.json").unlink()
    assert find_last_checkpoint(tmp_path) is None


def test_two_processes_do_not_train_one_run(config, tmp_path):
    pytest.importorskip("fcntl")

    def meddle(now):
        if now.step == 3:
            with pytest.raises(ArgumentError, match="another process is training this run"):
                train(config, tmp_path / "run")

    assert train(config, tmp_path / "run", progress=meddle).folder.exists()
