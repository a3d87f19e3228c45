"""`subspace inspect` shows what `load` found, from headers alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.cli.inspect import _pattern
from tests.support.peft_adapters import PREFIX, edited, made, tiny_bert, two_linears, written
from tests.support.samples import ROOT
from tests.support.verbs import run

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def inspected(*arguments: object):
    return run("inspect", *arguments)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    wrapped = made(
        tiny_bert(12),
        target_modules=["query", "output.dense"],
        task_type="SEQ_CLS",
        rank_pattern={"layer.2.attention.self.query": 5},
    )
    folder = written(wrapped, tmp_path_factory.mktemp("made") / "bert")
    return edited(folder, base_model_name_or_path="someone/tiny-bert")


def test_one_line_for_each_kind_of_module(bert):
    lines = [line.split() for line in inspected(bert).stdout.splitlines()]
    assert [str(bert)] in lines
    assert ["base", "model", "someone/tiny-bert"] in lines
    query, dense = ["12", "x", "12"], ["12", "x", "20"]
    layer = "bert.encoder.layer."
    scale = f"{7 / 3:.6g}"
    for row in (
        [f"{layer}{{0..1,3..11}}.attention.self.query", "11", *query, "3", scale],
        [f"{layer}2.attention.self.query", "1", *query, "5", "1.4"],
        [f"{layer}{{0..11}}.output.dense", "12", *dense, "3", scale],
    ):
        assert [*row, "float32"] in lines
    text = inspected(bert).stdout
    assert "36 modules, " in text
    assert "set aside  2 tensors, a full copy of the module (modules_to_save): " in text
    assert "UNKNOWN" not in text


def test_the_kind_is_shown_where_it_matters(tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(17, 5), torch.nn.Linear(5, 3))
    folder = written(made(model, target_modules=["0", "1"]), tmp_path)
    lines = [line.split() for line in inspected(folder).stdout.splitlines()]
    scale = f"{7 / 3:.6g}"
    assert ["0", "1", "5", "x", "17", "3", scale, "float32", "embedding"] in lines
    assert ["1", "1", "3", "x", "5", "3", scale, "float32", "linear"] in lines


def test_a_pipe_gets_whole_lines(tmp_path):
    name = ".".join(["averylongname"] * 30)
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file(
        {k.replace("model.0.", f"model.{name}."): v for k, v in load_file(file).items()}, file
    )
    text = inspected(folder).stdout
    assert name in text
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_unknown_tensors_are_loud(tmp_path):
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {f"{PREFIX}0.lora_mystery": torch.ones(2)}, file)
    wanted = f"1 tensor not understood and left out: {PREFIX}0.lora_mystery"
    assert f"UNKNOWN    {wanted}" in inspected(folder).stdout
    assert wanted in inspected(folder, "--json").stderr


def test_several_paths_are_shown_in_turn(bert, tmp_path):
    folder = written(made(two_linears(), target_modules=["0"], use_dora=True), tmp_path)
    text = inspected(bert, folder).stdout
    assert text.index(str(bert)) < text.index(str(folder)) < text.index("DoRA (BA part)")
    assert "1 tensor, DoRA's magnitude" in text


def test_json_is_what_load_found(bert):
    result = inspected(bert, bert / "adapter_model.safetensors", "--json")
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert result.stderr == ""
    assert (found["schema_version"], found["kind"]) == ("2", "inspect")
    adapter = subspace.load(bert)
    first = found["adapters"][0]
    assert {k: first[k] for k in ("name", "path", "format", "method", "base_model")} == {
        "name": "bert",
        "path": str(bert),
        "format": "PEFT",
        "method": "LoRA",
        "base_model": "someone/tiny-bert",
    }
    assert [m["module"] for m in first["modules"]] == list(adapter)
    for module in first["modules"]:
        update = adapter[module["module"]]
        assert module["shape"] == list(update.shape)
        assert (module["rank"], module["scale"]) == (update.rank, update.scale)
        assert module["parameters"] == update.A.numel() + update.B.numel()
    assert first["parameters"] == sum(m["parameters"] for m in first["modules"])
    assert {t["tensor"] for t in first["set_aside"]} == {
        f"{PREFIX}classifier.weight",
        f"{PREFIX}classifier.bias",
    }
    assert found["adapters"][1]["modules"] == first["modules"]


def test_a_torch_file_says_that_it_takes_its_time(tmp_path):
    folder = written(made(two_linears(), target_modules=["0"]), tmp_path)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    assert inspected(folder).stderr == ""  # the safetensors file is preferred, as peft prefers it
    (folder / "adapter_model.safetensors").unlink()
    result = inspected(folder)
    assert "is a torch pickle: reading it needs torch" in result.stderr
    assert "1 module, " in result.stdout


def test_it_stays_light(bert):
    heavy = {"torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "safetensors", "peft"}
    code = (
        "import sys\nfrom subspace.cli import main\n"
        f"main(['inspect', {str(bert)!r}], standalone_mode=False)\n"
        f"main(['inspect', {str(bert)!r}, '--json'], standalone_mode=False)\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_help_teaches_by_example():
    result = run("inspect", "--help")
    assert "    subspace inspect runs/r8\n" in result.output
    run("inspect", code=2)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["a.b"], "a.b"),
        (["h.10.q", "h.9.q"], "h.{9..10}.q"),
        (["h.0.e.1", "h.0.e.2", "h.2.e.1"], "h.{0,2}.e.{1..2}"),
    ],
)
def test_patterns_of_names(names, pattern):
    assert _pattern(names) == pattern


def test_csv_has_a_line_for_each_module(bert):
    lines = inspected(bert, "--csv").stdout.splitlines()
    assert lines[0] == "adapter,module,kind,d_out,d_in,rank,scale,dtype,parameters"
    adapter = subspace.load(bert)
    assert len(lines) == 1 + len(adapter)
    first = next(iter(adapter.updates.values()))
    assert lines[1].split(",")[1:6] == [first.name, "linear", *map(str, (*first.shape, first.rank))]
    run("inspect", bert, "--csv", "--json", code=2)
