"""Replicable rank: planted directions, what chance gives, the spectrum's closed forms, pictures."""

import itertools
import json
import math
from collections import Counter
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy.stats import binom

from subspace import rank, similarity
from subspace.adapters import Adapter, LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError, ShapeError, UnknownModuleError
from subspace.findings import describe_rank
from subspace.measures.rank.spectral import energy_rank
from subspace.plots.rank import rank_figure, rank_rows
from subspace.results import ModuleRank, Rank, Spread
from tests.support import oracle
from tests.support.memory import adapter, factors, gaussian

SIDES = ["A", "B", "in", "out"]
SPECTRAL = ("stable", "entropy", "participation", "energy90", "energy95", "energy99")


def built(U, S, V, *, scale=1.0, rng=None, dtype=torch.float64):
    """B A = U diag(S) V^T, split evenly and, with an rng, in a random orthogonal gauge."""
    mix = np.eye(len(S)) if rng is None else oracle.haar(rng, len(S), len(S))
    A, B = (mix * np.sqrt(S)) @ V.T, (U * np.sqrt(S)) @ mix.T
    return LowRankUpdate("q", torch.tensor(A).to(dtype), torch.tensor(B).to(dtype), scale)


def planted(d, r, k, *, runs, seed, lean=0.0, dtype=torch.float64):
    """Runs that share their k leading directions, in and out, and are independent otherwise.

    `lean` is the sine of the angle by which each run's own noise turns them.
    """
    rng = np.random.default_rng(seed)
    common = [oracle.haar(rng, d, max(k, 1))[:, :k] for _ in "UV"]

    def one():
        bases = []
        for basis in common:
            noise = rng.standard_normal(basis.shape) * lean / np.sqrt(d)
            bases.append(np.linalg.qr(np.hstack([basis + noise, rng.standard_normal((d, r - k))])))
        U, V = (Q * np.sign(np.diag(R)) for Q, R in bases)
        return built(U, np.linspace(3.0, 1.0, r), V, rng=rng, dtype=dtype)

    return [one() for _ in range(runs)]


def adapters(modules, name="run"):
    """Turn a list of modules, each a list of runs, into the runs."""
    return [adapter(*run, name=f"{name}{n}") for n, run in enumerate(zip(*modules, strict=True))]


def counts(result):
    return [m.replicable for m in result.values()]


# What is real, and what chance gives


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("lean", [0.0, 0.3])
@pytest.mark.parametrize("k", [0, 1, 3, 8])
def test_planted_directions_are_recovered_from_three_runs(k, lean, side):
    """d = 384, r = 64: exactly as many as were planted, noise turning each by up to 17 degrees."""
    modules = [planted(384, 64, k, runs=3, seed=100 * k + n, lean=lean) for n in range(5)]
    result = rank(adapters(modules), side=side)
    assert counts(result) == [k] * 5
    assert [m.agreeing for m in result.values()] == [(k, k, k)] * 5
    assert result.recommended == max(1, k)


def test_nothing_planted_is_nothing_found():
    """k = 0 in 200 modules of three runs: no more than the level, here far fewer."""
    level = 0.05
    modules = [[gaussian(48, 48, 8, seed=1000 * s + n) for s in range(3)] for n in range(200)]
    alone = [rank(adapters([module]), level=level)["q"].replicable for module in modules]
    assert sum(count > 0 for count in alone) <= binom.ppf(1 - 1e-4, 200, level)
    assert sum(count > 0 for count in alone) <= 200 * level  # and so 95 of 100
    together = rank(adapters(modules), level=level)
    assert sum(count > 0 for count in counts(together)) <= 2


def test_the_false_positive_rate_of_one_module_is_the_level():
    """r = 1: both directions have one overlap, cos^2, so the test is exact: rate = level."""
    level, n = 0.2, 250
    hits = sum(
        rank([adapter(gaussian(9, 24, 1, seed=m)), adapter(gaussian(9, 24, 1, seed=10**6 + m))],
             level=level)["q"].replicable
        for m in range(n)
    )  # fmt: skip
    assert binom.ppf(1e-4, n, level) <= hits <= binom.ppf(1 - 1e-4, n, level)


