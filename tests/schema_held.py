"""Documents held against schema.json, and adapters that are undefined here and there."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from safetensors.numpy import save_file
from test_cli_amplification import base
from test_cli_similarity import folder

from subspace.cli import main
from subspace.results import schema

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data" / "adapters"
R8, R64, SEED = (str(DATA / name) for name in ("r8", "r64", "r64-seed1"))

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


def two_models(place):
    """A base and a full fine-tune of it, in which something of every kind is undefined."""
    W = np.arange(20, dtype="f4").reshape(4, 5)
    before = {"q.weight": W, "k.weight": 0 * W, "equal.weight": W, "old.weight": W}
    after = {"q.weight": W + np.eye(4, 5, dtype="f4"), "k.weight": W, "equal.weight": W}
    before |= {"q.bias": np.zeros(4, "f4"), "norm.weight": np.ones(4, "f4")}
    after |= {"q.bias": np.ones(4, "f4"), "norm.weight": np.ones(4, "f4"), "new.weight": W}
    for name, tensors in (("before", before), ("after", after)):
        (place / name).mkdir()
        save_file(tensors, place / name / "model.safetensors")
    return str(place / "before"), str(place / "after")


def zero(tensors):
    for name in tensors:
        if "query.lora_B" in name:
            tensors[name] *= 0


def clustered(tensors):
    for name in tensors:
        if "lora_A" in name:
            tensors[name][:] = 0
            tensors[name][0, 0] = tensors[name][1, 1] = 1


def only_queries(tensors):
    """Make the zero module the only one."""
    for name in [n for n in tensors if "value" in n]:
        del tensors[name]


def odd_adapters(place):
    """An adapter that is zero in a module, one with equal singular values, a third, their base."""
    made = [
        folder(place / "zero", change=zero),
        folder(place / "equal", seed=1, change=clustered),
        folder(place / "third", r=3, seed=2),
        folder(place / "nothing", seed=3, change=lambda t: [zero(t), only_queries(t)]),
    ]
    return [*made, base(place / "model")]
