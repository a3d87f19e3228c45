"""schema.json is a contract: every verb's real output follows it, whatever is undefined."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from safetensors.numpy import load_file, save_file

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.results import SCHEMA_VERSION, Result, Table6, schema, schema_text
from tests.support.documents import KINDS, MAY_BE_MISSING, document, held
from tests.support.folders import folder, odd_adapters, two_models
from tests.support.memory import adapter, gaussian
from tests.support.samples import NAMES, R8, R64, ROOT, SAMPLES, SEED

FEW = ("--modules", "*.[05].*")


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
        assert node["additionalProperties"] is False
        for name, field in node["properties"].items():
            words = field["description"]
            assert words.endswith("."), (path, name)
            assert words.isprintable()
            assert len(words) <= 120, (path, name)
            if "null" in json.dumps(field):
                assert "ull" in words or "ull" in node["description"], (path, name)
        optional = set(node["properties"]) - set(node.get("required", ()))
        assert optional <= MAY_BE_MISSING | {
            "method", "accumulate", "bf16", "pair_column", "completion_column", "options"
        }  # fmt: skip
    for (_, kind), node in objects(schema()):
        if "schema_version" in node["properties"]:
            # The first records of trainings have all that later ones have.
            older = {"1"} if kind in ("training", "finished_run") else set()
            assert set(node["properties"]["schema_version"]["enum"]) == {SCHEMA_VERSION} | older


def every_class(of):
    for one in of.__subclasses__():
        yield one
        yield from every_class(one)


def test_the_committed_schema_is_what_the_command_writes():
    committed = (ROOT / "docs" / "schema.json").read_text()
    assert committed == schema_text()


def test_every_kind_that_the_code_writes_is_in_the_schema():
    made = {each.kind for each in every_class(Result) if "kind" in vars(each)}
    assert made == KINDS
    # No document but a record of a training, which training writes, is put together by hand.
    written = set()
    for path in (ROOT / "subspace").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "kind":
                        written |= {value.value} if isinstance(value, ast.Constant) else set()
    assert written <= {"training", "training-runs"}
    for kind in KINDS:
        assert schema()["$defs"][kind]["description"]


# What the verbs write of real adapters


def test_inspect():
    real = document("inspect", R8, R64, "--json")
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
        ("placement", R8, "--base", "minilm", "--profile", "--modules", "*.5.*.query"),
        ("rank", R64, SEED),
        ("rank", R8),
        ("interference", R8, R64, SEED, *FEW),
        ("amplification", R8, "--base", "minilm", "--no-cache", *FEW),
        ("amplification", R8, R64, "--base", "minilm", "--ranks", "1,8", "--no-top", *FEW),
    ],
    ids=lambda words: " ".join(w for w in words if "/" not in w),
)
def test_real_adapters(words):
    plain = document(*words, "--json")
    if "--control" in words:
        assert plain["initial"]["initial"] is None
        assert plain["control"]["modules"][0]["angles"]
    if "delta-A" in words:
        assert (plain["initial"], plain["control"], plain["modules"][0]["angles"]) == (None,) * 3


def test_a_report_with_all_that_it_can_hold():
    more = ("--base", "minilm", "--control", SEED, "--runs", SAMPLES, "--json")
    plain = document("report", R8, R64, *more, *FEW, "--no-top")
    assert plain["sweep"]["rows"]
    assert plain["curves"]
    assert plain["pairs"][0]["control"] is not None
    assert plain["replicable"] == []
    plain = document("report", R64, SEED, *FEW, "--json")
    assert [one["adapters"] for one in plain["replicable"]] == [list(NAMES[1:])]
    assert all(isinstance(m["replicable"], int) for m in plain["replicable"][0]["modules"])


def test_records_of_every_age():
    """Those in data/, and one that is older than five of the options."""
    records = list((ROOT / "data").rglob("training.json"))
    assert len(records) >= 3
    for path in records:
        held(json.loads(path.read_text()))
    older = json.loads(records[0].read_text())
    for newer in ("method", "accumulate", "bf16", "pair_column", "completion_column"):
        del older["options"][newer]
    held(older)


# Undefined values


@pytest.fixture
def odd(tmp_path):
    return odd_adapters(tmp_path)


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
    plain = document("similarity", a, third, "--angles", "--side", "in", "--json")
    assert {"phi", "agreeing", "angles", "angle_edge", "distances"} <= nulls(plain)
    plain = document("similarity", equal, third, "--json")
    assert any(True in row for m in plain["modules"] for row in m["masked"])
    many = document("similarity", a, third, nothing, "--by", "agreeing", "--json")
    assert {"k", "value", "largest", "same_initial"} <= nulls(many)
    assert {"replicable", "agreeing", "recommended"} <= nulls(document("rank", a, third, "--json"))
    assert {"median", "low", "high", "recommended"} <= nulls(document("rank", nothing, "--json"))
    merged = document("interference", a, third, equal, "--weights=1,-0.5,2", "--json")
    assert {"cosine", "finding", "kept", "phi", "same_initial"} <= nulls(merged)
    still = document("interference", nothing, a, "--modules", "*query", "--json")
    assert {"energy", "cosine", "shares"} <= nulls(still)
    table = document("amplification", a, "--base", model, "--no-top", "--no-cache", "--json")
    assert {"factor", "null_ratio", "finding", "null_low", "w_in_w"} <= nulls(table)
    document("placement", a, "--base", model, "--json")
    profile = document("placement", a, "--base", model, "--profile", "--json")
    assert {"energy", "sigma", "median", "p"} <= nulls(profile)
    two = two_models(Path(model).parent)
    assert {"relative", "energy"} <= nulls(document("diff", *two, "--json"))
    assert {"kept", "rank"} <= nulls(document("diff", two[0], two[0], "--energy", "0.5", "--json"))
    page = document("report", a, equal, third, "--base", model, "--json")
    assert {"phi", "factor", "sweep"} <= nulls(page)
    assert page["sources"][0]["base_model"] is None
    (inspected, *_) = document("inspect", a, "--json")["adapters"]
    assert inspected["base_model"] is None


def test_tensors_set_aside_and_adapters_made_in_memory(tmp_path):
    place = Path(folder(tmp_path / "more"))
    file = place / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["strange"] = tensors["base_model.model.enc.0.query.lora_A.weight"].copy()
    save_file(tensors, file)
    (aside,) = document("inspect", place, "--json")["adapters"][0]["set_aside"]
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


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    ranks=st.tuples(*[st.integers(1, 7)] * 3),
    sizes=st.tuples(*[st.sampled_from([0.0, 1e-30, 1.0, 1e30])] * 3),
    twice=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.bfloat16]),
    side=st.sampled_from(["A", "B", "in", "out"]),
)
def test_whatever_the_factors_are(shape, ranks, sizes, twice, dtype, side):
    """Ranks above the dimensions, directions twice, updates near nothing: rounding ends at 1."""
    three = []
    for n, (rank, size) in enumerate(zip(ranks, sizes, strict=True)):
        u = gaussian(*shape, rank, seed=n, dtype=torch.float64)
        u.A[-1] = u.A[0] if twice else u.A[-1]
        made = LowRankUpdate("q", u.A.to(dtype), (size * u.B).to(dtype), -0.5)
        three.append(Adapter.from_updates({"q": made}, name=f"run{n}"))
    a, b, c = three
    held(subspace.similarity(a, b, side=side, angles=True, control=c).to_dict())
    held(subspace.rank(three, side=side).to_dict())
    held(subspace.interference(three, weights=[1, -2, 1e-3]).to_dict())
    for by in ("phi", "agreeing", "distance"):
        held(subspace.similarities(three, by=by, side=side).to_dict())
