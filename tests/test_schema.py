"""schema.json is a contract: every verb's real output follows it, and nothing else does."""

import ast
import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from made import adapter, gaussian
from safetensors.numpy import load_file, save_file
from test_cli_amplification import base
from test_cli_similarity import folder
from tiny_world import write_world

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.cli import main
from subspace.results import SCHEMA_VERSION, Table6, schema
from subspace.training import TrainConfig, train
from subspace.training.sweep import Cell

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "adapters"
R8, R64, SEED = (str(DATA / name) for name in ("r8", "r64", "r64-seed1"))
FEW = ("--module", "*.[05].*")
OPEN = {"versions", "singular_values"}  # their names are packages' and modules'
MAY_BE_MISSING = {
    "token_accuracy", "generated", "train_accuracy", "train_token_accuracy", "validation_accuracy",
    "validation_token_accuracy", "learning_rate", "grad_norm",
}  # fmt: skip

VALIDATOR = Draft202012Validator(schema())
KINDS = {ref["$ref"].split("/")[-1] for ref in schema()["oneOf"]}


def held(plain, kind=None):
    """Hold a document against the definition of its own kind, whose errors say more."""
    name = plain["kind"] if kind is None else kind
    one = {"$ref": f"#/$defs/{name}", "$defs": schema()["$defs"]}
    error = best_match(Draft202012Validator(one).iter_errors(plain))
    assert error is None, f"{error.json_path}: {error.message[:500]}"
    return plain


def run(*words, code=0):
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == code, done.output
    plain = held(json.loads(done.stdout))
    assert plain["kind"] in KINDS
    return plain


# The schema itself


def objects(node, path=()):
    """Every part of the schema that says what fields an object has."""
    if isinstance(node, dict):
        if "properties" in node and isinstance(node["properties"], dict):
            yield path, node
        for name, value in node.items():
            yield from objects(value, (*path, name))
    elif isinstance(node, list):
        for n, value in enumerate(node):
            yield from objects(value, (*path, n))


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"].endswith("2020-12/schema")
    used = set(re.findall(r'"\$ref": "#/\$defs/([\w-]+)"', json.dumps(schema())))
    assert used == set(schema()["$defs"])
    schema()["$defs"].clear()
    assert schema()["$defs"]  # a caller's copy is the caller's


def test_every_object_is_closed_and_every_field_is_described():
    for path, node in objects(schema()):
        if path != ("$defs", "record"):  # closed where it is used, by what is added to it there
            assert node.get("additionalProperties", node.get("unevaluatedProperties")) is False
        for name, field in node["properties"].items():
            words = field["description"]
            assert words.endswith("."), (path, name)
            assert words.isprintable()
            assert len(words) <= 120, (path, name)
            if isinstance(field.get("type"), list):  # of these the object's own words say when
                assert "ull" in words or "ull" in node["description"], (path, name)
        optional = set(node["properties"]) - set(node.get("required", ()))
        assert optional <= MAY_BE_MISSING | {
            "method", "accumulate", "bf16", "pair_column", "completion_column", "options"
        }  # fmt: skip
    versions = re.findall(r"Version of this schema\.\", \"const\": \"(.*?)\"", json.dumps(schema()))
    assert set(versions) == {SCHEMA_VERSION}


def test_every_kind_that_the_code_writes_is_in_the_schema():
    written = set()
    for path in (ROOT / "subspace").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "kind":
                        written |= {value.value} if isinstance(value, ast.Constant) else set()
    assert written == KINDS
    for kind in KINDS:
        assert schema()["$defs"][kind]["description"]


# What the verbs write of real adapters


