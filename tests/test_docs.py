"""README's blocks run and print what README says; each file in figures/ names its command."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from subspace.cli import VERBS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def sessions(text):
    """(command, expected output) of every ``$ subspace …`` in a console block."""
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


@pytest.mark.parametrize(
    ("command", "expected"), list(sessions(README)), ids=lambda text: text[:50].strip()
)
def test_console_blocks_print_what_they_say(command, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    assert words[0] == "subspace"
    # A figure that a block writes goes elsewhere: a test leaves the checkout as it was.
    words = [str(tmp_path / Path(w).name) if w.endswith(".png") else w for w in words]
    done = CliRunner().invoke(main, words[1:])
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip() == expected.rstrip()


def test_readme_has_blocks_to_run():
    assert len(list(sessions(README))) >= 2
    assert README.count("```python") >= 1


@pytest.mark.parametrize(
    ("block", "expected"),
    re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, flags=re.DOTALL),
)
def test_python_blocks_print_what_they_say(block, expected, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(block.replace("fig3.png", str(tmp_path / "fig3.png")), "README.md", "exec"), {})
    assert capsys.readouterr().out == expected
    assert (tmp_path / "fig3.png").stat().st_size > 10_000


def test_every_verb_is_in_the_readme():
    for verb in VERBS:
        assert f"subspace {verb}" in README


def test_every_figure_names_the_command_that_wrote_it():
    text = (ROOT / "figures" / "README.md").read_text()
    for file in (ROOT / "figures").iterdir():
        if file.name != "README.md":
            assert re.search(
                rf"^\s+subspace .*--out figures/{re.escape(file.name)}\b", text, re.MULTILINE
            )


def test_every_figure_is_what_its_command_writes(monkeypatch, tmp_path):
    """The committed gallery has the bytes that the commands write, on the tested versions."""
    import matplotlib

    pinned = (ROOT / "constraints.txt").read_text()
    if f"matplotlib=={matplotlib.__version__}" not in pinned:
        pytest.skip(f"matplotlib {matplotlib.__version__} is not the release's; it may draw alike")
    monkeypatch.chdir(ROOT)
    text = (ROOT / "figures" / "README.md").read_text()
    commands = re.findall(r"^\s+(subspace .*--out figures/(\S+).*)$", text, flags=re.MULTILINE)
    assert commands
    for command, name in commands:
        out = tmp_path / name
        words = shlex.split(command.replace(f"figures/{name}", str(out)))
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, done.output
        assert out.read_bytes() == (ROOT / "figures" / name).read_bytes(), name
