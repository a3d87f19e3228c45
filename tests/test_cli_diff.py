"""``subspace diff``: the table, the other outputs, and an adapter that peft puts on the base."""

import csv
import io
import json

import numpy as np
import pytest
import torch

import subspace
from tests.support.checkpoints import CHANGED, dense, low_rank, normal, pair, write
from tests.support.documents import held
from tests.support.samples import R8
from tests.support.verbs import run


@pytest.fixture
def two(tmp_path):
    return pair(tmp_path, dtype=torch.bfloat16)


def test_the_table_has_every_module_that_changed_and_says_what_is_in_none(two):
    text = run("diff", *two, "--rank", 6).stdout
    lines = text.splitlines()
    assert lines[0] == "tuned - base: 3 of 4 modules changed"
    assert lines[1] == "modules of model"
    assert lines[2].split() == [
        "module", "r", "|W|", "|ΔW|", "|ΔW|/|W|", "σ1", "energy", "stable", "rounding", "real",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[4:7]] == [
        name.removeprefix("model.") for name in CHANGED
    ]
    result = subspace.diff(*two, rank=6)
    for line, found in zip(lines[4:7], result.values(), strict=True):
        cells = line.split()
        assert cells[1] == "6"
        assert float(cells[3]) == pytest.approx(found.delta_norm, rel=1e-2)
        assert float(cells[6]) == pytest.approx(found.energy, abs=6e-4)
        assert cells[9] == found.real_text
    assert "equal: 1 (model.layers.0.down_proj)" in text
    assert "in no update: 1 of 2 tensors that are no matrices changed: model.norm.weight" in text
    assert "only in" not in text


def test_a_note_that_modules_share_is_said_once(tmp_path):
    before = {f"layer.{n}.weight": normal(20, 30, seed=n) for n in range(6)}
    after = {n: W + low_rank(20, 30, 2) for n, W in before.items()}
    base = write(tmp_path / "a", before)
    text = run("diff", base, write(tmp_path / "b", after, dtype=torch.bfloat16), "--rank", 4).stdout
    assert (
        "note: layer.0, layer.1, layer.2 and 3 more: 2 of 4 directions are beyond the "
        "rounding of what is stored"
    ) in text


def test_json_csv_markdown_and_latex(two):
    plain = held(json.loads(run("diff", *two, "--json").stdout))
    assert [m["module"] for m in plain["modules"]] == CHANGED
    assert (plain["rank"], plain["energy"]) == (16, None)
    assert len(plain["modules"][0]["sigma"]) == 16
    rows = list(csv.DictReader(io.StringIO(run("diff", *two, "--csv").stdout)))
    assert [row["module"] for row in rows] == CHANGED
    for row, module in zip(rows, plain["modules"], strict=True):
        assert float(row["sigma_1"]) == module["sigma"][0]
        assert int(row["real"]) == module["real"]
    assert run("diff", *two, "--markdown").stdout.count("\n") == 5
    assert r"\begin{tabular}{lrrrrrrrrr}" in run("diff", *two, "--latex").stdout


def test_an_energy_and_a_pattern(two):
    plain = json.loads(run("diff", *two, "--energy", 0.8, "--modules", "*.q_proj", "--json").stdout)
    (module,) = plain["modules"]
    assert module["energy"] >= 0.8
    assert (plain["rank"], plain["energy"], plain["equal"]) == (None, 0.8, [])


def test_what_only_one_has_is_named(tmp_path):
    more = {f"layer.{n}.weight": normal(3, 4, seed=n) for n in range(6)}
    base = write(tmp_path / "a", {"q.weight": normal(3, 4), "old.weight": normal(3, 4)})
    tuned = write(tmp_path / "b", {"q.weight": normal(3, 4, seed=9)} | more)
    text = run("diff", base, tuned).stdout
    assert "only in a: 1 (old)" in text
    assert "only in b: 6 (layer.0, layer.1, layer.2 and 3 more)" in text


