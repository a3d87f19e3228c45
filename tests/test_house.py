"""The rooms of the house: who may import whom (the table in CONTRIBUTING), and what stays light."""

import ast
import importlib
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

from tests.support.samples import ROOT as REPOSITORY
from tests.support.samples import SAMPLES
from tests.support.verbs import HEAVY, modules_after, run, run_cli

ROOT = REPOSITORY / "subspace"
TESTS = REPOSITORY / "tests"

# room -> rooms it may import, beside those of `FOR_ALL`. A room is a file or folder of `subspace/`.
# The order is the way of the data: a room imports only rooms above it.
FOR_ALL = {"errors", "files"}  # what every room below them may import
ROOMS = {
    "errors": set(),
    "files": set(),
    "results": set(),
    "tensorfiles": set(),
    "modules": set(),
    "adapters": {"modules", "tensorfiles"},
    "pretrained": {"modules", "tensorfiles"},
    "linalg": set(),
    "chance": set(),
    "cache": set(),
    "spectra": {"adapters", "linalg", "results"},
    "measures": {
        "modules",
        "adapters",
        "pretrained",
        "spectra",
        "linalg",
        "chance",
        "cache",
        "results",
    },
    "findings": {"chance", "modules", "results"},
    "plots": {"modules", "results"},
    "reports": {
        "modules",
        "adapters",
        "pretrained",
        "spectra",
        "measures",
        "results",
        "findings",
        "plots",
    },
    "training": {"modules", "results"},
    "gallery": {
        "modules",
        "adapters",
        "pretrained",
        "measures",
        "results",
        "findings",
        "plots",
        "reports",
        "training",
    },
    "cli": {
        "gallery",
        "modules",
        "adapters",
        "pretrained",
        "tensorfiles",
        "results",
        "spectra",
        "measures",
        "chance",
        "cache",
        "linalg",
        "findings",
        "plots",
        "reports",
        "training",
        "__init__",
    },
    "__main__": {"cli"},
    "__init__": set(),
}

# What a room may import from outside the standard library at the top of its files.
OUTSIDE = {
    "errors": set(),
    "files": set(),
    "results": set(),
    "tensorfiles": set(),
    "modules": set(),
    "adapters": set(),
    "pretrained": set(),
    "linalg": {"torch"},
    "chance": {"numpy", "scipy"},
    "cache": set(),
    "spectra": {"torch"},
    "measures": {"numpy", "torch"},
    "findings": {"numpy"},
    "plots": {"numpy", "matplotlib", "lazy_loader"},
    "reports": {"numpy"},
    "training": {"numpy"},
    "gallery": set(),
    "cli": {"click"},
    "__main__": set(),
    "__init__": {"lazy_loader"},
}


