"""CONTRIBUTING's recipes, played on a copy of the repository: what changes, and what one gets."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.samples import R8, R64, ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
_STEP = re.compile(
    r"^(?:New file `(?P<new>[^`]+)`|In `(?P<old>[^`]+)`, below `(?P<below>[^`]+)`):\n\n"
    r"```\w+\n(?P<text>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
# Tests that hold the house: each of them looks at whatever is registered.
HOUSE = {
    "test_house.py": (
        "test_a_file_imports_only_rooms_above_its_own",
        "test_files_have_no_circle",
        "test_contributing_names_each_rooms_folders_and_the_file_to_read_first",
        "test_every_folder_says_where_to_start_reading",
        "test_public_names_resolve",
        "test_every_figure_of_a_result_is_public",
    ),
    "test_cli.py": (
        "test_help_teaches_by_example",
        "test_an_option_of_one_name_is_one_thing_everywhere",
        "test_every_verb_can_be_piped",
        "test_every_option_says_what_it_is_in_a_sentence",
        "test_every_summary_fits_one_line_of_80_columns",
    ),
    "test_cli_options.py": (
        "test_an_option_has_the_name_of_the_parameter_that_it_is",
        "test_a_verbs_function_has_few_parameters",
        "test_a_parameter_of_a_measure_is_an_option",
    ),
    "test_docs.py": (
        "test_indented_commands_have_the_options_that_the_verbs_have",
        "test_the_table_of_formats_is_the_registrys",
        "test_a_formats_row_names_what_its_tests_use",
        "test_every_verb_is_on_a_page",
        "test_the_reference_has_every_public_function",
    ),
    "test_plots.py": ("test_every_figure_has_its_row_and_its_place_in_the_api",),
}


def steps(title):
    """Return the steps of one recipe, in their order."""
    (section,) = re.findall(rf"^### {title}\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    return list(_STEP.finditer(section))


def play(title, place):
    """Do what a recipe says in a copy of the repository; return the new and the changed files."""
    for name in ("subspace", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("data", "figures", "benchmarks", "cli.py", ".ci"):
        (place / name).symlink_to(ROOT / name)
    for path in ROOT.iterdir():
        if path.suffix in {".md", ".toml", ".txt", ".yml"}:
            shutil.copy(path, place)
    new, changed = [], set()
    for step in steps(title):
        if step["new"]:
            path = place / step["new"]
            assert not path.exists(), path
            path.parent.mkdir(exist_ok=True)
            path.write_text(step["text"])
            new.append(step["new"])
            continue
        path = place / step["old"]
        lines = path.read_text().splitlines(keepends=True)
        assert f"{step['below']}\n" in lines, (step["old"], step["below"])
        path.write_text(
            "".join(x + step["text"] if x == f"{step['below']}\n" else x for x in lines)
        )
        changed.add(step["old"])
    return new, changed


def python(place, *words):
    """Run Python in the copy, whose package stands before the one that is installed."""
    # What the run around this one asks of pytest, a coverage among it, is not asked of the copy.
    asked = ("PYTEST_", "COV_", "COVERAGE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(asked)}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=environment | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def changed_by(place):
    """Return which files of the repository the copy has otherwise."""
    here = [p for name in ("subspace", "tests", "docs") for p in (ROOT / name).rglob("*")]
    here += [path for path in ROOT.iterdir() if (place / path.name).is_file()]
    relative = [p.relative_to(ROOT) for p in here if p.is_file() and "__pycache__" not in p.parts]
    return {
        path.as_posix()
        for path in relative
        if (place / path).read_bytes() != (ROOT / path).read_bytes()
    }


def hold(place, new):
    """Run the recipe's own tests, and those of the house, in the copy."""
    own = [path for path in new if path.startswith("tests/")]
    assert own
    nodes = [f"tests/{file}::{name}" for file, names in HOUSE.items() for name in names]
    python(place, "-m", "pytest", "-q", "-n0", *own, *nodes)


def api_page(place):
    """Build the page of the reference, and return its text."""
    (place / "one").mkdir()
    shutil.copy(place / "docs" / "api.md", place / "one" / "index.md")
    text = (place / "mkdocs.yml").read_text().split("nav:\n")[0]
    (place / "one.yml").write_text(text + "docs_dir: one\n")
    python(place, "-m", "mkdocs", "build", "-q", "--strict", "-f", "one.yml", "-d", "site")
    return (place / "site" / "index.html").read_text()


