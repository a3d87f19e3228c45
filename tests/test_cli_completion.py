"""What a shell offers after Tab: asked as bash asks, and in a bash of its own."""

import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time

import click
import pytest

from subspace.cli import VERBS, main
from subspace.cli.shared.options import WRITTEN
from subspace.training import TASKS
from tests.support.samples import ROOT, SAMPLES
from tests.support.verbs import run


def offered(line):
    """Return (kind, value) of each completion of the last word; bash parts words at = too."""
    words = [w for word in line.split(" ") for w in re.split(r"(=)", word) if w or word == ""]
    asked = {
        "_SUBSPACE_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = run(env=asked, prog_name="subspace")
    return [tuple(item.split(",", 1)) for item in done.output.splitlines() if item]


def values(line):
    found = offered(line)
    assert {kind for kind, _ in found} <= {"plain"}
    return [value for _, value in found]


def test_verbs_options_and_choices():
    assert values("subspace ") == list(VERBS)
    assert values("subspace re") == ["report", "resize", "reproduce"]
    assert values("subspace --debug ra") == ["rank"]
    assert values("subspace similarity --si") == ["--side"]
    assert values("subspace similarity a b --side ") == ["A", "B", "in", "out", "delta-A"]
    assert values("subspace convert a b --to ") == list(WRITTEN)
    assert values("subspace similarity a b --figure l") == ["layers"]
    assert values("subspace zzz") == values("subspace similarity --side x") == []


def test_an_option_and_its_value_in_one_word():
    assert values("subspace similarity --side=") == ["A", "B", "in", "out", "delta-A"]
    assert values("subspace similarity --side=i") == ["in"]
    assert values("subspace similarity a --side=in --by=ag") == ["agreeing"]
    assert values("subspace similarity a --side=in --k") == ["--k"]
    assert offered("subspace rank a --rename x=y ru") == [("file", "ru")]


@pytest.mark.parametrize("verb", VERBS)
def test_a_path_is_completed_by_the_shell(verb):
    """Of all that is an adapter, a base, a model, data, a pattern or a place."""
    for parameter in main.get_command(None, verb).params:
        paths = isinstance(parameter.type, click.Path)
        if not (paths or parameter.name in ("base", "model", "data", "pattern")):
            continue
        if isinstance(parameter, click.Argument):
            line = f"subspace {verb} " + ("x " if parameter.name in ("tuned", "out") else "")
        else:
            line = f"subspace {verb} {parameter.opts[0]} "
        for begun in ("", "./ru"):
            assert [kind for kind, _ in offered(line + begun)] in (["file"], ["dir"]), line


def test_names_that_come_with_the_package():
    for line in ("amplification a --base", "diff", "train --model", "report a --base"):
        assert values(f"subspace {line} min") == ["minilm"]
    assert values("subspace train --data icd") == [n for n in TASKS if n.startswith("icd")]
    assert values("subspace train --data=snl") == ["snli"]
    assert offered("subspace train --data texts") == [("file", "texts")]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on PATH")
def test_in_bash(tmp_path):
    pty = pytest.importorskip("pty")
    program = tmp_path / "bin" / "subspace"
    program.parent.mkdir()
    code = "from subspace.cli import main; main(prog_name='subspace')"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    program.chmod(0o755)
    (line,) = re.findall(
        r"^ +(eval .*bash_source.*)$", (ROOT / "docs/index.md").read_text(), re.MULTILINE
    )
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "TERM": "dumb", "PS1": "$ ", "HISTFILE": "", "PYTHONPATH": str(ROOT)}
    terminal, other = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=other, stdout=other, stderr=other,
        env=os.environ | own, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    os.close(other)

    def until(expected):
        shown, end = "", time.monotonic() + 60
        while expected not in shown:
            ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
            assert ready, (expected, shown)
            shown += os.read(terminal, 65536).decode()

    def types(text):
        os.write(terminal, text.encode())

    try:
        until("$ ")
        types(f"bind 'set bell-style none'; {line}; echo rea''dy\n")
        until("ready")
        there = SAMPLES.relative_to(ROOT).as_posix()
        for begun, whole in [
            ("subspace si", "subspace similarity "),
            ("subspace similarity --si", "--side "),
            ("subspace similarity --side=i", "--side=in "),
            (f"subspace similarity {there[:-3]}", f"{there}/"),
            ("subspace amplification x --base ./sub", "--base ./subspace/"),
            ("subspace amplification x --base mini", "--base minilm "),
            ("subspace convert a b --to koh", "--to kohya "),
        ]:
            types(f"{begun}\t")
            until(whole)
            types("\x15")  # the line away
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)
