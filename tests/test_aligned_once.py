"""Adapters are aligned once per call: by every verb, and by every public function."""

import sys
from pathlib import Path

import pytest

import subspace
from subspace.adapters import Adapter, Aligned, align
from subspace.reports import report
from tests.support.memory import adapter, gaussian
from tests.support.samples import R8, R64, SEED
from tests.support.verbs import run

PAIR = (R8, R64)
MODULE = ("--modules", "*.0.*.query")


@pytest.fixture
def calls(monkeypatch):
    module, seen = sys.modules["subspace.adapters.align"], []
    honest = module._match
    monkeypatch.setattr(
        module,
        "_match",
        lambda adapters, names: seen.append(len(adapters)) or honest(adapters, names),
    )
    return seen


@pytest.mark.parametrize(
    "command",
    [
        ("similarity", *PAIR),
        ("similarity", *PAIR, "--control", PAIR[0]),
        ("similarity", *PAIR, SEED),
        ("interference", *PAIR),
        ("rank", *PAIR),
        ("report", *PAIR, "--json"),
        ("report", *PAIR, "--json", "--control", SEED),
    ],
    ids=lambda words: " ".join(Path(word).name for word in words),
)
def test_a_verb_aligns_once(command, calls):
    run(*command, *MODULE)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "measure",
    [
        lambda a, b: subspace.similarity(a, b, control=a),
        lambda a, b: subspace.similarities([a, b]),
        lambda a, b: subspace.interference([a, b]),
        lambda a, b: subspace.rank([a, b]),
        lambda a, b: report([a, b]),
        lambda a, b: report([a, b], control=a),
    ],
    ids=["similarity", "similarities", "interference", "rank", "report", "report with control"],
)
def test_a_public_function_aligns_once_and_matches_other_names(measure, calls):
    one, two = (
        Adapter.from_updates({module: gaussian(8, 9, 2, seed=seed)}, name=str(seed))
        for seed, module in enumerate(("layers.0.q_proj", "model.layers.0.q_proj"))
    )
    measure(one, two)  # without a match each of them refuses
    assert len(calls) == 1


@pytest.mark.parametrize("measure", [subspace.similarities, subspace.interference, subspace.rank])
def test_what_is_aligned_is_not_aligned_again(measure, calls):
    one, two = (adapter(gaussian(8, 9, 2, seed=seed), name=str(seed)) for seed in (0, 1))
    pair = align([one, two])
    assert isinstance(pair, Aligned)
    assert isinstance(pair.only(1, 0).select("q"), Aligned)
    measure(pair)
    assert len(calls) == 1
    measure(tuple(pair))
    assert len(calls) == 2
