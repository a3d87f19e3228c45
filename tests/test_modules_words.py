"""The table of words covers what the code and the installed peft and transformers call things."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from subspace.findings.paper import matrices
from subspace.modules.order import model_order
from subspace.modules.words import (
    ARCHITECTURES,
    FLAT_PREFIXES,
    NAMINGS,
    ROLES,
    TOWERS,
    WRAPPERS,
    find_roles,
    list_words,
    words_of,
)

ATTENTION = ("query", "key", "value", "output")


def folder(package):
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent


def shipped_targets():
    """model_type -> what peft adapts by default: read from its source, for its import is slow."""
    name = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
    tree = ast.parse((folder("peft") / "utils" / "constants.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"peft has no {name} any more")


def shipped_prefixes():
    """Every part of every `base_model_prefix` of transformers, with a file that has it."""
    found = {}
    for path in (folder("transformers") / "models").rglob("modeling_*.py"):
        for prefix in re.findall(
            r"^\s+base_model_prefix(?:: \w+)? = [\"']([^\"']*)[\"']", path.read_text(), re.MULTILINE
        ):
            found |= dict.fromkeys(filter(None, prefix.split(".")), path.name)
    assert len(found) > 100, "transformers does not write base_model_prefix so any more"
    return found


def test_every_prefix_of_transformers_is_a_wrapper_or_a_tower():
    """A new one fails here: put it into WRAPPERS, or into TOWERS if a model has several such."""
    new = {p: file for p, file in shipped_prefixes().items() if p not in WRAPPERS | TOWERS}
    assert not new


def test_no_word_is_both():
    assert not WRAPPERS & TOWERS


def test_every_target_of_peft_is_a_word_of_its_architecture():
    """A new architecture of peft's fails here: say of which family it is."""
    targets = shipped_targets()
    assert not targets.keys() - ARCHITECTURES.keys()
    for kind, words in targets.items():
        families = [NAMINGS[name] for name in ARCHITECTURES[kind]]
        here = {word for naming in families for role in ROLES for word in words_of(naming, role)}
        if isinstance(words, str):  # a pattern of whole names
            paths = {word: f"model.language_model.layers.0.self_attn.{word}" for word in here}
            meant = {word for word, path in paths.items() if re.fullmatch(words, path)}
            assert meant == {*families[0].query, *families[0].value}
        else:
            assert set(words) <= here, kind


def test_what_peft_adapts_of_query_and_value_is_the_papers_set():
    for kind, words in shipped_targets().items():
        families = [NAMINGS[name] for name in ARCHITECTURES[kind]]
        both = {word for naming in families for word in (*naming.query, *naming.value)}
        if not isinstance(words, str) and set(words) <= both:
            assert matrices("+".join(words)) == "Wq, Wv", kind


@pytest.mark.parametrize("family", NAMINGS)
def test_a_family_has_one_role_for_each_word_and_a_value_for_each_query(family):
    naming = NAMINGS[family]
    words = [word for role in ROLES for word in words_of(naming, role)]
    assert len(words) == len(set(words))
    if naming.query:
        assert len(naming.query) == len(naming.key) == len(naming.value)
    assert (
        any(family in families for families in ARCHITECTURES.values())
        or naming.fused
        or (naming.query)
    )


def test_architectures_are_of_families_that_there_are():
    assert {name for names in ARCHITECTURES.values() for name in names} <= NAMINGS.keys()


@pytest.mark.parametrize("family", [name for name in NAMINGS if NAMINGS[name].query])
def test_words_of_one_family_have_the_roles_that_it_gives_them(family):
    naming = NAMINGS[family]
    roles = [role for role in ATTENTION if words_of(naming, role)]
    assert find_roles([words_of(naming, role)[0] for role in roles]) == tuple(roles)


def test_what_has_two_roles_is_told_by_the_words_beside_it():
    assert find_roles(["wq", "wk", "wv", "wo"]) == ATTENTION
    assert find_roles(["q", "v", "wo"]) == ("query", "value", "down")
    assert find_roles(["wo"]) is None
    assert find_roles(["query", "wo"]) is None


@pytest.mark.parametrize("family", NAMINGS)
def test_the_models_order_holds_in_every_family(family):
    """Embeddings, query, key, value, output, gate, up, down: whatever they are called."""
    naming = NAMINGS[family]
    roles = ("query", "key", "value", "output", "gate", "up", "down")
    words = [words_of(naming, role)[0] for role in roles if words_of(naming, role)]
    single = [word for word in words if "." not in word and word != "output"]
    if family != "t5":  # whose wo sorts as Llama's
        paths = [f"layers.0.{word}" for word in single]
        backwards = paths[::-1]
        assert sorted(backwards, key=model_order) == paths
    inputs = [word for word in naming.embeddings if word != "shared"]
    assert all(model_order(word) < model_order("layers.0.q") for word in inputs)


def test_flat_prefixes_end_where_the_path_begins():
    assert all(prefix.endswith("_") for prefix in FLAT_PREFIXES)
    assert set(list_words("other")) >= {"receptance"}