def test_the_chance_of_any_false_module_is_the_level():
    """Benjamini-Hochberg where nothing is real: P(any module counts) = level (Simes' equality)."""
    level, n = 0.2, 200
    hits = 0
    for experiment in range(n):
        modules = [
            [gaussian(9, 24, 1, seed=10**6 * s + 10 * experiment + m) for s in (1, 2)]
            for m in range(6)
        ]
        hits += any(counts(rank(adapters(modules), level=level)))
    assert binom.ppf(1e-4, n, level) <= hits <= binom.ppf(1 - 1e-4, n, level)


def test_few_real_modules_among_many_are_found_and_few_false_ones():
    """The false discovery rate over modules: 20 real of 200."""
    real = [planted(48, 6, 2, runs=2, seed=n) for n in range(20)]
    null = [[gaussian(48, 48, 6, seed=1000 * s + n) for s in (1, 2)] for n in range(180)]
    found = counts(rank(adapters(real + null), level=0.05))
    assert found[:20] == [2] * 20
    assert sum(count > 0 for count in found[20:]) <= binom.ppf(1 - 1e-4, 20, 0.1)


@pytest.mark.parametrize("side", [*SIDES, "delta-A"])
def test_every_pair_is_counted_as_similarity_counts_it(side):
    """Four runs of several ranks in one call: the function is the same."""
    modules = [[*planted(40, 6, k, runs=3, seed=k), gaussian(40, 40, 4, seed=k)] for k in (0, 1, 3)]
    runs = [
        replace(x, initial={n: torch.randn(x[n].A.shape) for n in x}) for x in adapters(modules)
    ]
    result = rank(runs, side=side, level=0.05)
    pairs = list(itertools.combinations(runs, 2))
    assert result.pairs == tuple((a.name, b.name) for a, b in pairs)
    each = [similarity(a, b, side=side, level=0.05) for a, b in pairs]
    for name, m in result.items():
        assert m.agreeing == tuple(pair[name].agreeing for pair in each)
        assert m.replicable == np.median(m.agreeing)
        assert (m.replicable_low, m.replicable_high) == (min(m.agreeing), max(m.agreeing))


def test_an_even_number_of_pairs_may_give_a_half():
    """Four runs, of which the first three share two directions and the last one shares one."""
    rng = np.random.default_rng(0)
    shared = oracle.haar(rng, 100, 2)
    S = np.array([3.0, 2.0, 1.5])

    def one(k):
        rest = rng.standard_normal((100, 3 - k))
        return built(oracle.haar(rng, 100, 3), S, np.linalg.qr(np.hstack([shared[:, :k], rest]))[0])

    m = rank(adapters([[one(2), one(2), one(2), one(1)]]))["q"]
    assert sorted(m.agreeing) == [1, 1, 1, 2, 2, 2]
    assert (m.replicable, m.pairs, m.recommended) == (1.5, 6, 2)


def test_each_factor_is_read_once_however_many_runs():
    """And once more to see whether two runs began from one A."""
    read = Counter()

    def counted(x, n):
        def read_one(name):
            read[n, name] += 1
            return x._read(name)

        return replace(x, _read=read_one)

    modules = [planted(30, 4, 1, runs=10, seed=n) for n in range(3)]
    runs = [counted(x, n) for n, x in enumerate(adapters(modules))]
    result = rank(runs)
    assert set(read.values()) == {2}
    assert len(read) == 30
    assert [m.pairs for m in result.values()] == [45] * 3
    assert counts(result) == [1] * 3


def test_the_whole_adapter_needs_what_nine_in_ten_modules_need():
    modules = [planted(60, 6, k, runs=2, seed=k) for k in (0, 1, 1, 1, 1, 1, 1, 2, 3, 5)]
    result = rank(adapters(modules))
    assert [m.recommended for m in result.values()] == [1, 1, 1, 1, 1, 1, 1, 2, 3, 5]
    assert result.recommended == 3


# Ranks of the spectrum


def spectral(S, *, d=40, scale=1.0, dtype=torch.float64, rng=None):
    U, V = np.eye(d)[:, : len(S)], np.eye(d)[:, ::-1][:, : len(S)]
    m = rank(adapter(built(U, np.asarray(S), V, scale=scale, dtype=dtype, rng=rng)))["q"]
    return {name: getattr(m, name).median for name in SPECTRAL}


