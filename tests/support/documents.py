"""Documents validated against schema.json."""

import json

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from subspace.results import schema
from tests.support.verbs import run

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
    """Run a verb that writes JSON, and return what it wrote, which is valid."""
    plain = held(json.loads(run(*words, code=code).stdout))
    assert plain["kind"] in KINDS
    return plain
