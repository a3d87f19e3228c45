"""A narrow terminal: rows are stacked, prose is parted between words, nothing is cut."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from subspace.cli.shared.narrow import stacked
from tests.support.folders import folder, two_models
from tests.support.samples import R8, R64, ROOT, SEED
from tests.support.verbs import run

FEW = ("--modules", "*.5.*")
CASES = {
    "similarity": ["similarity", R8, R64, "--angles", *FEW],
    "matrix": ["similarity", R8, R64, SEED, *FEW],
    "amplification": ["amplification", R8, "--base", "minilm", *FEW],
    "directions": ["amplification", R8, "--base", "minilm", "--directions", *FEW],
    "rank": ["rank", R64, SEED, *FEW],
    "inspect": ["inspect", R8],
    "interference": ["interference", R8, R64, *FEW],
    "interference of three": ["interference", R8, R64, SEED, "--all", *FEW],
    "resize": ["resize", R64, "OUT", "--rank", "4", "--overwrite", *FEW],
    "diff": ["diff", "before", "after"],
    "profile": ["placement", R8, "--base", "minilm", "--profile", "--modules", "*.5.*.query"],
}


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """Return what a verb prints at a width, or in a pipe."""
    two_models(tmp_path)
    monkeypatch.chdir(tmp_path)

    return lambda verb, width: run(*CASES[verb], env={"COLUMNS": width and str(width)}).stdout


@pytest.mark.parametrize("width", [60, 40])
@pytest.mark.parametrize("verb", CASES)
def test_no_line_is_left_to_the_terminal_and_no_number_is_lost(verb, width, printed):
    piped, narrow = printed(verb, None), printed(verb, width)
    for line in narrow.splitlines():  # a name that is longer is left whole
        assert len(line) <= width or max(map(len, line.split())) > width - 12, line
    words = re.findall(r"\S*\d\S*", piped)
    whole = re.sub(r"\s", "", narrow)  # a long name is folded by characters
    assert words
    for word in words:
        assert word in whole
    assert max(map(len, piped.splitlines())) > 40  # wider than the narrower of the two


@pytest.mark.parametrize("verb", ["similarity", "rank", "diff"])
def test_a_number_stands_beside_its_title(verb, printed):
    header, _, row = printed(verb, None).split("modules of")[-1].splitlines()[1:4]
    titles, cells = (re.split(r"  +", line.strip()) for line in (header, row))
    if verb == "diff":
        header, _, row = printed(verb, None).splitlines()[1:4]
        titles, cells = header.split(), row.split()
    narrow = printed(verb, 40)
    at = narrow.index(f"\n{cells[0]}\n")
    block = re.sub(r" +", " ", narrow[at:])
    for title, cell in zip(titles[1:], cells[1:], strict=True):
        assert re.search(rf"{re.escape(title)} {re.escape(cell)}\s", block), title


def test_a_wide_line_is_that_of_a_pipe(printed):
    for verb in CASES:
        assert printed(verb, 2000) == printed(verb, None)
    assert printed("rank", "no number") == printed("rank", "0") == printed("rank", None)


def test_a_cell_longer_than_the_line_and_a_row_without_cells():
    ((name, below),) = stacked(["m", "note"], [["q", "a note of several words"]], 20)
    assert name == "q"
    assert below == ["  note a note of", "    several words"]
    assert stacked(["a", "b", "c"], [["x", "", ""], ["y", "", "1"]], 8) == [
        ("x", []),
        ("y", ["  c 1"]),
    ]
    assert stacked(["a", "b"], [], 20) == []
    two = stacked(["a", "b", "c"], [["x", "y", "1"]], 20, left=2)
    assert two == [("x  y", ["  c 1"])]


# A real terminal

pty = pytest.importorskip("pty")


def at_terminal(words, *, columns, **env):
    """Run in a terminal so wide and return all that it shows."""
    import fcntl
    import struct
    import termios

    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "CI")}
    command = [sys.executable, "-m", "subspace", *words]
    env = {**kept, "TERM": "xterm-256color", **env}
    with subprocess.Popen(command, stdout=there, stderr=there, env=env, cwd=ROOT) as process:
        os.close(there)
        shown = b""
        while True:
            try:
                part = os.read(here, 65536)
            except OSError:  # its other end was closed
                break
            if not part:
                break
            shown += part
    os.close(here)
    assert process.returncode == 0, shown
    return shown.decode()


def bare(text):
    """Return the lines that stay: no styles, no bar of progress."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n").splitlines()
    return [line.split("\r")[-1] for line in lines if "━" not in line]


def test_a_terminal_of_40_columns():
    shown = at_terminal(["rank", R64, *FEW], columns=40)
    lines = bare(shown)
    assert "query" in lines
    (hint, more) = [line for line in lines if line.startswith("next: ")]
    for line in lines:
        assert len(line) <= 40 or len(line.split()) == 1 or line in (hint, more), line
    # COLUMNS, where it is set, is the last word.
    wide = bare(at_terminal(["rank", R64, *FEW], columns=40, COLUMNS="200"))
    assert any(line.startswith("query  ") for line in wide)


def test_no_color_has_none(tmp_path):
    place = Path(folder(tmp_path / "strange"))
    file = place / "adapter_model.safetensors"
    save_file(load_file(file) | {"strange": load_file(file).popitem()[1].copy()}, file)
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")
    assert colour.search(at_terminal(["inspect", str(place)], columns=80))
    plain = at_terminal(["inspect", str(place)], columns=80, NO_COLOR="1")
    assert "UNKNOWN" in plain
    assert not colour.search(plain)
    for words in (["similarity", R8, R64], ["--help"], ["rank", "--help"]):
        assert not colour.search(at_terminal(words, columns=40, NO_COLOR="1"))