def test_inspect():
    real = run("inspect", R8, R64, "--json")
    assert [one["initial_A"] for one in real["adapters"]] == [True, True]
    assert len(real["adapters"][0]["set_aside"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("similarity", R8, R64, "--angles", "--control", SEED),
        ("similarity", R8, SEED, "--side", "delta-A", *FEW),
        ("similarity", R8, R64, SEED, *FEW),
        ("similarity", R8, R64, SEED, "--by", "agreeing", "--side", "in", *FEW),
        ("placement", R8, "--base", "minilm", *FEW),
        ("placement", R8, "--base", "minilm", "--profile", "--module", "*.5.*.query"),
        ("rank", R64, SEED),
        ("rank", R8),
        ("interference", R8, R64, SEED, *FEW),
        ("amplification", R8, "--base", "minilm", "--no-cache", *FEW),
        ("amplification", R8, R64, "--base", "minilm", "--ranks", "1,8", "--no-top", *FEW),
    ],
    ids=lambda words: " ".join(w for w in words if "/" not in w),
)
def test_real_adapters(words):
    plain = run(*words, "--json")
    if "--control" in words:
        assert plain["initial"]["initial"] is None
        assert plain["control"]["modules"][0]["angles"]
    if "delta-A" in words:
        assert (plain["initial"], plain["control"], plain["modules"][0]["angles"]) == (None,) * 3


def test_a_report_with_all_that_it_can_hold():
    more = ("--base", "minilm", "--control", SEED, "--runs", DATA, "--format", "json")
    plain = run("report", R8, R64, *more, *FEW, "--no-top")
    assert plain["sweep"]["rows"]
    assert plain["curves"]
    assert plain["pairs"][0]["control"] is not None


def test_records_of_every_age():
    """Those of data/adapters are older than five of the options."""
    records = list((ROOT / "data").rglob("training.json"))
    assert len(records) >= 3
    for path in records:
        held(json.loads(path.read_text()))


# Undefined values


def zero(tensors):
    for name in tensors:
        if "query.lora_B" in name:
            tensors[name] *= 0


def clustered(tensors):
    for name in tensors:
        if "lora_A" in name:
            tensors[name][:] = 0
            tensors[name][0, 0] = tensors[name][1, 1] = 1


@pytest.fixture
def odd(tmp_path):
    """An adapter that is zero in a module, one with equal singular values, a third, their base."""
    made = [
        folder(tmp_path / "zero", change=zero),
        folder(tmp_path / "equal", seed=1, change=clustered),
        folder(tmp_path / "third", r=3, seed=2),
        folder(tmp_path / "nothing", seed=3, change=lambda t: [zero(t), _rename(t)]),
    ]
    return [*made, base(tmp_path / "model")]


def _rename(tensors):
    """Make the zero module the only one."""
    for name in [n for n in tensors if "value" in n]:
        del tensors[name]


def nulls(plain):
    """Names of the fields that are null somewhere, or hold one."""
    found = set()
    for name, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        if value is None or (isinstance(value, list) and None in value):
            found.add(name)
        if isinstance(value, (dict, list)):
            deeper = nulls(value)
            found |= {n for n in deeper if isinstance(n, str)}
            found |= {name} if any(isinstance(n, int) for n in deeper) else set()
    return found


def test_undefined_values(odd):
    a, equal, third, nothing, model = odd
    plain = run("similarity", a, third, "--angles", "--side", "in", "--json")
    assert {"phi", "agreeing", "angles", "angle_edge", "distances"} <= nulls(plain)
    plain = run("similarity", equal, third, "--json")
    assert any(True in row for m in plain["modules"] for row in m["masked"])
    many = run("similarity", a, third, nothing, "--by", "agreeing", "--json")
    assert {"k", "value", "largest", "same_start"} <= nulls(many)
    assert {"replicable", "agreeing", "recommended"} <= nulls(run("rank", a, third, "--json"))
    assert {"median", "low", "high", "recommended"} <= nulls(run("rank", nothing, "--json"))
    merged = run("interference", a, third, equal, "--weights=1,-0.5,2", "--json")
    assert {"cosine", "finding", "kept", "phi", "same_start"} <= nulls(merged)
    still = run("interference", nothing, a, "--module", "*query", "--json")
    assert {"energy", "cosine", "shares"} <= nulls(still)
    table = run("amplification", a, "--base", model, "--no-top", "--no-cache", "--json")
    assert {"factor", "quotient", "finding", "chance_low", "w_in_w"} <= nulls(table)
    run("placement", a, "--base", model, "--json")
    profile = run("placement", a, "--base", model, "--profile", "--json")
    assert {"energy", "sigma", "median", "p"} <= nulls(profile)
    page = run("report", a, equal, third, "--base", model, "--format", "json")
    assert {"phi", "factor", "sweep"} <= nulls(page)
    assert page["sources"][0]["base_model"] is None
    (inspected, *_) = run("inspect", a, "--json")["adapters"]
    assert inspected["base_model"] is None


