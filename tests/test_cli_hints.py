"""What a verb says next to a person is a command that a shell runs as it stands."""

import json
import re
import shlex
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import save_file

from subspace.cli.shared.hints import quote_command
from tests.support.folders import base, folder, two_models
from tests.support.samples import R8, R64
from tests.support.verbs import run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with adapters, a base and two checkpoints; their names have a space."""
    (tmp_path / "my runs").mkdir()
    for n, name in enumerate(("one", "two", "-three")):
        folder(tmp_path / "my runs" / name, seed=n)
    base(tmp_path / "a base")
    two_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subspace.cli.shared.hints.at_terminal", lambda: True)
    return tmp_path


ONE, TWO, THREE = (f"my runs/{name}" for name in ("one", "two", "-three"))
FEW = ("--modules", "*quer[y]")
CASES = {
    "inspect one": (["inspect", ONE], 1),
    "inspect two": (["inspect", ONE, TWO, "--strict"], 2),
    "similarity": (["similarity", ONE, TWO, "--side", "in", *FEW], 2),
    "matrix": (["similarity", ONE, TWO, THREE, "--by", "agreeing"], 2),
    "rank": (["rank", ONE, TWO, "--rename", "enc.0.query=x"], 2),
    "interference": (["interference", ONE, TWO, THREE], 2),
    "interference of weights": (["interference", "--weights=1,-1", ONE, TWO], 1),
    "amplification": (["amplification", ONE, "--base", "a base", "--no-cache"], 2),
    "amplification of two": (["amplification", ONE, TWO, "--base", "a base", "--no-cache"], 1),
    "amplification of ranks": (
        ["amplification", ONE, "--base", "a base", "--no-cache", "--ranks", "1-2"], 1,
    ),
    "placement": (["placement", ONE, "--base", "a base", *FEW], 2),
    "profile": (["placement", ONE, "--base", "a base", "--profile"], 1),
    "diff": (["diff", "before", "after", "--modules", "q"], 1),
    "diff of equals": (["diff", "before", "before"], 0),
}  # fmt: skip


def hints(done):
    return re.findall(r"^next: (.*)$", done.stderr, flags=re.MULTILINE)


@pytest.mark.parametrize("verb", CASES)
def test_every_hint_runs_as_it_stands(verb, place):
    words, count = CASES[verb]
    done = run(*words)
    assert "next:" not in done.stdout
    said = hints(done)
    assert len(said) == count
    for line in said:
        program, *rest = shlex.split(line)
        assert program == "subspace"
        before = set(place.iterdir())
        run(*rest)
        if "--out" in rest:
            (new,) = set(place.iterdir()) - before
            assert new == place / rest[rest.index("--out") + 1]


def test_a_hint_keeps_what_was_typed(place):
    done = run("similarity", ONE, TWO, "--side", "in", *FEW)
    assert hints(done)[0] == (
        "subspace similarity 'my runs/one' 'my runs/two' --side in --modules '*quer[y]' "
        "--out fig3.png"
    )
    assert hints(done)[1] == "subspace report 'my runs/one' 'my runs/two'"
    done = run("rank", ONE, "--rename", "enc.0.query=x", "--strict")
    assert hints(done)[1] == "subspace report 'my runs/one' --strict --rename enc.0.query=x"
    (place / "my runs" / "-three").rename(place / "-three")
    done = run("rank", ONE, "--", "-three")
    first, second = hints(done)
    assert first == "subspace rank --out rank.png 'my runs/one' -- -three"
    assert second == "subspace report 'my runs/one' ./-three"
    for line in (first, second):
        run(*shlex.split(line)[1:])


@pytest.mark.usefixtures("place")
def test_the_figure_of_a_hint_has_the_papers_number():
    done = run("placement", ONE, "--base", "a base", *FEW)
    assert hints(done)[0].endswith(" --out fig8.png")


def test_the_adapter_of_a_hint_takes_no_place_that_is_taken(place):
    (place / "after-adapter").mkdir()
    done = run("diff", "before", "after")
    assert hints(done) == ["subspace diff before after --out after-adapter-2"]


@pytest.mark.usefixtures("place")
def test_no_log_and_no_document_has_a_hint(monkeypatch):
    words = ["similarity", ONE, TWO]
    for more in (["--json"], ["--csv"], ["--markdown"], ["--out", "x.png"]):
        assert "next:" not in run(*words, *more).output
    monkeypatch.undo()
    words = ["similarity", R8, R64]
    assert "next:" not in run(*words).output


def test_what_is_pasted_is_read_back():
    words = ["subspace", "rank", Path("it's mine/r8"), "--modules", "*.q", "$HOME", ""]
    assert shlex.split(quote_command(words)) == [str(word) for word in words]
    assert "\x1b" not in quote_command(["\x1b[31m"])


def test_of_an_adapter_without_updates_nothing_is_next(place):
    """It does not open, and the error says what is there."""
    (place / "empty").mkdir()
    save_file({}, place / "empty" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
    (place / "empty" / "adapter_config.json").write_text(json.dumps(config))
    done = run("inspect", "empty", code=2)
    assert hints(done) == []
    assert "no low-rank update is in this file; it holds nothing" in done.stderr


def test_the_next_verb_reads_the_same_adapter_of_several(place):
    (place / "several").mkdir()
    for name in ("one", "two"):
        (place / "my runs" / name).rename(place / "several" / name)
    done = run("inspect", "several", "--adapter-name", "two")
    assert hints(done) == ["subspace report several --adapter-name two"]
    done = run("report", "several", "--adapter-name", "two", "--json")
    (source,) = json.loads(done.stdout)["sources"]
    weights = place / "several" / "two" / "adapter_model.safetensors"
    assert sha256(weights.read_bytes()).hexdigest() in json.dumps(source)