def room(path):
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(source, *, top_only=False):
    """Module names that a file imports; those under TYPE_CHECKING cost nothing and are left out."""
    found = []

    def walk(nodes):
        for node in nodes:
            if type_checking(node):
                walk(node.orelse)
                continue
            if isinstance(node, ast.Import):
                found.extend(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                assert node.module is not None
                assert all(a.name != "*" for a in node.names), "no star imports"
                if node.module == "subspace":
                    found.extend(f"subspace.{a.name}" for a in node.names)
                else:
                    found.append(node.module)
            elif top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            walk(ast.iter_child_nodes(node))

    walk(ast.parse(source).body)
    return found


def targets(source):
    """Rooms of ours that a file imports."""
    rooms = {p.name.removesuffix(".py") for p in ROOT.iterdir()}
    for name in imports(source):
        if name.split(".")[0] == "subspace":
            part = name.split(".")[1] if "." in name else "__init__"
            yield part if part in rooms else "__init__"


FILES = sorted(ROOT.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_rooms_above_its_own(path):
    here = room(path)
    allowed = ROOMS[here] | ({here} if here == "errors" else {here} | FOR_ALL)
    assert set(targets(path.read_text())) <= allowed
    outside = {
        name.split(".")[0]
        for name in imports(path.read_text(), top_only=True)
        if name.split(".")[0] not in sys.stdlib_module_names | {"subspace"}
    }
    assert outside <= OUTSIDE[here], f"import {outside - OUTSIDE[here]} inside the function"


def test_contributing_has_the_same_map():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(
        r"^\| `subspace/(\w+)(?:\.py|/)` \|.*\| ([^|]*) \|$", text, flags=re.MULTILINE
    )
    assert {name for name, _ in rows} == ROOMS.keys() - {"__init__", "__main__"}
    for name, words in rows:
        if name != "cli":  # "everything"
            assert {w for w in re.findall(r"\w+", words) if w in ROOMS} - FOR_ALL == ROOMS[name]


def first_file(folder):
    """Return the file that a folder's docstring names to be read first."""
    found = re.search(r"Start reading\s+with `([\w/.]+)`", (folder / "__init__.py").read_text())
    assert found, f"{folder} does not say where to start reading"
    path = folder / found[1].removesuffix(".py")
    assert path.with_suffix(".py").is_file() or path.is_dir(), found[1]
    return found[1].removesuffix(".py")


def test_contributing_names_each_rooms_folders_and_the_file_to_read_first():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \|([^|]*)\| `([\w/]+)\.py` \|$", text, flags=re.MULTILINE)
    rooms = [path for path in ROOT.iterdir() if path.is_dir() and path.name in ROOMS]
    assert sorted(name for name, *_ in rows) == sorted(path.name for path in rooms)
    for name, folders, first in rows:
        there = {p.name for p in (ROOT / name).iterdir() if (p / "__init__.py").is_file()}
        named = set(re.findall(r"`(\w+)/`", folders))
        assert named == there or folders.strip() == "one a measure", name
        assert first == first_file(ROOT / name), name


def test_every_folder_says_where_to_start_reading():
    for path in ROOT.rglob("__init__.py"):
        if path.parent != ROOT:
            first_file(path.parent)


def test_rooms_have_no_cycle():
    order = list(ROOMS)
    for name, allowed in ROOMS.items():
        if name != "__init__":  # its imports happen on first use of a name
            assert all(order.index(other) < order.index(name) for other in allowed - {"__init__"})


def file_of(name, files):
    """Return the file of a module's name among `files` (name -> source), or None."""
    return next((n for n in (name, f"{name}.__init__") if n in files), None)


def edges(files):
    """Return, for each file of `files` (name -> source), the files that it imports.

    Imports inside functions count; those under TYPE_CHECKING do not, since nothing is loaded by
    them, nor do names that a table of strings gives (the verbs of `cli`, the lazy public names).
    """
    found = {}
    for here, source in files.items():
        there = found[here] = set()
        for node in ast.walk(untyped(ast.parse(source))):
            if isinstance(node, ast.Import):
                there.update(file_of(alias.name, files) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:  # `from package import file`, or a name of a file
                    whole = file_of(f"{node.module}.{alias.name}", files)
                    there.add(whole or file_of(node.module, files))
        there -= {None, here}
    return found


def untyped(tree):
    """Return the tree without what stands under TYPE_CHECKING."""

    class Untyped(ast.NodeTransformer):
        def visit_If(self, node):
            self.generic_visit(node)
            return (node.orelse or ast.Pass()) if type_checking(node) else node

    return Untyped().visit(tree)


def circles(graph):
    """Return the sets of files each of which leads back to itself through the others."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {name: reached(name) for name in graph}
    return {
        frozenset({name} | {other for other in reach[name] if name in reach[other]})
        for name in graph
        if name in reach[name]
    }


def test_files_have_no_circle():
    files = {
        ".".join(("subspace", *path.relative_to(ROOT).with_suffix("").parts)): path.read_text()
        for path in FILES
    }
    graph = edges(files)
    assert graph["subspace.measures.rank.measure"] & files.keys()  # edges were found
    assert circles(graph) == set()


def test_the_walker_sees_a_circle():
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    files = {
        "p.__init__": "",
        "p.a": "def f():\n    from p import b",
        "p.b": "from p.c import name",
        "p.c": "import p.a",
        "p.d": "import p.c",
    }
    assert circles(edges(files)) == {frozenset({"p.a", "p.b", "p.c"})}
    assert circles(edges(files | {"p.c": typed + "import p.a"})) == set()
    package = {"p.__init__": "from p.a import x", "p.a": "from p import y"}
    assert circles(edges(package)) == {frozenset(package)}


def test_the_walker_sees_a_forbidden_import():
    """A guard is itself tested."""
    assert set(targets("def f():\n    from subspace.cli import main")) == {"cli"}
    assert set(targets("from subspace import plots, load")) == {"plots", "__init__"}
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"
    assert imports(typed) == ["typing"]
    assert imports("def f():\n    import torch", top_only=True) == []
    with pytest.raises(AssertionError, match="absolute"):
        imports("from . import x")


# Classes whose first fields are positional: those that a reader knows by their order.
POSITIONAL = {
    "LowRankUpdate": ["name", "A", "B", "scale"],
    "Field": ["meaning"],
    "Column": ["path", "title"],
}


def dataclasses_of_the_package():
    """Yield every dataclass of the package's files, each once."""
    for path in FILES:
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if parts[-1] == "__main__":  # it would run
            continue
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        for made in vars(module).values():
            if isinstance(made, type) and made.__module__ == module.__name__ and is_dataclass(made):
                yield made


def test_dataclasses_of_six_fields_and_more_are_keyword_only():
    positional, classes = {}, set(dataclasses_of_the_package())
    assert len(classes) > 100
    for made in classes:
        taken = [f for f in fields(made) if f.init]
        by_place = [f.name for f in taken if not f.kw_only]
        if len(taken) >= 6 and by_place:
            positional[made.__name__] = by_place
    assert positional == POSITIONAL


def test_no_file_is_called_utils():
    vague = {"utils", "helpers", "common", "manager"}
    assert not [p for p in (*FILES, *TEST_FILES) if p.stem in vague]


def shared_names(source):
    """Modules of `tests` that a test file imports; however it spells them."""
    stems = {path.stem for path in TEST_FILES}
    for name in imports(source):
        if name.split(".")[0] == "tests" or name.split(".")[0] in stems - {"__init__"}:
            yield name


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda p: str(p.relative_to(TESTS)))
def test_test_files_share_only_what_is_in_support(path):
    """No test file imports another, and there is one way to import what is shared."""
    for name in shared_names(path.read_text()):
        assert re.fullmatch(r"tests\.support(\.[a-z_0-9]+)?", name), name


def test_the_walker_sees_a_test_that_imports_a_test():
    assert list(shared_names("def f():\n    from test_cli import main")) == ["test_cli"]
    assert list(shared_names("import tests.test_cli")) == ["tests.test_cli"]
    assert list(shared_names("from verbs import run")) == ["verbs"]
    assert list(shared_names("import json")) == []


def test_verbs_are_run_by_one_function():
    files = [
        path
        for path in TEST_FILES
        if re.search(r"^ *from click.testing", path.read_text(), flags=re.MULTILINE)
    ]
    assert [path.name for path in files] == ["verbs.py"]


def test_the_sample_adapters_are_named_in_one_place():
    place = SAMPLES.relative_to(REPOSITORY).as_posix()
    files = [path.name for path in TEST_FILES if f'"{place}' in path.read_text()]
    assert files == []


def test_how_an_extra_is_installed_is_said_in_one_place():
    """By `errors.install`, which has the words for a clone too; a --help shows a clone's."""
    for path in FILES:
        said = re.findall(r"pip install '[^']*'", path.read_text())
        assert path.name == "errors.py" or set(said) <= {"pip install '.[demo]'"}, path
        # However a line of code is broken: the index's name for an extra stands there alone.
        assert path.name == "errors.py" or "lora-subspace[" not in path.read_text(), path


def test_no_torch_load_without_weights_only():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "load_pt"}:
                assert "weights_only=True" in ast.unparse(node), path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A PEFT folder written with safetensors alone."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    tensors = {
        f"base_model.model.enc.{n}.query.lora_{x}.weight": rng.standard_normal(shape).astype("f4")
        for n in range(2)
        for x, shape in (("A", (2, 6)), ("B", (5, 2)))
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["query"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("similarity", "--help"), ("-h",)])
def test_help_and_version_stay_light(args):
    assert not modules_after(run_cli(*args)) & set(HEAVY)


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_inspect_of_safetensors_stays_light(tiny, option):
    assert not modules_after(run_cli("inspect", str(tiny), *option)) & set(HEAVY)


