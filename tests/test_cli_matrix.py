"""``subspace similarity`` of three adapters or more: what it prints, writes and refuses."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.support.folders import agreeing_folder
from tests.support.verbs import modules_after, refused, run, run_cli


@pytest.fixture
def runs(tmp_path):
    """Two groups of two, and one of its own."""
    shared = (2, 0, 2, 0, 2)
    return [
        agreeing_folder(tmp_path / f"seed{n}", seed=n, shared=each) for n, each in enumerate(shared)
    ]


def strictly(done):
    def refuse(constant):
        raise AssertionError(constant)

    assert done.exit_code == 0, done.output
    return json.loads(done.stdout, parse_constant=refuse)


def untrained(tensors):
    for key in tensors:
        if "lora_B" in key:
            tensors[key][:] = 0


def test_the_triangle_and_the_pairs_have_the_numbers_of_the_json(runs):
    plain = strictly(run("similarity", *runs[:3], "--json"))
    lines = run("similarity", *runs[:3]).output.splitlines()
    assert lines[0].startswith("φ(3,3) of 3 adapters, side A: right singular vectors of A")
    names = [plain["adapters"][n] for n in plain["order"]]
    assert lines[1].split() == names[:-1]
    assert lines[3].split()[0] == names[1]
    value = {frozenset(p["adapters"]): p["value"] for p in plain["pairs"]}
    last = lines[4].split()
    assert last[0] == names[2]
    for name, word in zip(names[:-1], last[1:], strict=True):
        assert word.rstrip("*") == f"{value[frozenset((name, names[2]))]:.3f}"
    row = next(line.split() for line in lines if line.startswith("seed0 + seed2"))
    assert row == ["seed0", "+", "seed2", f"{value[frozenset(('seed0', 'seed2'))]:.3f}",
                   f"{3 / 40:.3f}", "2/2", "0"]  # fmt: skip
    assert "order: average linkage on 1 - phi" in lines
    assert "note: the initial A is not stored with seed0, seed1, seed2" in lines[-1]


def test_the_order_given_is_kept_on_request(runs):
    lines = run("similarity", *runs, "--order", "given").output.splitlines()
    assert lines[1].split() == ["seed0", "seed1", "seed2", "seed3"]
    assert "order: as the adapters were given" in lines
    order = strictly(run("similarity", *runs, "--json"))["order"]
    assert sum((a in (0, 2, 4)) != (b in (0, 2, 4)) for a, b in zip(order, order[1:])) <= 2  # noqa: B905, RUF007
    assert "the 6 of 10 pairs that are most alike (--csv writes all)" in lines


@pytest.mark.parametrize("by", ["agreeing", "distance"])
def test_other_measures(runs, by):
    plain = strictly(run("similarity", *runs, "--by", by, "--json"))
    assert (plain["by"], plain["k"]) == (by, None if by == "agreeing" else 3)
    output = run("similarity", *runs, "--by", by).output
    assert {"agreeing": "2/3*", "distance": "0 the same subspace, 1 orthogonal"}[by] in output
    nearest = next(line for line in output.splitlines() if " + " in line)
    assert {"seed0", "seed2", "seed4"} >= {nearest.split()[0], nearest.split()[2]}


def test_csv_is_one_line_a_pair(runs):
    rows = list(csv.DictReader(io.StringIO(run("similarity", *runs, "--csv", "--k", "2").stdout)))
    plain = strictly(run("similarity", *runs, "--json", "--k", "2"))
    assert len(rows) == 10
    for row, pair in zip(rows, plain["pairs"], strict=True):
        assert [row["a"], row["b"]] == pair["adapters"]
        assert float(row["value"]) == pair["value"]
        assert int(row["significant"]) == pair["significant"]
        assert row["same_initial"] == ""


def test_tables_for_model_cards_and_papers(runs):
    """The triangle that a terminal shows, whole, in the order asked for."""
    shown = [
        x.split() for x in run("similarity", *runs, "--order", "given").output.splitlines()[1:7]
    ]
    lines = run("similarity", *runs, "--order", "given", "--markdown").stdout.splitlines()
    assert lines[0] == "|  | seed0 | seed1 | seed2 | seed3 |"
    assert lines[1] == "| :-- | --: | --: | --: | --: |"
    assert len(lines) == 6
    for line, words in zip(lines[2:], shown[2:], strict=True):
        assert line.replace("\\", "").replace("|", " ").split() == words
    latex = run("similarity", *runs, "--order", "given", "--latex").stdout.splitlines()
    assert latex[0] == r"\begin{tabular}{lrrrr}"
    assert latex[1:4] == ["  \\toprule", "   & seed0 & seed1 & seed2 & seed3 \\\\", "  \\midrule"]
    assert [cell.strip(" \\") for cell in latex[5].split("&")] == [*shown[3], "", ""]
    names = [strictly(run("similarity", *runs, "--json"))["adapters"][n] for n in (0, 1)]
    first = run("similarity", *runs, "--markdown").stdout.splitlines()[
        0
    ]  # clustered, as the terminal's is
    assert first.replace("|", "").split() == run("similarity", *runs).output.splitlines()[1].split()
    assert names == ["seed0", "seed1"]


def test_untrained_is_null_empty_and_a_dash(runs, tmp_path):
    nothing = agreeing_folder(tmp_path / "zero", change=untrained)
    plain = strictly(run("similarity", *runs[:2], nothing, "--json"))
    assert [pair["value"] is None for pair in plain["pairs"]] == [False, True, True]
    rows = list(csv.DictReader(io.StringIO(run("similarity", *runs[:2], nothing, "--csv").stdout)))
    assert (rows[2]["value"], rows[2]["undefined"]) == ("", "2")
    output = run("similarity", *runs[:2], nothing, "--order", "given").output
    assert next(x for x in output.splitlines() if x.startswith("zero")).split()[1:] == ["-", "-"]
    assert "note: undefined in every module" in output
    all_zero = run("similarity", nothing, nothing, nothing, "--out", tmp_path / "z.svg")
    assert "zero (3)" in all_zero.output


@pytest.mark.parametrize("width", [40, 60, 200])
def test_a_narrow_terminal_gets_numbers_and_some_columns_at_a_time(tmp_path, monkeypatch, width):
    runs = [agreeing_folder(tmp_path / f"a-name-that-is-rather-long-{n}", seed=n) for n in range(9)]
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = run("similarity", *runs, "--order", "given").output.splitlines()
    end = next(n for n, line in enumerate(lines) if line.startswith("the 6 of"))
    assert max(map(len, lines[1:end])) <= width
    heads = [n for n, line in enumerate(lines[:end]) if re.match(r" +\d+( |$)", line)]
    columns = [word for n in heads for word in lines[n].split()]
    if width < 200:
        assert columns == list("12345678")
        assert len(heads) > 1
    values = sum(line.count("0.") for line in lines[1:end])
    assert values == 36  # every pair once
    if width == 200:
        monkeypatch.delenv("TTY_COMPATIBLE")  # in a pipe nothing is shortened
        assert (
            "\n9 a-name-that-is-rather-long-8  "
            in run("similarity", *runs, "--order", "given").output
        )


def test_a_figure_is_the_same_bytes_again_and_stdout_stays_clean(runs, tmp_path):
    out, again = tmp_path / "f.svg", tmp_path / "g.svg"
    strictly(run("similarity", *runs, "--out", out, "--json"))
    assert run("similarity", *runs, "--out", again).stderr == f"wrote {again}\n"
    assert out.read_bytes() == again.read_bytes()
    given = tmp_path / "h.svg"
    run("similarity", *runs, "--out", given, "--order", "given")
    assert given.read_bytes() != out.read_bytes()


def test_strangers_names_never_reach_the_terminal(tmp_path):
    evil = "a\x1b[31mRED\nlayer"
    names = ("=cmd()\x1b[32m", "$x^2$\x07", "b\u202e" * 50)
    paths = [
        agreeing_folder(tmp_path / n, modules=(evil, "x.v"), seed=k) for k, n in enumerate(names)
    ]
    for option in ((), ("--csv",), ("--json",), ("--by", "agreeing"), ("--order", "given"),
                   ("--markdown",), ("--latex",)):  # fmt: skip
        done = run("similarity", *paths, *option, "--out", tmp_path / "f.svg")
        assert not {"\x1b", "\x07", "\u202e"} & set(done.output)
    assert "'=cmd()" in run("similarity", *paths, "--csv").output
    assert r"3 \$x^2\$\\x07 |" in run("similarity", *paths, "--markdown").output
    assert r"\$x\textasciicircum{}2\$" in run("similarity", *paths, "--latex").output


@pytest.mark.parametrize(
    ("option", "word"),
    [
        (("--control", "x"), "--control"),
        (("--angles",), "--angles"),
        (("--figure", "3"), "--figure"),
        (("--contour", "0.5"), "--contour"),
        (("--initial",), "--initial"),
        (("--above-chance", "--angles"), "--angles, --above-chance"),
    ],
)
def test_what_is_for_two_is_refused_of_three(runs, tmp_path, option, word):
    done = run("similarity", *runs[:3], *option, "--out", tmp_path / "f.png", code=2)
    refused(done, tmp_path, word, "for two adapters only, and 3 were given", "two at a time")


@pytest.mark.parametrize("option", [("--by", "phi"), ("--k", "2"), ("--order", "given")])
def test_what_is_for_three_is_refused_of_two(runs, tmp_path, option):
    refused(
        run("similarity", *runs[:2], *option, code=2), tmp_path, option[0], "three adapters or more"
    )


def test_bad_input_is_one_line(runs, tmp_path):
    out = ("--out", tmp_path / "f.png")
    refused(run("similarity", runs[0], code=2), tmp_path, "one adapter was given", "two or more")
    refused(
        run("similarity", *runs, "--json", "--csv", *out, code=2),
        tmp_path,
        "--json and --csv",
        "choose one",
    )
    refused(run("similarity", *runs, "--latex", "--markdown", *out, code=2), tmp_path, "choose one")
    refused(
        run("similarity", *runs, "--k", "4", *out, code=2),
        tmp_path,
        "k is 4",
        "'seed0' has 3 directions",
    )
    refused(
        run("similarity", *runs, "--by", "agreeing", "--k", "2", *out, code=2),
        tmp_path,
        "leave k out",
    )
    refused(run("similarity", *runs, "--level", "0", *out, code=2), tmp_path, "probability")
    refused(run("similarity", *runs, "--modules", "*.nothing", *out, code=2), tmp_path, "nothing")
    refused(run("similarity", *runs, "--out", tmp_path / "f.tiff", code=2), tmp_path, "f.tiff")
    refused(
        run("similarity", *[runs[0]] * 201, *out, code=2),
        tmp_path,
        "201 adapters were given",
        "2 to 200",
    )
    refused(run("similarity", *runs[:2], Path("nowhere"), *out, code=2), tmp_path, "nowhere")


def test_a_table_needs_no_plotting(runs):
    loaded = modules_after(run_cli("similarity", *runs[:3]))
    assert not loaded & {"pandas", "matplotlib", "seaborn", "scipy.stats", "transformers"}


def dots(path):
    from PIL import Image

    return Image.open(path).width


def test_a_figure_is_as_wide_as_asked_or_as_its_numbers_need(runs, tmp_path):
    many = [agreeing_folder(tmp_path / f"more{n}", seed=20 + n) for n in range(25)]
    out = tmp_path / "f.png"
    for words, wide in (
        (runs, 1400),
        ((*runs, *many), 30 * 58),
        ((*runs, *many, "--width", "double", "--dpi", "100"), 700),
        ((*runs, "--style", "slides"), 1920),
        ((*runs[:2], "--width", "single"), 700),  # of two, every figure
        ((*runs[:2], "--width", "single", "--figure", "layers"), 700),
    ):
        run("similarity", *words, "--out", out)
        assert dots(out) == pytest.approx(wide, rel=0.3 if len(words) == 30 else 0)


@pytest.mark.parametrize("count", [2, 3])
def test_a_look_without_a_figure_is_said(runs, tmp_path, count):
    refused(
        run("similarity", *runs[:count], "--width", "single", code=2),
        tmp_path,
        "--width is for a figure",
        "--out",
    )