def test_tensors_set_aside_and_adapters_made_in_memory(tmp_path):
    place = Path(folder(tmp_path / "more"))
    file = place / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["strange"] = tensors["base_model.model.enc.0.query.lora_A.weight"].copy()
    save_file(tensors, file)
    (aside,) = run("inspect", place, "--json")["adapters"][0]["set_aside"]
    assert (aside["known"], aside["module"]) == (False, None)
    small = [adapter(gaussian(20, 30, 2, seed=n), name=f"run{n}") for n in range(2)]
    plain = held(subspace.report(small).to_dict())
    assert (plain["base"], plain["sources"][0]["files"]) == (None, [])
    apart = {name: LowRankUpdate(name, *_factors()) for name in ("q", "only")}
    held(subspace.similarity(Adapter.from_updates(apart), small[0]).to_dict())
    held(Table6((), ()).to_dict())


def _factors():
    update = gaussian(20, 30, 2, seed=9)
    return update.A, update.B, 1.0


# Training


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A sweep with a search, references and cells that fail."""
    out = tmp_path_factory.mktemp("runs")
    words = [
        "train", "--model", world / "tiny-bert", "--data", world / "texts.jsonl", "--ranks", "1",
        "--seeds", "0,1", "--targets", "nothing", "--targets", "query", "--reference", "head",
        "--lr", "1e-3,2e-2", "--steps", 4, "--warmup", 1, "--batch", 4, "--eval-every", 2,
        "--eval-texts", 4, "--out", out, "--json",
    ]  # fmt: skip
    return words, run(*words, code=1)


def test_a_sweep_with_cells_that_failed(trained):
    words, plain = trained
    failed = [one for one in plain["runs"] if one["error"] is not None]
    assert failed
    assert {one["options"]["targets"][0] for one in failed} == {"nothing"}
    assert {one["options"]["method"] for one in plain["runs"]} == {"lora", "head"}
    assert any(one["searched"] for one in plain["runs"])
    assert plain["table"]["rows"][0]["mean"] is None
    assert not any(one["reused"] for one in plain["runs"])
    again = run(*words, code=1)
    assert all(one["reused"] for one in again["runs"] if one["error"] is None)
    held(plain["table"])


def test_numbers_that_are_not_finite_become_null(trained):
    """A run that was trained just now may have a gradient beyond all bounds; its file has null."""
    record = next(one for one in trained[1]["runs"] if one["error"] is None)
    record = {k: v for k, v in copy.deepcopy(record).items() if k not in ("folder", "error")}
    record["losses"][0]["grad_norm"] = float("inf")
    plain = Cell(Path("run"), TrainConfig(), record, reused=False).to_dict()
    assert plain["losses"][0]["grad_norm"] is None
    held(plain, "finished_run")


def test_a_completion_task(monkeypatch, tmp_path):
    import test_completion as decoders

    monkeypatch.setitem(
        decoders.TASKS,
        "words",
        lambda _: decoders.completing("words", decoders.thrice(*decoders.ROWS)),
    )
    place = _tiny_decoder(tmp_path)
    options = {"steps": 2, "warmup": 0, "eval_every": 1, "eval_texts": 2, "targets": "all-linear"}
    config = TrainConfig(model=str(place), data="words", rank=1, batch=2, max_length=40, **options)
    done = train(config, tmp_path / "run")
    held(json.loads((done.folder / "training.json").read_text()))
    assert done.record["after"]["generated"] == 2


def _tiny_decoder(folder):
    import test_completion as decoders
    from transformers import GPT2Config, GPT2LMHeadModel

    place = folder / "gpt2"
    decoders.write_tokenizer(place, eos_token="<end>", bos_token="<start>")
    torch.manual_seed(0)
    sizes = {"n_positions": 40, "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 300}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=0)).save_pretrained(place)
    return place


# What parts from the schema is seen


def places(plain, seen, path=()):
    """Path of every object whose set of fields was not yet seen."""
    if isinstance(plain, dict):
        if tuple(plain) not in seen:
            seen.add(tuple(plain))
            yield path
        for name, value in plain.items():
            if name not in OPEN:
                yield from places(value, seen, (*path, name))
    elif isinstance(plain, list):
        for n, value in enumerate(plain):
            yield from places(value, seen, (*path, n))


def at(plain, path):
    for step in path:
        plain = plain[step]
    return plain


def parted(plain, seen):
    """Documents that differ in one field: one more, one less, one of another type."""
    for path in places(plain, seen):
        names = list(at(plain, path))
        must = [n for n in names if n not in MAY_BE_MISSING or "options" in path]
        for what, change in [
            (("and more",), lambda o: o.update(further=1)),
            *((("without", n), lambda o, n=n: o.pop(n)) for n in must),
            *(((n, "of another type"), lambda o, n=n: o.update({n: {"x": 1}})) for n in names),
        ]:
            wrong = copy.deepcopy(plain)
            change(at(wrong, path))
            yield (*path, *what), wrong


def documents(odd, trained):
    """One of each kind, as small as it can be."""
    a, equal, third, _, model = odd
    few = ("--module", "*query")
    yield run("inspect", R8, "--json")
    yield run("similarity", equal, third, "--angles", "--control", a, *few, "--json")
    yield run("similarity", equal, third, a, *few, "--json")
    yield run("rank", a, third, *few, "--json")
    yield run("interference", a, third, *few, "--json")
    yield run("amplification", third, "--base", model, "--no-cache", *few, "--json")
    yield run("amplification", third, equal, "--base", model, "--no-cache", *few, "--json")
    yield run("placement", third, "--base", model, "--profile", *few, "--json")
    yield run("report", third, equal, "--base", model, *few, "--format", "json")
    yield trained[1]
    yield trained[1]["table"]
    record = next(one for one in trained[1]["runs"] if one["error"] is None)
    here = {"folder", "reused", "searched", "error"}
    yield {name: value for name, value in record.items() if name not in here}


def test_an_extra_a_missing_and_a_wrong_field_are_seen(odd, trained):
    seen, kinds, count = set(), set(), 0
    for plain in documents(odd, trained):
        kinds.add(plain["kind"])
        assert VALIDATOR.is_valid(plain)
        one = {"$ref": f"#/$defs/{plain['kind']}", "$defs": schema()["$defs"]}
        validator = Draft202012Validator(one)
        for path, wrong in parted(plain, seen):
            assert not validator.is_valid(wrong), path
            count += 1
    assert kinds == KINDS
    assert count > 500


# README


def test_the_recipe_for_a_pipeline():
    text = (ROOT / "README.md").read_text()
    (recipe,) = re.findall(
        r"^ +subspace (similarity .*--json) \| jq -e '(.*)'$", text, re.MULTILINE
    )
    if shutil.which("jq") is None:
        pytest.skip("jq is not on PATH")
    words, program = recipe
    plain = run(*(str(ROOT / w) if w.startswith("data/") else w for w in words.split()))
    least = min(m["agreeing"] for m in plain["modules"])

    def code(document):
        return subprocess.run(
            ["jq", "-e", program], input=json.dumps(document), text=True, capture_output=True,
            check=False, env=os.environ,
        ).returncode  # fmt: skip

    assert least == 0
    assert code(plain) == 1
    for module in plain["modules"]:
        module["agreeing"] = 2
    assert code(plain) == 0
    plain["modules"][-1]["agreeing"] = None
    assert code(plain) == 1