def test_similarity_without_a_figure_draws_nothing(tiny):
    loaded = modules_after(run_cli("similarity", str(tiny), str(tiny)))
    assert "torch" in loaded
    assert not loaded & {"pandas", "matplotlib", "seaborn", "scipy.stats", "transformers"}


def test_import_subspace_is_light_until_a_name_is_used():
    assert not modules_after("import subspace") & set(HEAVY)
    assert "torch" in modules_after("import subspace; subspace.similarity")
    assert "torch" not in modules_after("import subspace; subspace.load")
    assert not modules_after("import subspace; dir(subspace.plots); dir(subspace)") & set(HEAVY)


def test_the_lightness_test_can_fail():
    """It sees an import that happens inside the command."""
    assert "torch" in modules_after("import subspace.linalg")
    heavier = (
        "import subspace.cli.inspect as verb\n"
        "before = verb.command.callback\n"
        "def heavy(*a, **k):\n    import torch\n    return before(*a, **k)\n"
        "verb.command.callback = heavy\n"
    )
    with pytest.raises(AssertionError):
        assert not modules_after(
            heavier
            + run_cli("inspect", str(TESTS / "nowhere")).replace(
                "assert not e.code, e.code", "pass"
            )
        ) & set(HEAVY)


def test_every_verb_has_help_with_an_example():
    from subspace.cli import VERBS

    for words in ((), *((verb,) for verb in VERBS)):
        done = run(*words, "--help")
        assert "\\b" not in done.output
        example = " ".join(("subspace", *words))
        # A line of its own: click did not reflow the examples into a paragraph.
        lines = [line for line in done.output.splitlines() if line.startswith(f"      {example} ")]
        assert lines, done.output