def test_of_a_flat_spectrum_all_ranks_are_r():
    got = spectral(np.full(20, 3.0))
    assert_allclose([got[n] for n in SPECTRAL[:3]], 20)
    assert [got[n] for n in SPECTRAL[3:]] == [18, 19, 20]  # 90 % of r equal energies are 0.9 r


def test_of_one_direction_all_ranks_are_1():
    assert_allclose(list(spectral([5.0]).values()), 1)
    assert_allclose(list(spectral([5.0, 0.0, 0.0]).values()), 1)


def test_of_a_geometric_spectrum_the_ranks_are_geometric_sums():
    q, r = 0.8, 24
    got = spectral(q ** np.arange(r))
    energy = (1 - q ** (2 * r)) / (1 - q**2)
    assert got["stable"] == pytest.approx(energy, rel=1e-9)
    fourth = (1 - q ** (4 * r)) / (1 - q**4)
    assert got["participation"] == pytest.approx(energy**2 / fourth, rel=1e-9)
    # Entropy of a truncated geometric distribution, log Z - log(q) * mean
    Z = (1 - q**r) / (1 - q)
    mean = q / (1 - q) - r * q**r / (1 - q**r)
    assert got["entropy"] == pytest.approx(math.exp(math.log(Z) - math.log(q) * mean), rel=1e-9)
    for name, share in (("energy90", 0.90), ("energy95", 0.95), ("energy99", 0.99)):
        assert got[name] == math.ceil(math.log(1 - share * (1 - q ** (2 * r))) / math.log(q**2))


@pytest.mark.parametrize("scale", [-2.0, 1e-150, 1e150])
def test_the_spectrums_ranks_see_no_scale(scale):
    S = [3.0, 2.0, 0.5]
    assert_allclose(list(spectral(S, scale=scale).values()), list(spectral(S).values()), rtol=1e-9)


def test_energy_rank_is_the_fewest_that_suffice():
    assert [energy_rank([3.0, 1.0, 1.0, 1.0], s) for s in (0.1, 0.75, 0.76, 1.0)] == [1, 1, 2, 4]


def test_the_gauge_is_seen_by_a_alone_and_said():
    """(G A, B G^-1) is the same update: in, out and the spectrum do not change, A does."""
    runs = planted(60, 5, 3, runs=2, seed=1)
    G = torch.diag(torch.tensor([1e-3, 1.0, 1.0, 1.0, 1e3], dtype=torch.float64))
    first = runs[0]
    S, V = np.linspace(3.0, 1.0, 5), oracle.directions(first.A, first.B, 1.0, "in")[0]
    plain = LowRankUpdate("q", torch.tensor((V * np.sqrt(S)).T), first.B, 1.0)
    moved = LowRankUpdate("q", G @ plain.A, torch.linalg.solve(G, plain.B, left=False), 1.0)
    before = {s: rank([adapter(plain), adapter(runs[1])], side=s) for s in SIDES}
    after = {s: rank([adapter(moved), adapter(runs[1])], side=s) for s in SIDES}
    for side in ("in", "out"):
        assert counts(before[side]) == counts(after[side])
        assert not any("how delta W is split" in note for note in after[side].notes)
    assert counts(before["A"]) == [3]
    assert counts(after["A"]) == [0]  # its strongest direction is now one that nobody shares
    assert any("side A depends on how delta W is split" in note for note in after["A"].notes)
    for name in SPECTRAL:
        assert getattr(after["A"]["q"], name).high == pytest.approx(
            getattr(before["in"]["q"], name).high, rel=1e-6
        )


# What is undefined, left out, or inherited


def test_one_run_has_a_spectrum_and_no_replicable_rank():
    u = adapter(factors(20, 30, 4, seed=1), name="only")
    for given in (u, [u]):
        result = rank(given)
        m = result["q"]
        assert (m.replicable, m.recommended, m.pairs, m.agreeing) == (None, None, 0, ())
        assert result.recommended is None
        assert m.stable.median > 1
        assert m.note == "one run: a replicable rank needs a second one of another seed"
        assert m.note in result.notes
        assert describe_rank(result)[0].startswith(
            "No replicable rank from one run, only its spectrum"
        )