def test_equal_checkpoints_have_no_table_and_nothing_to_write(two, tmp_path):
    base, _ = two
    text = run("diff", base, base).stdout
    assert text.splitlines()[0] == "base - base: 0 of 4 modules changed"
    assert "rounding" not in text
    assert run("diff", base, base, "--csv").stdout.count("\n") == 1
    done = run("diff", base, base, "--out", tmp_path / "nothing", code=2)
    assert "nothing to write" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_the_adapter_that_is_written_is_the_one_of_the_library(two, tmp_path):
    out = tmp_path / "full-r3"
    done = run("diff", *two, "--rank", 3, "--out", out)
    assert f"wrote {out}" in done.stderr
    written, kept = subspace.load(out, strict=True), subspace.diff(*two, rank=3).adapter
    assert list(written) == list(kept) == CHANGED
    for name, update in kept.items():
        np.testing.assert_allclose(written[name].delta(), update.delta(), atol=1e-7)
    embedding = "model.embed_tokens"
    assert written.updates[embedding].kind == "embedding"
    assert "is there already" in run("diff", *two, "--out", out, code=2).stderr
    run("diff", *two, "--rank", 2, "--out", out, "--overwrite")
    assert {u.rank for u in subspace.load(out).values()} == {2}
    text = run("similarity", out, out, "--side", "in", "--modules", "*.q_proj").stdout
    assert "q_proj" in text


def test_peft_puts_it_on_the_base_and_has_the_tuned_model(tmp_path):
    """Whole updates of a GPT-2, whose weights lie turned, and of its embedding."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_embd": 12, "n_layer": 1, "n_head": 2, "vocab_size": 31, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()
    model.save_pretrained(tmp_path / "base")
    names = [f"transformer.h.0.{n}" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")]
    names.append("transformer.wpe")
    with torch.no_grad():
        for n, name in enumerate(names):
            W = model.get_submodule(name).weight
            W += low_rank(*W.shape, 3, seed=n, size=0.5).float()
    model.save_pretrained(tmp_path / "tuned")
    tokens = torch.arange(8)[None] % 31
    wanted = model(tokens).logits
    run("diff", tmp_path / "base", tmp_path / "tuned", "--rank", 3, "--out", tmp_path / "adapter")
    base = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base").eval()
    assert (base(tokens).logits - wanted).abs().max() > 0.01
    with_it = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(with_it(tokens).logits, wanted, atol=1e-4, rtol=1e-4)


def test_errors_are_one_line(two, tmp_path):
    base, tuned = two
    cases = [
        ((base, tmp_path / "missing"), "missing"),
        ((base, tuned, "--rank", 2, "--energy", 0.5), "one of them decides"),
        ((base, tuned, "--json", "--csv"), "--json and --csv write to stdout"),
        ((base, tuned, "--overwrite"), "--overwrite is for --out"),
        ((base, tuned, "--modules", "*.nothing"), "no module of base 'base' matches"),
        ((base, tuned, "--out", tmp_path / "a.safetensors"), "folder"),
        ((base, R8), "base 'base' has no weight of module 'bert.encoder.layer.0"),
        ((base, f"{R8}/adapter_model.safetensors"), "base 'base' has no weight of"),
    ]
    for words, said in cases:
        done = run("diff", *words, code=2)
        assert said in done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1


def test_exact_numbers_of_a_small_case(tmp_path):
    """Three numbers that can be worked out by hand."""
    before = {"q.weight": torch.zeros(2, 2), "k.weight": torch.eye(2)}
    after = {"q.weight": torch.diag(torch.tensor([4.0, 3.0])), "k.weight": torch.eye(2)}
    base, tuned = write(tmp_path / "a", before), write(tmp_path / "b", after)
    (module,) = json.loads(run("diff", base, tuned, "--rank", 1, "--json").stdout)["modules"]
    assert (module["delta_norm"], module["stable"]) == (5.0, 25 / 16)
    assert (module["energy"], module["sigma"]) == (pytest.approx(16 / 25), [pytest.approx(4.0)])
    assert dense(base, tuned, "q.weight").tolist() == [[4.0, 0.0], [0.0, 3.0]]
