"""Where nothing can be written, every verb says so once and before it works."""

import os
from pathlib import Path

import pytest

from subspace.cli.shared.places import check_file, check_folder, check_place
from subspace.errors import ArgumentError, MissingFileError
from tests.support.tiny_world import write_world
from tests.support.verbs import run

NOT_THERE = "no adapter of this name"  # a verb that read its adapters first would speak of these


@pytest.fixture(
    params=[
        pytest.param("/proc", marks=pytest.mark.skipif(not Path("/proc/1").exists(), reason="no")),
        "read-only",
    ]
)
def closed(request, tmp_path):
    """A folder that lets nothing be written, and not by its permissions alone."""
    if request.param == "/proc":
        return Path("/proc")
    if os.geteuid() == 0:
        pytest.skip("an administrator may write anywhere")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    return folder


CASES = {
    "similarity": ("x.png", ["similarity", NOT_THERE, NOT_THERE, "--out"]),
    "matrix": ("x.png", ["similarity", NOT_THERE, NOT_THERE, NOT_THERE, "--out"]),
    "rank": ("x.svg", ["rank", NOT_THERE, "--out"]),
    "interference": ("x.png", ["interference", NOT_THERE, NOT_THERE, "--out"]),
    "amplification": ("x.png", ["amplification", NOT_THERE, "--base", NOT_THERE, "--out"]),
    "placement": ("x.pdf", ["placement", NOT_THERE, "--base", NOT_THERE, "--out"]),
    "profile": ("x.pdf", ["placement", NOT_THERE, "--base", NOT_THERE, "--profile", "--out"]),
    "report": ("x.html", ["report", NOT_THERE, "--out"]),
    "report json": ("x.json", ["report", NOT_THERE, "--json", "--out"]),
    "resize": ("x", ["resize", NOT_THERE, "--rank", "2"]),
    "convert": ("x", ["convert", NOT_THERE, "--to", "peft"]),
    "diff": ("x", ["diff", NOT_THERE, NOT_THERE, "--out"]),
    "train --draw": ("x.png", ["train", "--model", NOT_THERE, "--draw"]),
}
MAKING = {
    "demo": ["demo", "--out"],
    "train": ["train", "--targets", "query", "--model", NOT_THERE, "--out"],
    "sweep": ["train", "--ranks", "1,2", "--targets", "query", "--model", NOT_THERE, "--out"],
    "reproduce": ["reproduce", "--quick", "--model", NOT_THERE, "--out"],
    "reproduce of runs": ["reproduce", NOT_THERE, "--base", NOT_THERE, "--out"],
}


def refused(done, words):
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def placed(words, place):
    """OUT is the second argument of the two verbs that have no --out."""
    return [*words, place] if words[-1].startswith("--") else [*words[:2], place, *words[2:]]


@pytest.mark.parametrize("verb", CASES)
def test_a_folder_that_is_not_there_is_refused(verb, tmp_path):
    name, words = CASES[verb]
    refused(run(*placed(words, tmp_path / "nowhere" / name), code=2), "there is no folder")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("verb", CASES)
def test_a_folder_that_cannot_be_written_is_refused(verb, closed):
    name, words = CASES[verb]
    refused(run(*placed(words, closed / name), code=2), "nothing can be written into")


@pytest.mark.parametrize("verb", MAKING)
def test_a_folder_that_could_not_be_made_is_refused(verb, closed, tmp_path):
    refused(run(*MAKING[verb], closed / "new" / "runs", code=2), "nothing can be written into")
    (tmp_path / "file").write_text("mine")
    refused(run(*MAKING[verb], tmp_path / "file" / "runs", code=2), "is a file, and no folder")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", CASES)
def test_a_figure_or_page_in_the_place_of_a_folder_is_refused(verb, tmp_path):
    name, words = CASES[verb]
    if name == "x":
        pytest.skip("its OUT may be a folder")
    (tmp_path / name).mkdir()
    refused(run(*placed(words, tmp_path / name), code=2), "it is a folder; give a file in it")


def test_a_whole_sweep_says_it_once(closed, tmp_path):
    world = write_world(tmp_path)
    data = ("--model", world / "tiny-bert", "--data", world / "texts.jsonl")
    for words in (("train", "--ranks", "1,2", "--steps", "2"), ("reproduce", "--quick")):
        done = run(*words, *data, "--out", closed / "runs", code=2)
        refused(done, "nothing can be written into")


def test_parents_are_made_where_a_verb_makes_its_folder(tmp_path):
    """README's first use of train is --out runs/r8."""
    world = write_world(tmp_path)
    words = ("--model", world / "tiny-bert", "--data", world / "texts.jsonl", "--warmup", "1")
    out = tmp_path / "not" / "there" / "r8"
    run("train", *words, "--steps", "2", "--eval-every", "1", "--out", out)
    assert (out / "training.json").is_file()


def test_looking_leaves_nothing(tmp_path):
    check_place(tmp_path / "x")
    check_file(tmp_path / "x.png")
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_no_system_takes_is_one_line(tmp_path):
    for check in (check_place, check_file, check_folder):
        with pytest.raises((ArgumentError, MissingFileError), match="cannot write"):
            check(tmp_path / ("x" * 300) / "y")


def test_finished_runs_may_lie_where_nothing_can_be_written(tmp_path, monkeypatch):
    """A clone on a read-only disk still has its records used."""
    from subspace.cli.shared import places
    from subspace.cli.train import sweep_of

    looked = []
    monkeypatch.setattr(places, "check_folder", looked.append)
    one, several = (
        sweep_of([*words, f"--out={tmp_path / 'runs'}"])
        for words in (["--rank", "1"], ["--ranks", "1,2"])
    )
    places.check_runs([one, several])
    assert looked == [tmp_path, tmp_path / "runs"]
    for name in (".", "r1-seed0", "r2-seed0"):
        (tmp_path / "runs" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name / "training.json").write_text("{}")
    looked.clear()
    places.check_runs([one, several])
    assert looked == []
    places.check_runs([one, several], overwrite=True)
    assert looked == [tmp_path, tmp_path / "runs"]