@pytest.mark.parametrize("side", SIDES)
def test_an_untrained_run_is_left_out_and_said(side):
    a, b = planted(30, 3, 1, runs=2, seed=1)
    nothing = LowRankUpdate("q", torch.randn(3, 30), torch.zeros(30, 3), 1.0)
    result = rank(adapters([[a, b, nothing]]), side=side)
    m = result["q"]
    assert m.agreeing[1:] == (None, None)
    assert (m.replicable, m.pairs, m.numerical) == (m.agreeing[0], 1, 0)
    assert "untrained: the update of run2 is exactly zero" in m.note
    assert "2 of 3 pairs of runs left out: there is nothing to compare" in m.note
    assert m.stable.low == pytest.approx(rank(adapter(a))["q"].stable.low)


def test_all_untrained_is_null_with_the_reason():
    nothing = LowRankUpdate("q", torch.randn(3, 30), torch.zeros(30, 3), 1.0)
    result = rank(adapters([[nothing, nothing]]))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    (m,) = plain["modules"]
    assert m["replicable"] is m["recommended"] is m["stable"]["median"] is None
    assert m["agreeing"] == [None]
    assert "untrained" in m["note"]
    assert plain["recommended"] is None
    assert "Undefined: no replicable rank in any of 1 module" in describe_rank(result)[0]


