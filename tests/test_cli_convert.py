"""``subspace convert`` and ``resize``: what they print, what they write, what bad input gets."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.save import WRITERS
from subspace.cli.shared import options
from subspace.errors import UnknownModuleError
from subspace.results import Conversion, InspectedModule
from tests.support.documents import held
from tests.support.folders import folder
from tests.support.samples import R8, R64
from tests.support.verbs import run


@pytest.fixture
def source(tmp_path):
    return Path(folder(tmp_path / "source", r=4, d=(9, 8)))


def test_the_options_name_the_writers():
    assert tuple(WRITERS) == options.WRITTEN


def test_convert_says_what_it_wrote(source, tmp_path):
    done = run("convert", source, tmp_path / "out", "--to", "mlx")
    assert done.stdout == "PEFT to MLX-LM: 2 modules, rank 4, scale 4, float32\n"
    assert done.stderr == f"wrote {tmp_path / 'out'}\n"
    before, after = subspace.load(source), subspace.load(tmp_path / "out")
    for name, update in before.items():
        assert torch.equal(after[name].A, update.A)
        assert torch.equal(after[name].B, update.B)
        assert after[name].scale == update.scale


def test_convert_writes_json_and_csv(source, tmp_path):
    words = ("convert", source, tmp_path / "out", "--to", "mlx", "--overwrite")
    done = run(*words, "--json")
    plain = held(json.loads(done.stdout))
    assert done.stderr == f"wrote {tmp_path / 'out'}\n"
    adapter = subspace.load(source)
    assert (plain["source_format"], plain["format"]) == ("PEFT", "MLX-LM")
    assert plain["out"] == str(tmp_path / "out")
    assert [m["module"] for m in plain["modules"]] == list(adapter)
    assert plain["parameters"] == sum(info.parameters for info in adapter.updates.values())
    rows = list(csv.DictReader(io.StringIO(run(*words, "--csv").stdout)))
    assert [row["module"] for row in rows] == list(adapter)
    assert {(row["d_out"], row["d_in"], row["scale"]) for row in rows} == {("9", "8", "4.0")}
    run(*words, "--json", "--csv", code=2)


def test_what_convert_left_out_is_in_the_document(tmp_path):
    words = ("convert", R8, tmp_path / "r8.safetensors", "--to", "kohya", "--updates-only")
    plain = held(json.loads(run(*words, "--json").stdout))
    assert any("left out" in note for note in plain["notes"])
    one = Conversion(
        name="a",
        source_format="PEFT",
        format="MLX-LM",
        out="out",
        modules={"q": InspectedModule(**_module())},
    )
    assert one.to_frame()["d_in"].tolist() == [9]
    assert "<td>8</td><td>9</td>" in one._repr_html_()
    with pytest.raises(UnknownModuleError, match="was not written"):
        one["v"]


def _module():
    more = {"shape": (8, 9), "rank": 2, "scale": 1.0, "dtype": "float32", "parameters": 34}
    return {"module": "q", "kind": "linear"} | more


def test_convert_of_some_modules_and_of_what_stores_no_alpha(source, tmp_path):
    loose = tmp_path / "loose.pt"
    run("convert", source, loose, "--to", "loralib", "--modules", "*value")
    done = run("convert", loose, tmp_path / "back", "--to", "peft", code=2)
    assert "loralib stores no alpha" in done.output
    done = run("convert", loose, tmp_path / "back", "--to", "peft", "--alpha", "16")
    assert list(subspace.load(tmp_path / "back")) == ["enc.0.value"]


def test_convert_refuses_in_one_line(source, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    for words, why in [
        ((source, tmp_path / "taken", "--to", "peft"), "holds other files (mine.txt)"),
        ((source, tmp_path / "a", "--to", "kohya"), "give a name that ends in .safetensors"),
        ((source, tmp_path / "a", "--to", "gguf"), "'gguf' is not one of"),
        ((source, tmp_path / "a"), "Missing option '--to'"),
        ((R8, tmp_path / "a", "--to", "mlx"), "--updates-only (updates_only=True)"),
        ((tmp_path / "nowhere", tmp_path / "a", "--to", "mlx"), "no such file or folder"),
    ]:
        done = run("convert", *words, code=2)
        assert why in done.output
        assert done.stdout == ""
    assert not (tmp_path / "a").exists()
    run("convert", source, tmp_path / "b", "--to", "peft")
    run("convert", source, tmp_path / "b", "--to", "peft", code=2)
    run("convert", source, tmp_path / "b", "--to", "peft", "--overwrite")


def test_strict_refuses_what_is_not_understood(source, tmp_path):
    file = source / "adapter_model.safetensors"
    save_file(load_file(file) | {"strange": torch.ones(2)}, file)
    done = run("convert", source, tmp_path / "a", "--to", "mlx", "--strict", code=2)
    assert "1 tensors are not understood: strange" in done.output


def test_resize_prints_what_each_module_keeps_and_loses(source, tmp_path):
    done = run("resize", source, tmp_path / "out", "--rank", "2")
    assert "source resized by rank 2 of each module" in done.stdout
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    result = subspace.resize(subspace.load(source), rank=2)
    m = result["enc.0.query"]
    assert lines["query"][1:] == ["4", "2", f"{m.energy:.4f}", f"{m.error:.3g}", "34"]
    assert lines["all"][1:3] == ["8", "4"]
    assert done.stderr == f"wrote {tmp_path / 'out'}\n"
    again = subspace.load(tmp_path / "out")
    assert torch.equal(again["enc.0.query"].A, result.adapter["enc.0.query"].A)


def test_resize_by_one_budget_into_another_format(source, tmp_path):
    out = tmp_path / "small.safetensors"
    budget = ("--energy", "0.6", "--budget", "all")
    done = run("resize", source, out, *budget, "--to", "kohya", "--dtype", "float16")
    assert "resized by energy 0.6 of all modules together" in done.stdout
    assert {info.dtype for info in subspace.load(out).updates.values()} == {"float16"}
    run("resize", out, tmp_path / "b.safetensors", "--rank", "1", "--json")
    assert subspace.load(tmp_path / "b.safetensors").format == "kohya / LyCORIS"


def test_resize_writes_json_csv_markdown_and_latex(source, tmp_path):
    words = ("resize", source, tmp_path / "out", "--error", "0.5", "--overwrite")
    plain = held(json.loads(run(*words, "--json").stdout))
    result = subspace.resize(subspace.load(source), error=0.5)
    assert plain == result.to_dict()
    rows = list(csv.DictReader(io.StringIO(run(*words, "--csv").stdout)))
    assert [row["module"] for row in rows] == list(result)
    assert [int(row["after"]) for row in rows] == [m.after for m in result.values()]
    assert "| module | r | kept | energy | error | parameters |" in run(*words, "--markdown").stdout
    assert r"enc.0.query & 4 &" in run(*words, "--latex").stdout
    done = run(*words, "--json", "--csv", code=2)
    assert "--json and --csv write to stdout; choose one" in done.output


def test_resize_of_a_zero_module_says_so(tmp_path):
    def zero(tensors):
        tensors["base_model.model.enc.0.query.lora_B.weight"][:] = 0

    place = folder(tmp_path / "zero", change=zero)
    done = run("resize", place, tmp_path / "out", "--rank", "1")
    line = next(text for text in done.stdout.splitlines() if text.startswith("query"))
    assert line.split()[1:] == ["2", "0", "-", "-", "0"]
    assert "note: left out, since nothing of them is kept: enc.0.query" in done.stdout
    rows = run("resize", place, tmp_path / "out", "--rank", "1", "--overwrite", "--csv").stdout
    assert "enc.0.query,5,7,2,0,,,0.0," in rows


def test_resize_refuses_before_it_computes(source, tmp_path, monkeypatch):
    for words, why in [
        ((), "give one of rank, energy and error"),
        (("--rank", "2", "--energy", "0.9"), "not rank and energy"),
        (("--energy", "99"), "it is above 0 and at most 1, such as 0.99"),
        (("--rank", "2", "--modules", "none"), "no module of adapter"),
    ]:
        done = run("resize", source, tmp_path / "a", *words, code=2)
        assert why in done.output
        assert not (tmp_path / "a").exists()
    import subspace.measures.resize.measure as measure

    def refuse(*_args, **_options):
        raise AssertionError("computed")

    monkeypatch.setattr(measure, "spectra", refuse)
    done = run("resize", source, source, "--rank", "2", code=2)
    assert "is there already" in done.output


def test_a_real_adapter_keeps_its_head(tmp_path):
    run("resize", R64, tmp_path / "small", "--rank", "8", "--budget", "all")
    again = subspace.load(tmp_path / "small")
    assert len(again.set_aside) == 2
    assert sum(info.rank for info in again.updates.values()) == 8 * 12
