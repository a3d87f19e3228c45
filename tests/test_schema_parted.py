"""What parts from schema.json is seen, in every kind; training's documents; README's recipe."""

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

import subspace
from subspace.results import Demo, DemoRun, schema
from subspace.training import TASKS, TrainConfig, train
from subspace.training.sweep.run import SweepRun
from subspace.training.tasks.dataset import build_completion
from tests.support.decoders import ROWS, thrice, write_tokenizer
from tests.support.documents import KINDS, MAY_BE_MISSING, VALIDATOR, document, held
from tests.support.folders import odd_adapters, two_models
from tests.support.samples import R8, ROOT
from tests.support.tiny_world import write_world

OPEN = {"versions", "singular_values"}  # their names are packages' and modules'


@pytest.fixture
def odd(tmp_path):
    return odd_adapters(tmp_path)


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
        "--targets", "nothing", "--targets", "query", "--reference", "head",
        "--lr", "1e-3,2e-2", "--steps", 4, "--warmup", 1, "--batch", 4, "--eval-every", 2,
        "--eval-texts", 4, "--out", out, "--json",
    ]  # fmt: skip
    return words, document(*words, code=1)


@pytest.fixture(scope="module")
def reproduced(world, tmp_path_factory):
    """A gallery of two ranks, as small as it can be."""
    return document(
        "reproduce", "--quick", "--model", world / "tiny-bert", "--data", world / "texts.jsonl",
        "--ranks", "1,2", "--steps", 2, "--out", tmp_path_factory.mktemp("gallery"), "--json",
    )  # fmt: skip


def test_a_sweep_with_cells_that_failed(trained):
    words, plain = trained
    failed = [one for one in plain["runs"] if one["error"] is not None]
    assert failed
    assert {one["options"]["targets"][0] for one in failed} == {"nothing"}
    assert {one["options"]["method"] for one in plain["runs"]} == {"lora", "head"}
    assert any(one["searched"] for one in plain["runs"])
    assert plain["table"]["rows"][0]["mean"] is None
    assert not any(one["reused"] for one in plain["runs"])
    again = document(*words, code=1)
    assert all(one["reused"] for one in again["runs"] if one["error"] is None)
    held(plain["table"])


def test_numbers_that_are_not_finite_become_null(trained):
    """A run that was trained just now may have a gradient beyond all bounds; its file has null."""
    record = next(one for one in trained[1]["runs"] if one["error"] is None)
    record = {k: v for k, v in copy.deepcopy(record).items() if k not in ("folder", "error")}
    record["losses"][0]["grad_norm"] = float("inf")
    plain = SweepRun(
        folder=Path("run"), config=TrainConfig(), record=record, reused=False
    ).to_dict()
    assert plain["losses"][0]["grad_norm"] is None
    held(plain, "finished_run")


def test_a_completion_task(monkeypatch, tmp_path):
    monkeypatch.setitem(
        TASKS,
        "words",
        lambda _: build_completion("words", thrice(*ROWS)),
    )
    place = _tiny_decoder(tmp_path)
    options = {"steps": 2, "warmup": 0, "eval_every": 1, "eval_texts": 2, "targets": "all-linear"}
    config = TrainConfig(model=str(place), data="words", rank=1, batch=2, max_length=40, **options)
    done = train(config, tmp_path / "run")
    held(json.loads((done.folder / "training.json").read_text()))
    assert done.record["after"]["generated"] == 2


def _tiny_decoder(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    place = folder / "gpt2"
    write_tokenizer(place, eos_token="<end>", bos_token="<start>")
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


def documents(odd, trained, reproduced):
    """One of each kind, as small as it can be."""
    a, equal, third, _, model = odd
    few = ("--modules", "*query")
    yield document("inspect", R8, "--json")
    yield document("similarity", equal, third, "--angles", "--control", a, *few, "--json")
    yield document("similarity", equal, third, a, *few, "--json")
    yield document("rank", a, third, *few, "--json")
    yield document("interference", a, third, *few, "--json")
    yield document("amplification", third, "--base", model, "--no-cache", *few, "--json")
    yield document("amplification", third, equal, "--base", model, "--no-cache", *few, "--json")
    yield document("placement", third, "--base", model, "--profile", *few, "--json")
    yield document("diff", *two_models(Path(model).parent), "--modules", "[qk]", "--json")
    smaller = Path(model).parent / "smaller"
    yield document("resize", third, smaller, "--rank", "1", "--overwrite", "--json")
    kohya = Path(model).parent / "other.safetensors"
    yield document("convert", third, kohya, "--to", "kohya", "--overwrite", "--json")
    yield _demo(third, equal, model)
    yield document("report", third, equal, "--base", model, *few, "--json")
    yield trained[1]
    yield trained[1]["table"]
    yield reproduced
    record = next(one for one in trained[1]["runs"] if one["error"] is None)
    here = {"folder", "reused", "searched", "error"}
    yield {name: value for name, value in record.items() if name not in here}


def _demo(a, b, model):
    """What `demo` writes, without its trainings (test_demo has them)."""
    pair = subspace.similarity(subspace.load(a), subspace.load(b))
    table = subspace.amplification(subspace.load(a), model)
    one = DemoRun(
        name="r8", rank=8, seed=2, before=0.1, after=0.5, reused=False, folder="demo/adapters/r8"
    )
    return Demo((one,), (pair,), (table,), ("It is so.",), ("demo/figure3.png",)).to_dict()


def test_an_extra_a_missing_and_a_wrong_field_are_seen(odd, trained, reproduced):
    seen, kinds, count = set(), set(), 0
    _, equal, third, *_ = odd
    few = [*documents(odd, trained, reproduced)]
    # A kind without a line above is a measure of two adapters, by the verb of its name.
    others = KINDS - {plain["kind"] for plain in few}
    few += [document(kind, third, equal, "--modules", "*query", "--json") for kind in others]
    for plain in few:
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
    plain = document(*(str(ROOT / w) if w.startswith("data/") else w for w in words.split()))
    least = min(m["agreeing"] for m in plain["modules"])

    def code(document):
        return subprocess.run(
            ["jq", "-e", program], input=json.dumps(document), text=True, capture_output=True,
            check=False,
        ).returncode  # fmt: skip

    assert least == 0
    assert code(plain) == 1
    for module in plain["modules"]:
        module["agreeing"] = 2
    assert code(plain) == 0
    plain["modules"][-1]["agreeing"] = None
    assert code(plain) == 1


def test_a_pipeline_fails_too_where_there_is_no_adapter():
    if shutil.which("jq") is None or shutil.which("bash") is None:
        pytest.skip("jq and bash are not both on PATH")
    recipes = [
        recipe
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        for recipe in re.findall(r"(?:^ {4}.*\n)*^ {4}.*jq -e .*\n", page.read_text(), re.MULTILINE)
    ]
    assert len(recipes) == 2
    for recipe in recipes:
        there = re.sub(r"\S+/\S+", "no/such", recipe, count=2)
        here = re.sub(r"\bsubspace ", f"{shlex.quote(sys.executable)} -m subspace ", there)
        ended = subprocess.run(["bash"], input=here, text=True, cwd=ROOT, check=False)
        assert ended.returncode == 2
