"""Documents validated against schema.json."""

import json

from click.testing import CliRunner
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from subspace.cli import main
from subspace.results import schema

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


def document(*words, code=0):
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == code, done.output
    plain = held(json.loads(done.stdout))
    assert plain["kind"] in KINDS
    return plain
