"""Run every example of README.md, data/README.md and docs/ and write what it prints below it.

    python docs/refresh.py [PAGE…]

A console block holds ``$ subspace …`` commands; a python block is followed by a text block with
what it prints; a notebook stores what its cells show; the table of formats is written from the
registry, schema.json from the fields of the results. tests/test_docs.py fails where what is
written is not what is printed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from subspace.cli import main

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NOTEBOOKS = tuple(sorted((ROOT / "docs").glob("*.ipynb")))
SCHEMA = ROOT / "docs" / "schema.json"
FIGURES = (".png", ".svg", ".pdf", ".html")
_CONSOLE = re.compile(r"```console\n(.*?)```", flags=re.DOTALL)
_FORMATS = re.compile(r"(<!-- formats[^>]*-->\n).*?(\n<!-- end -->)", flags=re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```\n(?:\n```text\n.*?```\n)?", flags=re.DOTALL)


def sessions(text: str) -> list[tuple[str, str]]:
    """Return (command, what the page says it prints) of every console block."""
    found = []
    for block in _CONSOLE.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def programs(text: str) -> list[tuple[str, str]]:
    """Return (program, what the page says it prints) of every python block."""
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)


def printed_by_command(command: str, scratch: Path) -> str:
    """Run one command in the checkout; a figure, or what is in out/, goes to `scratch`."""
    words = shlex.split(command)
    words = [
        str(scratch / Path(w).name) if w.endswith(FIGURES) or w.startswith("out/") else w
        for w in words
    ]
    done = CliRunner(env={"COLUMNS": None}).invoke(main, words[1:])  # whole lines, as in a pipe
    if words[0] != "subspace" or done.exit_code:
        raise RuntimeError(f"{command}: {done.output}")
    return done.stdout


def printed_by_program(program: str, scratch: Path) -> str:
    """Run one program in the checkout; a figure, or what is in out/, goes to `scratch`."""

    def place(match: re.Match[str]) -> str:
        return repr(str(scratch / Path(match[1]).name))

    code = re.sub(r'"(\w+\.(?:png|svg|pdf|html)|out/[\w.-]+)"', place, program)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "example", "exec"), {})
    return out.getvalue()


def formats_table() -> str:
    """Return what is read, a row for each format of the registry, with the test that holds it."""
    from subspace.adapters.load import FORMATS

    lines = ["| format | what is read | held in its tests to |", "|---|---|---|"]
    lines += [
        f"| {format.NAME} | {format.READS} | {format.REFERENCE}: "
        f"{', '.join(f'`{path}`' for path in format.TESTS)} |"
        for format in sorted(FORMATS, key=lambda format: (format.NAME != "PEFT", format.NAME))
    ]
    return "\n".join(lines)


def with_formats(text: str) -> str:
    """Return a page with the table of formats as the registry has it now."""
    return _FORMATS.sub(lambda m: m[1] + formats_table() + m[2], text)


def refreshed(text: str, scratch: Path) -> str:
    """Return a page with every example's output as it is now."""

    def console(match: re.Match[str]) -> str:
        parts = [command for command, _ in sessions(match[0])]
        shown = (f"$ {c}\n{printed_by_command(c, scratch).rstrip()}\n" for c in parts)
        return "```console\n" + "\n".join(shown) + "```"

    def python(match: re.Match[str]) -> str:
        output = printed_by_program(match[1], scratch)
        return f"```python\n{match[1]}```\n\n```text\n{output}```\n"

    return _PYTHON.sub(python, _CONSOLE.sub(console, with_formats(text)))


def run_notebook(text: str, scratch: Path) -> NotebookNode:
    """Run a notebook from its first cell, as if it lay in a checkout's docs/, and return it.

    What its cells write goes to `scratch`, and so does all that the kernel keeps. Nothing of when
    or where it ran is left in it. A cell that fails raises with its traceback.
    """
    import matplotlib.font_manager  # noqa: F401 - a kernel that has to list the fonts says so
    import nbformat
    from nbclient import NotebookClient

    here = scratch / "docs"
    here.mkdir(parents=True)
    (scratch / "data").symlink_to(ROOT / "data")
    book = nbformat.reads(text, as_version=4)
    client = NotebookClient(book, timeout=600, resources={"metadata": {"path": str(here)}})
    with tempfile.TemporaryDirectory() as sockets:  # a short path, as sockets need
        kernel = client.create_kernel_manager()
        kernel.transport, kernel.connection_file = "ipc", str(Path(sockets) / "kernel.json")
        # A reader's own profile could change what a cell shows.
        client.execute(env=os.environ | {"IPYTHONDIR": str(scratch / "ipython")})
    for cell in book.cells:
        cell.metadata = {}  # else: when each cell began and ended
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},  # without the version that happened to run it
    }
    return book


def refreshed_notebook(text: str, scratch: Path) -> str:
    """Return a notebook with every output as it is now."""
    import nbformat

    return nbformat.writes(run_notebook(text, scratch)) + "\n"


def write_schema() -> None:
    """Write the JSON Schema of all that the verbs write, from the fields of the results."""
    from subspace.results import schema_text

    SCHEMA.write_text(schema_text())


if __name__ == "__main__":
    write_schema()
    chosen = [Path(page).resolve() for page in sys.argv[1:]] or (*PAGES, *NOTEBOOKS)
    os.chdir(ROOT)
    for page in chosen:
        of = refreshed_notebook if page.suffix == ".ipynb" else refreshed
        with tempfile.TemporaryDirectory() as folder:
            page.write_text(of(page.read_text(), Path(folder)))