def test_root_cli_is_a_shim_outside_the_wheel():
    text = (ROOT.parent / "cli.py").read_text()
    code = [line for line in text.splitlines() if line and not line.startswith('"""')]
    assert code == ["from subspace.cli import main", "main()"]


def test_public_names_resolve():
    import subspace

    for name in subspace.__all__:
        assert getattr(subspace, name) is not None
    assert set(subspace.__all__) <= set(dir(subspace))
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = subspace.nothing


def test_figures_are_names_of_plots_whichever_of_its_files_were_imported():
    """A file and its function have one name, and the import of a file sets that name."""
    import subspace

    for name in subspace.plots.__all__:
        assert callable(getattr(subspace.plots, name)), name
    assert set(subspace.plots.__all__) <= set(dir(subspace.plots))
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = subspace.plots.nothing
    files_first = (
        "from subspace.plots.save import save; import subspace.plots.figure4; "
        "from subspace.plots.figure3 import figure3; import subspace; "
        "assert subspace.plots.figure3 is figure3 and subspace.plots.save is save; "
        "assert callable(subspace.plots.figure4)"
    )
    assert "matplotlib" in modules_after(files_first)
    assert "matplotlib.pyplot" not in modules_after("import subspace; subspace.plots.figure3")


def test_every_figure_of_a_result_is_public():
    """What takes a result and returns a figure is a name of `subspace.plots`."""
    import subspace

    for path in (ROOT / "plots").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                first = node.args.args[:1]
                kind = ast.unparse(first[0].annotation) if first and first[0].annotation else ""
                if node.returns and ast.unparse(node.returns) == "Figure" and kind in RESULTS:
                    assert node.name in subspace.plots.__all__, path


RESULTS = {"Amplification", "Interference", "Profile", "Rank", "Similarity", "SimilarityMatrix",
           "Table6"}  # fmt: skip


def test_an_unexpected_exception_calls_itself_a_bug(monkeypatch):
    import subspace.cli.inspect as verb

    def broken(**_):
        raise ZeroDivisionError("odd \x1b[31m text")

    monkeypatch.setattr(verb.command, "callback", broken)
    done = run("inspect", "anything", code=1)
    assert done.output.count("\n") == 1
    assert "this is a bug in subspace" in done.output
    assert "\x1b" not in done.output
    loud = run("--debug", "inspect", "anything", code=1)
    assert isinstance(loud.exception, ZeroDivisionError)


def test_a_users_error_is_one_line_and_exit_2(tmp_path):
    done = subprocess.run(  # noqa: PLW1510 - the exit code is the point
        [sys.executable, "-m", "subspace", "inspect", str(tmp_path / "missing")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
