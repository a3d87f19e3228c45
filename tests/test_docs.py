"""Every example of README and docs/ prints what is written below it; figures/ is one command's."""

import base64
import re
import struct

import pytest

import subspace
from docs.refresh import (
    NOTEBOOKS,
    PAGES,
    formats_table,
    printed_by_command,
    printed_by_program,
    programs,
    run_notebook,
    sessions,
)
from subspace.adapters.load import FORMATS
from subspace.cli import VERBS, main
from tests.support.samples import ROOT
from tests.support.verbs import run

WRITERS = ("peft", "gguf", "mlx_lm", "diffusers", "lycoris", "loralib")
README = (ROOT / "README.md").read_text()


def examples(of):
    return [
        pytest.param(*example, id=f"{page.stem}: {example[0].strip().splitlines()[0][:60]}")
        for page in PAGES
        for example in of(page.read_text())
    ]


@pytest.mark.parametrize(("command", "expected"), examples(sessions))
def test_commands_print_what_the_page_says(command, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert printed_by_command(command, tmp_path).rstrip() == expected.rstrip()


@pytest.mark.parametrize(("program", "expected"), examples(programs))
def test_programs_print_what_the_page_says(program, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert printed_by_program(program, tmp_path) == expected
    for name in re.findall(r'"(\w+\.png)"', program):
        assert (tmp_path / name).stat().st_size > 10_000


def test_every_page_has_examples_and_every_program_its_output():
    assert len(sessions(README)) >= 2
    for page in PAGES:
        text = page.read_text()
        assert text.count("```python") == len(programs(text)), page.name


def shown(book):
    """What a notebook's cells show: texts as they are, of a picture how large it is."""
    found = []
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        assert cell.outputs, f"nothing is shown below {cell.source!r}"
        for output in cell.outputs:
            data = output.data if "data" in output else {output.name: output.text}
            found += [(cell.id, kind, size(data[kind])) for kind in sorted(data)]
    return found


def size(shown):
    """Width and height of a PNG, so that another version of matplotlib may draw it; else itself."""
    raw = base64.b64decode(shown) if shown.startswith("iVBOR") else b""
    return struct.unpack(">II", raw[16:24]) if raw else shown


@pytest.mark.slow
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_notebooks_show_what_they_store(page, tmp_path):
    import nbformat

    text = page.read_text()
    stored, run = nbformat.reads(text, as_version=4), run_notebook(text, tmp_path)
    assert shown(run) == shown(stored)
    kinds = {kind for _, kind, _ in shown(stored)}
    assert kinds == {"text/html", "text/plain", "image/png", "stdout"}  # no warning on stderr
    assert run.metadata == stored.metadata
    assert all(not cell.metadata for cell in stored.cells)
    assert str(ROOT) not in text
    assert (tmp_path / "docs" / "report.html").stat().st_size > 100_000


def test_a_notebook_that_stores_something_else_is_noticed():
    import nbformat

    stored = nbformat.read(NOTEBOOKS[0], as_version=4)
    changed = nbformat.read(NOTEBOOKS[0], as_version=4)
    table = next(c for c in changed.cells if c.id == "rank")
    html = table.outputs[0].data["text/html"]
    table.outputs[0].data["text/html"] = html.replace("<td>17</td>", "<td>18</td>", 1)
    assert shown(changed) != shown(stored)
    table.outputs = []
    with pytest.raises(AssertionError, match="nothing is shown below 'ranks = "):
        shown(changed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_indented_commands_have_the_options_that_the_verbs_have(page):
    """What cannot run here, such as a sweep, has at least no option or verb of its own making."""
    for line in re.findall(r"^    subspace (.*)$", page.read_text(), flags=re.MULTILINE):
        words = line.split(" | ")[0].split(" > ")[0].split()
        assert words[0] in VERBS, line
        known = {
            o for p in main.get_command(None, words[0]).params for o in (*p.opts, *p.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_table_of_formats_is_the_registrys():
    assert f"-->\n{formats_table()}\n<!-- end -->" in README
    assert '--8<-- "README.md:formats"' in (ROOT / "docs" / "formats.md").read_text()


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.NAME)
def test_a_formats_row_names_what_its_tests_use(format):
    """Each of them reads files; the packages that are said to write those are imported there."""
    texts = [(ROOT / path).read_text() for path in format.TESTS]
    assert all(".load(" in text for text in texts)
    packages = [name for name in re.findall(r"`(\w+)`", format.REFERENCE) if name in WRITERS]
    for package in packages:
        uses = rf"^import {package}\b|^from {package}\b|importorskip\(\"{package}\b"
        assert any(re.search(uses, text, flags=re.MULTILINE) for text in texts), package
    if not packages:
        assert "documented rule" in format.REFERENCE or format.NAME == "own pattern"
    if "documented rule" in format.REFERENCE:
        assert any("built here" in text or "are built by" in text for text in texts)


def test_every_verb_is_on_a_page():
    pages = "".join(page.read_text() for page in PAGES)
    for verb in VERBS:
        assert re.search(rf"subspace {verb}\b", pages), verb


def test_the_reference_has_every_public_function():
    text = (ROOT / "docs" / "api.md").read_text()
    told = {name.split(".")[-1] for name in re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)}
    for room in (subspace.plots, subspace.findings):
        functions = {name for name in room.__all__ if name.islower()}
        assert functions <= told, room.__name__


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="pip install '.[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    assert config.strict
    build(config)
    for page in (page for page in PAGES if page.parent.name == "docs"):
        text = (tmp_path / "site" / f"{page.stem}.html").read_text()
        assert "::: " not in text
        assert "--8<--" not in text
    for notebook in NOTEBOOKS:
        assert (tmp_path / "site" / notebook.name).is_file()
        linked = f'<a href="{notebook.name}" download>'
        assert linked in (tmp_path / "site" / "reports.html").read_text()
    assert not list((tmp_path / "site").rglob("*.py"))  # refresh.py is for who writes the pages


@pytest.mark.slow
def test_the_gallery_is_what_its_command_writes(monkeypatch, tmp_path):
    """Records and kept adapters are enough, none is copied, and every byte is as committed."""
    import matplotlib

    pinned = (ROOT / "constraints.txt").read_text()
    if f"matplotlib=={matplotlib.__version__}" not in pinned:
        pytest.skip(f"matplotlib {matplotlib.__version__} is not the release's; it may draw alike")
    figures = ROOT / "figures"
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    command = re.search(
        r"^    subspace (reproduce .*)$", (figures / "README.md").read_text(), re.MULTILINE
    )
    run(*command[1].split())
    names = sorted(path.name for path in figures.iterdir() if path.is_file())
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == names
    for name in names:
        assert (tmp_path / "figures" / name).read_bytes() == (figures / name).read_bytes(), name
