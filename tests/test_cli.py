"""What all verbs have in common: examples, names of options, a near miss, a narrow terminal."""

import re
from collections import defaultdict

import click
import pytest
from PIL import Image

from subspace.cli import VERBS, main
from tests.support.samples import R8, R64
from tests.support.verbs import run


def verb(name):
    return main.get_command(None, name)


@pytest.mark.parametrize("name", VERBS)
def test_help_teaches_by_example(name):
    shown = run(name, "--help").output
    examples = re.findall(rf"^ +subspace {name}\b.*$", shown, flags=re.MULTILINE)
    assert examples or name == "demo"
    for example in examples:
        words = example.split(" | ")[0].split()
        known = {option for p in verb(name).params for option in (*p.opts, *p.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known


def test_an_option_of_one_name_is_one_thing_everywhere():
    """The same metavar and kind of value; --out is a figure, a page or a folder by its verb."""
    seen = defaultdict(set)
    for name in VERBS:
        for parameter in verb(name).params:
            if isinstance(parameter, click.Option):
                for option in parameter.opts:
                    if option.startswith("--"):
                        kind = (parameter.is_flag, parameter.metavar or "")
                        seen[option].add((kind, name))
    for option, uses in seen.items():
        # --rank of a sweep is a list, as --ranks is.
        if option not in ("--out", "--draw", "--rank", "--ranks", "--seed"):
            kinds = {kind for kind, _ in uses}
            assert len(kinds) == 1, (option, uses)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_can_be_piped(name):
    options = {option for p in verb(name).params for option in p.opts}
    assert {"--json", "--csv"} <= options


@pytest.mark.parametrize("name", VERBS)
def test_every_option_says_what_it_is_in_a_sentence(name):
    for parameter in verb(name).params:
        if isinstance(parameter, click.Option):
            words, _, default = (parameter.help or "").partition("  [default: ")
            assert words.endswith("."), parameter.opts
            assert not default or default.endswith("]"), parameter.opts
            assert not re.search(r"likewise|^As in ", words), parameter.opts
            assert len(words.split()) >= (4 if name in ("train", "reproduce") else 2), (
                parameter.opts
            )


def test_a_near_miss_names_what_was_meant():
    done = run("similarty", "a", "b", code=2)
    assert "Did you mean 'similarity'?" in done.stderr
    done = run("x\x1b[31m", code=2)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["similarity", "--modul", "x"], "No such option '--modul'. Did you mean '--modules'?"),
        (["similarity", "--ot", "x"], "Did you mean '--out'?"),  # and not --contour, --control
        (["rank", "--js"], "Did you mean '--json'?"),
        (["rank", "--lateks"], "Did you mean '--latex'?"),
        (["rank", "-j"], "Did you mean '--json'?"),
        (["rank", "--d"], "Did you mean '--dpi' or '--device'?"),
        (["rank", "--zzz"], "No such option '--zzz'.\n"),
        (["--debgu", "rank"], "Did you mean '--debug'?"),
        (["--zzz", "rank"], "No such option '--zzz'.\n"),
        (["sim", "a", "b"], "Did you mean 'similarity'?"),
        (["re"], "Did you mean 'report' or 'resize' or 'reproduce'?"),
        (["zzz"], "No such command 'zzz'.\n"),
    ],
)
def test_only_the_nearest_is_named(words, said):
    done = run(*words, code=2)
    assert done.stderr.endswith(said if said.endswith("\n") else f"{said}\n")


def test_every_summary_fits_one_line_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("--help").output
    lines = shown.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(VERBS)
    assert all(line.endswith(VERBS[line.split()[0]]) for line in lines)
    assert max(map(len, lines)) <= 80
    for name in VERBS:  # what a shell's completion shows
        assert verb(name).get_short_help_str(200) == VERBS[name]


@pytest.mark.parametrize("name", VERBS)
def test_help_fits_a_narrow_terminal(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    shown = run(name, "--help", terminal_width=50).output
    prose = [line for line in shown.splitlines() if "subspace " not in line]
    assert max(map(len, prose)) <= 60


def test_no_escape_reaches_a_pipe():
    done = run("similarity", R8, R64)
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    ("look", "dots"),
    [
        ((), 1400),
        (("--width", "single"), 700),
        (("--width", "5.5", "--dpi", "100"), 550),
        (("--style", "slides"), 1920),
        (("--style", "slides", "--width", "6"), 2304),
    ],
)
def test_a_figure_comes_out_as_wide_as_asked(look, dots, tmp_path):
    out = tmp_path / "rank.png"
    run("rank", R8, "--out", out, *look)
    assert Image.open(out).width == dots
    run("rank", R8, *look, code=2 if look else 0)


def test_a_width_that_is_none_is_said():
    done = run("rank", R8, "--width", "wide", code=2)
    assert "single, double or a number of inches" in done.stderr
    done = run("rank", R8, "--out", "x.png", "--width", "900", code=2)
    assert "3 to 40 inches" in done.stderr
    for look in (["--width", "double", "--style", "slides"], ["--style=slides", "--width=single"]):
        done = run("rank", R8, "--out", "x.png", *look, code=2)
        assert "is a column of a page" in done.stderr