PROBE = """
import json
from pathlib import Path

import subspace
from subspace.results import schema
from tests.support.documents import document
from tests.support.verbs import run

def test_a_measure_has_every_form(tmp_path):
    pair = ({r8!r}, {r64!r}, "--modules", "*.[45].*.query")
    assert subspace.__file__.startswith({place!r})
    plain = document("trace", *pair, "--json")  # valid under the schema
    assert plain["kind"] == "trace"
    overlaps = [module["overlap"] for module in plain["modules"]]
    assert len(overlaps) == 2
    shown = run("trace", *pair).stdout
    assert shown.splitlines()[0].startswith("trace overlap of r8")
    assert f"{{overlaps[0]:.3g}}" in shown
    assert "tr: trace overlap: the cosine between two updates" in " ".join(shown.split())
    assert run("trace", *pair, "--csv").stdout.startswith("module,overlap,note\\n")
    assert run("trace", *pair, "--markdown").stdout.startswith("| module | tr |\\n| :-- | --: |\\n")
    assert "module & tr" in run("trace", *pair, "--latex").stdout
    result = subspace.trace(*map(subspace.load, pair[:2]), modules=pair[3])
    assert "<th>module</th><th>tr</th>" in result._repr_html_()
    assert list(result.to_frame().columns) == ["module", "overlap", "note"]
    field = schema()["$defs"]["module_trace"]["properties"]["overlap"]
    assert field["description"] == (
        "Trace overlap: the cosine between two updates; null where an update is zero."
    )
    assert json.loads(Path("docs/schema.json").read_text()) == schema()
    refused = run("trace", *pair, "--json", "--csv", code=2)
    assert "choose one" in refused.stderr
    run("trace", "nowhere", pair[1], code=2)
"""


@pytest.mark.slow
def test_a_measure(tmp_path):
    new, changed = play("How to add a measure", tmp_path)
    assert len([step for step in steps("How to add a measure") if step["old"]]) == 7
    python(tmp_path, "docs/refresh.py", "docs/api.md")
    assert changed_by(tmp_path) == {*changed, "docs/schema.json"}
    assert len(changed_by(tmp_path)) <= 5
    probe = tmp_path / "tests" / "test_probe.py"
    probe.write_text(PROBE.format(r8=R8, r64=R64, place=str(tmp_path)))
    hold(tmp_path, [*new, "tests/test_probe.py"])
    page = api_page(tmp_path)
    assert "Measure tr(dW_a^T dW_b)" in page
    assert "Trace overlaps of two adapters" in page


@pytest.mark.slow
def test_a_format(tmp_path):
    new, changed = play("How to add a format", tmp_path)
    write = (  # what `docs/refresh.py README.md` does too, beside running every example
        "import sys; sys.path.insert(0, 'docs'); import refresh; "
        "page = refresh.ROOT / 'README.md'; page.write_text(refresh.with_formats(page.read_text()))"
    )
    python(tmp_path, "-c", write)
    assert changed_by(tmp_path) == {*changed, "README.md"}
    assert len(changed_by(tmp_path)) <= 2
    hold(tmp_path, new)


@pytest.mark.slow
def test_a_figure(tmp_path):
    new, changed = play("How to add a figure", tmp_path)
    assert changed_by(tmp_path) == changed
    assert len(changed) <= 2
    hold(tmp_path, new)


def test_a_recipe_that_is_not_true_is_seen(tmp_path, monkeypatch):
    """A line that is no longer there, and a file that is there already."""
    monkeypatch.setitem(globals(), "TEXT", TEXT.replace("below `    torchtune,`", "below `gone`"))
    with pytest.raises(AssertionError, match="gone"):
        play("How to add a format", tmp_path / "a")
    monkeypatch.setitem(globals(), "TEXT", TEXT.replace("formats/toy.py", "formats/kohya.py"))
    with pytest.raises(AssertionError, match=r"kohya\.py"):
        play("How to add a format", tmp_path / "b")