def test_a_first_direction_within_a_cluster_is_no_count():
    u = built(np.eye(30)[:, :3], np.full(3, 2.0), np.eye(30)[:, :3])
    m = rank(adapters([[u, factors(30, 30, 3, seed=1)]]))["q"]
    assert m.replicable is None
    assert "a first direction is not told apart from the next" in m.note
    assert m.stable.high == pytest.approx(3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rank_beyond_the_numerical_one_is_not_counted(dtype):
    """Rank 2 stored as rank 6, in every run the same: what agrees, and is anything, is 2."""
    rng = np.random.default_rng(0)
    U, V = oracle.haar(rng, 50, 2), oracle.haar(rng, 60, 2)
    mix = rng.standard_normal((2, 6))
    A, B = torch.tensor(mix.T @ (V * [2.0, 1.0]).T), torch.tensor(U @ np.linalg.pinv(mix).T)
    u = LowRankUpdate("q", A.to(dtype), B.to(dtype), 1.0)
    result = rank([adapter(u, name="a"), adapter(u, name="b")])
    m = result["q"]
    assert (m.nominal, m.numerical, m.replicable) == (6, 2, 2)
    assert m.full
    assert m.stable.high <= 2
    assert m.energy99.high <= 2
    assert "numerical rank 2 of 6 in a, not counted beyond" in m.note
    assert "in 1 module all directions are shared" in describe_rank(result)[0]


def test_what_is_full_is_judged_on_the_compared_side():
    """delta W of rank 2, A - A_0 of rank 6: six shared directions of 6 are all, two are not."""
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((6, 60))
    runs = []
    for n in range(2):
        start = torch.tensor(rng.standard_normal((6, 60)))
        A = start + torch.tensor(shared * np.linspace(3, 1, 6)[:, None])
        B = torch.tensor(rng.standard_normal((50, 2)) @ rng.standard_normal((2, 6)))
        one = adapter(LowRankUpdate("q", A, B, 1.0), name=f"run{n}")
        runs.append(replace(one, initial={"q": start}))
    moved, whole = rank(runs, side="delta-A")["q"], rank(runs, side="in")["q"]
    assert (moved.numerical, moved.counted, moved.replicable) == (2, 6, 6)
    assert moved.full
    assert (whole.numerical, whole.counted) == (2, 2)
    few = replace(moved, counted=6, numerical=2, replicable=3)
    assert not few.full


@pytest.mark.parametrize("k", [0, 2])
def test_planted_directions_survive_bf16(k, device):
    runs = adapters([planted(384, 16, k, runs=3, seed=k, dtype=torch.bfloat16)])
    assert counts(rank(runs, device=device)) == [k]


def test_modules_that_not_all_have_are_named():
    u, v = gaussian(5, 6, 2), gaussian(5, 6, 2, seed=1)
    runs = [
        Adapter.from_updates({"x.q": w, **{f"x.{n}": w for n in extra}}, name=name)
        for name, w, extra in (("a", u, "vk"), ("b", v, "k"), ("c", u, ""))
    ]
    result = rank(runs)
    assert list(result) == ["x.q"]
    assert "left out, since only a of 3 runs has them: x.v" in result.notes
    assert "left out, since only a and b of 3 runs have them: x.k" in result.notes
    with pytest.raises(UnknownModuleError, match="the 3 adapters have no module in common"):
        rank([*runs, Adapter.from_updates({"y": u}, name="d")][1:])


def test_runs_of_different_rank_are_said_not_to_be_one_configuration():
    small, large = planted(40, 3, 1, runs=1, seed=1), planted(40, 5, 1, runs=1, seed=1)
    result = rank(adapters([small + large]))
    assert any("different rank (run0 3, run1 5)" in note for note in result.notes)
    assert result["q"].nominal == 3


def start(x, A0):
    return replace(x, initial=dict.fromkeys(x, A0))


def test_the_same_initial_a_is_warned_of():
    """phi of the two initial A is 1, also where one has only some of the other's rows."""
    u, v, w = (gaussian(12, 30, r, seed=n) for n, r in enumerate((3, 4, 3)))
    A0 = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    other = torch.randn(3, 30, generator=torch.Generator().manual_seed(1))
    named = [adapter(x, name=n) for x, n in ((u, "a"), (v, "b"), (w, "c"))]
    result = rank([start(named[0], A0[:3]), start(named[1], A0), start(named[2], other)])
    assert result.same_initial == (("a", "b"),)
    (note,) = (n for n in result.notes if n.startswith("caution"))
    assert "a and b have the same initial A in 1 of 1 modules" in note
    assert "side delta-A" in note
    assert "caution: 1 of 3 pairs of runs had the same initial A" in describe_rank(result)[1]
    assert result.to_dict()["same_initial"] == [["a", "b"]]


def test_what_the_initial_a_hides_or_what_is_not_known_of_it_is_said():
    u, v = gaussian(12, 30, 3, seed=1), gaussian(12, 30, 3, seed=2)
    a, b = adapter(u, name="a"), adapter(v, name="b")
    assert any("initial A is not stored" in note for note in rank([a, b]).notes)
    a, b = start(a, torch.randn(3, 30)), start(b, torch.randn(3, 30))
    assert any("side delta-A leaves it out" in note for note in rank([a, b]).notes)
    assert not any("initial A" in note for note in rank([a, b], side="out").notes)
    with pytest.raises(ArgumentError, match=r"'c' does not hold it.*choose another side"):
        rank([a, adapter(u, name="c")], side="delta-A")


def test_delta_a_sees_what_the_start_hides():
    """A small shared step from large random starts: in counts nothing, delta-A all of it."""
    steps = planted(200, 4, 3, runs=2, seed=1)
    starts = [10 * torch.randn(4, 200, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    runs = [
        start(adapter(LowRankUpdate("q", u.A + A0, u.B, 1.0), name=f"s{n}"), A0.double())
        for n, (u, A0) in enumerate(zip(steps, starts, strict=True))
    ]
    assert counts(rank(runs)) == [0]
    assert counts(rank(runs, side="delta-A")) == [3]


def test_refusals():
    a = adapter(gaussian(5, 6, 2), name="a")
    with pytest.raises(ArgumentError, match="no adapter was given"):
        rank([])
    with pytest.raises(ArgumentError, match="'a' was given twice: a run agrees with itself"):
        rank([a, a])
    with pytest.raises(ArgumentError, match="a probability between 0 and 1"):
        rank([a], level=0)
    with pytest.raises(ArgumentError, match="side is 'C'"):
        rank([a, adapter(gaussian(5, 6, 2))], side="C")
    with pytest.raises(ShapeError, match="it is 5 x 6 in 'a' and 5 x 7"):
        rank([a, adapter(gaussian(5, 7, 2))])
    bad = gaussian(5, 6, 2)
    bad.B[0, 1] = float("inf")
    for side in SIDES:
        with pytest.raises(NonFiniteError, match=r"1 of 10 entries of B in module 'q'"):
            rank([a, adapter(bad)], side=side)


def test_the_result_is_a_mapping_and_a_frame():
    result = rank(adapters([planted(30, 3, 1, runs=3, seed=n) for n in range(2)]))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (plain["schema_version"], plain["kind"], plain["side"]) == ("2", "rank", "in")
    assert plain["modules"][0]["energy90"].keys() == {"median", "low", "high"}
    assert plain["pairs"] == [["run0", "run1"], ["run0", "run2"], ["run1", "run2"]]
    frame = result.to_frame()
    assert list(frame["module"]) == list(result) == ["layer.0.q", "layer.1.q"]
    assert {"replicable", "replicable_low", "stable_high", "recommended"} <= set(frame.columns)
    assert "q" not in result
    assert "3 runs" in describe_rank(result)[0]
    with pytest.raises(UnknownModuleError, match="'typo' has no rank here"):
        result["typo"]
    assert repr(result) == "Rank('run0', 'run1', 'run2', side='in', 2 modules)"


# Sentences


def module(name="h.0.q", replicable=3, *, nominal=8, low=None, high=None, energy=4.0):
    spread = Spread(energy, energy, energy)
    low, high = (replicable if end is None else end for end in (low, high))
    need = None if replicable is None else max(1, math.ceil(replicable))
    return ModuleRank(
        module=name,
        d=99,
        nominal=nominal,
        numerical=nominal,
        counted=nominal,
        agreeing=(replicable,) * 3,
        pairs=3,
        replicable=replicable,
        replicable_low=low,
        replicable_high=high,
        stable=spread,
        entropy=spread,
        participation=spread,
        energy90=spread,
        energy95=spread,
        energy99=spread,
        recommended=need,
    )


def of(*modules, recommended=3, adapters=("s0", "s1", "s2")):
    pairs = tuple(itertools.combinations(adapters, 2))
    held = {m.module: m for m in modules}
    return Rank(
        adapters=tuple(adapters),
        side="in",
        level=0.01,
        modules=held,
        pairs=pairs,
        recommended=recommended,
    )


def test_the_sentence_names_the_modules_that_need_more():
    result = of(*(module(f"h.{n}.q", k) for n, k in enumerate((0, 1, 3, 6))))
    said, not_shown = describe_rank(result)
    assert said.startswith("In 3 of 4 modules 3 runs share leading directions above chance")
    assert "a median of 2 (range 0 to 6; side in, level 0.01)" in said
    assert "Rank 3 is enough for what they share in 3 of them (not in h.3.q 6)" in said
    assert "not shown: that this rank does for the task" in not_shown.lower()


def test_the_sentence_where_nothing_is_shared():
    said, _ = describe_rank(of(module(replicable=0), recommended=1))
    assert said.startswith("In no module do 3 runs share a leading direction above chance")
    assert "nothing here speaks for a rank above 1" in said


def test_modules_without_a_count_are_counted_in_the_sentence():
    said, _ = describe_rank(of(module("h.0.q", 3), module("h.1.q", None), module("h.2.q", 0)))
    assert "In 1 of 2 modules" in said
    assert "Left out as undefined: 1 of 3 modules." in said
    assert "Only in 1 of 3" in describe_rank(of(*(module(f"h.{n}.q", n // 2) for n in range(3))))[0]


# Pictures


def drawn(ax):
    return {line.get_label(): line for line in ax.lines if line.get_label() != "_row"}


def ranges(ax):
    return [list(line.get_xdata()) for line in ax.lines if line.get_label() == "_range"]


def test_the_axes_hold_every_rank_on_its_row():
    held = {0: module(replicable=3, low=1, high=5), 2: module("h.2.q", 0, energy=2.0)}
    ax = rank_rows(held, ax=Figure().add_subplot(), rows=["layer 0", "layer 1", "layer 2"], whole=3)
    marks = drawn(ax)
    assert marks["_replicable"].get_xdata().tolist() == [3, 0]
    assert marks["_nominal"].get_xdata().tolist() == [8, 8]
    assert marks["_energy90"].get_xdata().tolist() == [4, 2]
    for line in (marks[n] for n in ("_replicable", "_nominal", "_energy90", "_stable")):
        assert [round(y) for y in line.get_ydata()] == [1, 3]
    assert ranges(ax) == [[1, 5], [0, 0]]
    assert list(marks["_recommended"].get_xdata()) == [3, 3]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["layer 0", "layer 1", "layer 2"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row on top
    ticks = [t.get_text() for t in ax.get_xticklabels()]
    assert ticks == ["0", "1", "2", "4", "8"]


def test_an_undefined_row_is_striped_and_one_run_is_not():
    ax = rank_rows({0: module(replicable=None)}, ax=Figure().add_subplot(), rows=["q"])
    assert [p.get_label() for p in ax.patches] == ["_undefined"]
    assert "_replicable" not in drawn(ax)
    one = rank(adapter(factors(20, 30, 4, seed=1)))
    figure = rank_figure(one)
    assert not figure.axes[0].patches
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert not any("replicable" in label for label in labels)
    assert "second seed" in figure.get_suptitle()


def test_the_scale_holds_what_is_larger_than_the_smallest_run():
    held = {0: module(replicable=8, high=18)}
    ax = rank_rows(held, ax=Figure().add_subplot(), rows=["q"])
    assert ax.get_xlim()[1] > 18


def test_the_figure_has_a_panel_a_kind_and_a_row_a_layer():
    names = [f"enc.layer.{n}.attention.{w}" for n in range(3) for w in ("query", "value")]
    figure = rank_figure(of(*(module(n, k) for k, n in enumerate(names))))
    query, value = figure.axes
    assert (query.get_title(), value.get_title()) == ("query", "value")
    assert drawn(query)["_replicable"].get_xdata().tolist() == [0, 2, 4]
    assert drawn(value)["_replicable"].get_xdata().tolist() == [1, 3, 5]
    chosen = rank_figure(of(*(module(n) for n in names)), modules=[names[0]])
    assert [ax.get_title() for ax in chosen.axes] == ["query"]


def test_long_names_of_runs_are_told_apart_in_the_title():
    names = tuple(f"a-long-name-of-a-run-seed{n}-on-wikisql-with-labels" for n in range(3))
    title = rank_figure(of(module(), adapters=names), width=3.4).get_suptitle()
    assert all(f"seed{n}" in title for n in range(3))


def test_modules_without_layers_are_rows_of_one_panel():
    figure = rank_figure(of(module("embed"), module("lm_head")))
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["embed", "lm_head"]


@pytest.mark.parametrize("width", [3.3, 7.0])
@pytest.mark.parametrize(("layers", "kinds"), [(1, 1), (6, 2), (32, 7), (96, 4)], ids=str)
def test_every_word_is_on_the_page(width, layers, kinds):
    """No warning of a collapsed layout, no text beyond the page, 6 pt or more, a page's height."""
    words = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")[:kinds]
    held = [
        module(f"model.layers.{n}.{w}", n % 9, nominal=64) for n in range(layers) for w in words
    ]
    held.append(module("model.layers.0.q_proj_$x$\n", None))
    long = [f"experiments/2024-05-17/llama-2-7b-chat-$x_{n}$-r64" for n in range(12)]
    figure = rank_figure(of(*held, adapters=long), width=width)
    FigureCanvasAgg(figure).draw()
    assert figure.get_figheight() <= 11
    for text in figure.findobj(mpl.text.Text):
        if not text.get_text() or not text.get_visible():
            continue
        assert text.get_fontsize() >= 6
        assert not text.get_usetex()
        box = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= box.x0, text.get_text()
        assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= box.y0, text.get_text()
        assert box.y1 <= figure.bbox.y1 + 1, text.get_text()


def test_figures_refuse_what_they_cannot_show():
    with pytest.raises(UnknownModuleError, match="no module to draw"):
        rank_figure(of())
    with pytest.raises(UnknownModuleError, match="no module 'typo'"):
        rank_figure(of(module()), modules="typo")
    with pytest.raises(ArgumentError, match="3 to 40 inches"):
        rank_figure(of(module()), width=1)
    with pytest.raises(ArgumentError, match="1001 rows are more than the 1000"):
        rank_figure(of(*(module(f"h.{n}.q") for n in range(1001))))
