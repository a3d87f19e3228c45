"""The matrix of many adapters: each pair against `similarity`, invariances, groups, ties, zeros."""

import itertools
import json
import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.cluster.hierarchy import cophenet, is_valid_linkage

from subspace import similarities, similarity
from subspace.adapters import Adapter, LowRankUpdate
from subspace.errors import ArgumentError, NonFiniteError, ShapeError, UnknownModuleError
from subspace.measures.similarity.clustering import order_by_linkage
from subspace.results import BY, SCHEMA_VERSION, SIDES, PairSimilarity, SimilarityMatrix
from tests.support.memory import gaussian, planted


def of(modules, name, initial=None):
    """An adapter of named updates."""
    updates = {m: LowRankUpdate(m, u.A, u.B, u.scale, source=u.source) for m, u in modules.items()}
    return replace(Adapter.from_updates(updates, name=name), initial=initial or {})


def mixed():
    """Four adapters of several ranks and dimensions; only two have k, and one lacks v."""
    return [
        of({"q": gaussian(20, 30, 3, seed=1), "v": gaussian(30, 20, 4, seed=2)}, "p"),
        of({m: gaussian(*d, 5, seed=n) for n, (m, d) in enumerate(
            {"q": (20, 30), "v": (30, 20), "k": (9, 9)}.items(), 3)}, "q"),
        of({"q": gaussian(20, 30, 4, seed=6), "k": gaussian(9, 9, 3, seed=7)}, "r"),
        of({"q": gaussian(20, 30, 6, seed=8), "v": gaussian(30, 20, 3, seed=9)}, "s"),
    ]  # fmt: skip


def groups(n, *, d=40, r=4, modules=3, shared=3):
    """`n` adapters in two planted groups, even and odd, of `shared` common directions each."""
    rng = np.random.default_rng(5)
    common = [[np.linalg.qr(rng.standard_normal((d, shared)))[0] for _ in range(modules)]
              for _ in range(2)]  # fmt: skip
    made = []
    for number in range(n):
        updates = {}
        for m in range(modules):
            rest = rng.standard_normal((d, r - shared))
            V = np.linalg.qr(np.hstack([common[number % 2][m], rest]))[0]
            A = torch.tensor((V * np.linspace(2, 1, r)).T)
            B = torch.tensor(rng.standard_normal((12, r)))
            updates[f"h.{m}.q"] = LowRankUpdate("q", A, B, 1.0)
        made.append(of(updates, f"run{number}"))
    return made


def expected(a, b, by, side, k, level=0.01):
    """The same by `similarity` of the two: values and p-values of their modules."""
    result = similarity(a, b, side=side, angles=True, level=level)
    values, chances, p = [], [], []
    for m in result.values():
        if by == "agreeing":
            if m.agreeing is not None:
                values.append(m.agreeing)
            chances.append(0.0)
            continue
        phi = m.phi[k - 1, k - 1]
        mean = m.null_mean[k - 1, k - 1]
        values.append(phi if by == "phi" else math.sqrt(1 - phi))
        chances.append(mean if by == "phi" else math.sqrt(1 - mean))
        p.append(m.pvalue[k - 1, k - 1])
    return median(values), median(chances), p


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("side", ["A", "B", "in", "out"])
def test_every_pair_is_what_similarity_says_of_the_two(by, side):
    adapters = mixed()
    k = None if by == "agreeing" else 2
    matrix = similarities(adapters, by=by, side=side, k=k)
    for (a, b), pair in zip(itertools.combinations(adapters, 2), matrix.pairs, strict=True):
        assert pair.adapters == (a.name, b.name)
        value, chance, p = expected(a, b, by, side, k)
        assert_allclose([pair.value, pair.null_mean], [value, chance], rtol=1e-9, atol=1e-12)
        assert (pair.modules, pair.undefined) == (len(set(a) & set(b)), 0)
        ordered = sorted(p)
        passing = [n for n, x in enumerate(ordered, 1) if x <= 0.01 * n / len(ordered)]
        if by != "agreeing":
            assert pair.significant == max(passing, default=0)
        assert pair.finding == (pair.significant > 0)


def test_the_distance_is_that_of_the_principal_angles():
    a, b = (of({"q": gaussian(20, 30, 4, seed=n)}, str(n)) for n in range(2))
    angles = similarity(a, b, angles=True)["q"]
    pair = similarities([a, b], by="distance").pairs[0]
    assert_allclose(pair.value, angles.distances.projection / 2, rtol=1e-12)
    assert similarities([a, a], by="distance").pairs[0].value < 1e-12


@pytest.mark.parametrize("by", BY)
def test_the_triangle_inequality_holds_and_values_lie_in_their_range(by):
    matrix = similarities(groups(7, modules=1), by=by)  # a median of metrics need not be one
    square = matrix.square()
    assert_array_equal(square, square.T)
    assert np.isnan(np.diag(square)).all()
    most = matrix.square("largest")
    off = ~np.eye(7, dtype=bool)
    assert ((square[off] >= 0) & (square[off] <= most[off])).all()
    if by == "distance":
        near = np.where(off, square, 0)
        assert (near[:, None, :] <= near[:, :, None] + near[None, :, :] + 1e-12).all()


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_given_changes_nothing(by, seed):
    adapters = groups(6)
    places = np.random.default_rng(seed).permutation(6)
    one, other = similarities(adapters, by=by), similarities([adapters[n] for n in places], by=by)
    for of_what in ("value", "null_mean", "significant", "undefined", "modules"):
        there = one.square(of_what)[np.ix_(places, places)]
        assert_allclose(other.square(of_what), there, rtol=1e-12)
    assert [one.adapters[n] for n in one.order] == [other.adapters[n] for n in other.order]
    assert_allclose([row[2] for row in one.linkage], [row[2] for row in other.linkage], rtol=1e-11)


@pytest.mark.parametrize("by", BY)
def test_two_planted_groups_are_found(by):
    matrix = similarities(groups(9), by=by)
    kinds = [n % 2 for n in matrix.order]
    assert sum(a != b for a, b in itertools.pairwise(kinds)) == 1
    assert is_valid_linkage(np.array(matrix.linkage, dtype=float))
    apart = cophenet(np.array(matrix.linkage, dtype=float))
    same = [(a - b) % 2 == 0 for a, b in itertools.combinations(range(9), 2)]
    assert max(apart[same]) < min(apart[np.logical_not(same)])
    for pair, alike in zip(matrix.pairs, same, strict=True):
        assert (pair.significant == 3) if alike else (pair.significant <= 1)


def test_agreeing_counts_what_was_planted():
    x, y = planted(300, 6, 8, 3, seed=2)
    pair = similarities([of({"q": x}, "x"), of({"q": y}, "y")], by="agreeing").pairs[0]
    assert (pair.value, pair.largest, pair.null_mean, pair.significant) == (3.0, 6.0, 0.0, 1)


def test_random_adapters_are_within_chance():
    matrix = similarities([of({f"h.{m}.q": gaussian(20, 200, 4, seed=9 * n + m) for m in range(3)},
                              str(n)) for n in range(9)])  # fmt: skip
    assert sum(pair.significant > 0 for pair in matrix.pairs) <= 2  # 36 pairs at level 0.01
    assert_allclose(np.nanmean(matrix.square()), 4 / 200, rtol=0.15)


def zeroed(adapter, *modules):
    return of(
        {m: LowRankUpdate(m, u.A, 0 * u.B if m in modules else u.B, 1.0)
         for m, u in adapter.items()}, adapter.name,
    )  # fmt: skip


@pytest.mark.parametrize("by", BY)
def test_a_zero_update_is_undefined_and_farthest(by):
    adapters = groups(6)
    adapters[2] = zeroed(adapters[2], *adapters[2])
    matrix = similarities(adapters, by=by)
    square = matrix.square()
    assert np.isnan(square[2]).all()
    assert np.isfinite(np.delete(np.delete(square, 2, 0), 2, 1)).sum() == 20
    assert matrix.pair(2, 0).undefined == 3
    assert matrix.pair(2, 0).finding is None
    # It joins last, at the largest distance there is, from an end of the order.
    assert matrix.linkage[-1][2] == 1.0
    assert matrix.order.index(2) in (0, 5)
    note = next(note for note in matrix.notes if note.startswith("undefined in every module"))
    assert "run0 and run2, run1 and run2, run2 and run3, run2 and run4 and 1 more" in note


def test_one_zero_module_is_left_out_of_the_median_and_counted():
    adapters = groups(4)
    adapters[1] = zeroed(adapters[1], "h.0.q")
    matrix, full = similarities(adapters), similarities(groups(4))
    assert (matrix.pair(1, 3).undefined, matrix.pair(0, 2).undefined) == (1, 0)
    assert matrix.pair(0, 2).value == full.pair(0, 2).value
    rest = similarity(adapters[1], adapters[3])
    assert matrix.pair(3, 1).value == pytest.approx(
        median(rest[f"h.{m}.q"].phi[3, 3] for m in (1, 2)), rel=1e-12
    )
    assert any("undefined in some modules" in note for note in matrix.notes)


def test_a_pair_that_shares_nothing_is_undefined():
    x, y = of({"q": gaussian(9, 9, 2, seed=0)}, "x"), of({"v": gaussian(9, 9, 2, seed=1)}, "y")
    z = of({"q": gaussian(9, 9, 2, seed=2), "v": gaussian(9, 9, 2, seed=3)}, "z")
    matrix = similarities([x, y, z])
    assert matrix.pair("x", "y").modules == 0
    assert math.isnan(matrix.pair("x", "y").value)
    assert "undefined, since they share no module: x and y" in matrix.notes
    with pytest.raises(UnknownModuleError, match="no two adapters have a module in common"):
        similarities([x, y])


def test_tied_directions_are_undefined_and_all_of_them_are_not():
    A = torch.eye(4, 9, dtype=torch.float64)
    adapters = [of({"q": LowRankUpdate("q", A.roll(n, 1), torch.ones(3, 4), 1.0)}, str(n))
                for n in range(3)]  # fmt: skip
    assert np.isnan(similarities(adapters, k=2).square()).all()
    assert_allclose(similarities(adapters).pairs[0].value, 3 / 4)  # the whole spaces are known


def test_whole_spaces_leave_nothing_to_chance():
    adapters = [of({"q": gaussian(8, 3, 5, seed=n)}, str(n)) for n in range(3)]
    matrix = similarities(adapters)
    assert matrix.k == 3  # the dimension, below the rank
    assert [pair.significant for pair in matrix.pairs] == [0, 0, 0]
    assert_allclose([pair.value for pair in matrix.pairs], 1)


def test_the_smallest_rank_is_k_and_a_larger_one_names_the_adapter():
    adapters = mixed()
    assert similarities(adapters).k == 3
    assert similarities(adapters, modules="q", k=2).k == 2
    with pytest.raises(ArgumentError, match=r"k is 4, and 'p' has 3 directions in 'q'.*up to 3"):
        similarities(adapters, k=4)


def test_ties_fall_by_name_and_rounding_breaks_none():
    far = np.full((4, 4), 0.5)
    assert order_by_linkage(far, "abcd") == order_by_linkage(far + 1e-14 * np.arange(4), "abcd")
    order, rows = order_by_linkage(far[:3, :3], "cab")
    assert [("cab")[n] for n in order] == [
        ("abc")[n] for n in order_by_linkage(far[:3, :3], "abc")[0]
    ]
    assert [row[2:] for row in rows] == [(0.5, 2), (0.5, 3)]
    assert order_by_linkage(np.array([[0, np.nan], [np.nan, 0]]), "ab") == (
        (0, 1),
        ((0, 1, 1.0, 2),),
    )


def started(seed, start):
    A0 = torch.tensor(np.random.default_rng(start).standard_normal((2, 30)))
    rng = np.random.default_rng(100 + seed)
    A = A0 + 0.1 * torch.tensor(rng.standard_normal((2, 30)))
    update = LowRankUpdate("q", A, torch.tensor(rng.standard_normal((9, 2))), 1.0)
    return of({"q": update}, f"s{seed}", {"q": A0})


def test_the_same_initial_A_is_counted_and_cautioned_of():
    adapters = [started(0, 0), started(1, 0), started(2, 7)]
    matrix = similarities(adapters)
    assert [pair.same_initial for pair in matrix.pairs] == [1, 0, 0]
    assert any(note.startswith("caution: of the same initial A") and "s0 and s1" in note
               for note in matrix.notes)  # fmt: skip
    learned = similarities(adapters, side="delta-A")
    assert learned.pairs[0].value < 0.5 < matrix.pairs[0].value
    unknown = of({"q": gaussian(9, 30, 2, seed=5)}, "u")
    matrix = similarities([*adapters, unknown])
    assert [pair.same_initial for pair in matrix.pairs] == [1, 0, None, 0, None, None]
    assert any("not stored with u:" in note for note in matrix.notes)
    with pytest.raises(ArgumentError, match="adapter 'u' does not hold it"):
        similarities([*adapters, unknown], side="delta-A")


def test_what_makes_no_sense_is_refused_in_words():
    x, y = groups(2)
    with pytest.raises(ArgumentError, match="1 adapter was given; a matrix is of 2 to 200"):
        similarities([x])
    with pytest.raises(ArgumentError, match="201 adapters were given"):
        similarities([x] * 201)
    with pytest.raises(ArgumentError, match="by is 'cosine'; it is one of phi, agreeing, distance"):
        similarities([x, y], by="cosine")
    with pytest.raises(ArgumentError, match="agreeing asks every direction"):
        similarities([x, y], by="agreeing", k=2)
    for k in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="counts directions, from 1"):
            similarities([x, y], k=k)
    with pytest.raises(ArgumentError, match="side is 'C'"):
        similarities([x, y], side="C")
    with pytest.raises(ArgumentError, match="probability"):
        similarities([x, y], level=0)
    with pytest.raises(ShapeError, match="cannot compare side A of 'q'"):
        similarities([of({"q": gaussian(9, d, 2)}, str(d)) for d in (9, 8)])
    bad = gaussian(9, 9, 2)
    bad.B[1, 1] = math.nan
    with pytest.raises(NonFiniteError, match="entries of B"):
        similarities([of({"q": u}, str(n)) for n, u in enumerate((gaussian(9, 9, 2), bad))])


def test_too_many_directions_at_once_are_refused_and_few_are_worked_off(monkeypatch):
    import subspace.measures.similarity.matrix as module

    whole = similarities(groups(5)).square()
    monkeypatch.setattr(module, "_AT_ONCE", 1)  # a chunk at a time
    assert_array_equal(similarities(groups(5)).square(), whole)
    monkeypatch.setattr(module, "_DIRECTIONS", 19)
    with pytest.raises(ArgumentError, match=r"5 adapters add up to 20 in 'h.0.q'.*give fewer"):
        similarities(groups(5))


def test_one_adapter_twice_is_told_apart_by_a_number():
    x, y = groups(2)
    matrix = similarities([x, y, x])
    assert matrix.adapters == ("run0", "run1", "run0 (2)")
    assert matrix.pair("run0 (2)", "run0").value == pytest.approx(1, abs=1e-12)


def test_each_adapter_is_decomposed_once(monkeypatch):
    import subspace.measures.similarity.matrix as module

    seen = []

    def counted(rows, *args):
        seen.extend(update for row in rows for update in row)
        return solve(rows, *args)

    solve = module.solve
    monkeypatch.setattr(module, "solve", counted)
    similarities(groups(5))
    assert len(seen) == 5 * 3


@pytest.mark.parametrize("side", SIDES[:4])
def test_plain_python_and_frames(side):
    adapters = groups(4)
    adapters[3] = zeroed(adapters[3], *adapters[3])
    told = []
    matrix = similarities(adapters, side=side, progress=told.append)
    assert sum(told) == 3
    plain = json.loads(json.dumps(matrix.to_dict(), allow_nan=False))
    assert (plain["kind"], plain["schema_version"]) == ("similarity-matrix", SCHEMA_VERSION)
    assert plain["pairs"][2]["value"] is None
    assert plain["pairs"][0]["value"] == matrix.pairs[0].value
    assert plain["clustered_on"] == "1 - phi"
    assert sorted(plain["order"]) == [0, 1, 2, 3]
    frame = matrix.to_frame()
    assert len(frame) == 6
    assert list(frame[["a", "b"]].iloc[1]) == ["run0", "run2"]
    assert repr(matrix) == f"SimilarityMatrix(4 adapters, by='phi', side='{side}')"


def test_accessors_refuse_what_is_not_there():
    pairs = tuple(
        PairSimilarity(
            adapters=p,
            value=0.1 * n,
            null_mean=0.0,
            largest=1.0,
            modules=1,
            undefined=0,
            significant=n,
            same_initial=None,
        )
        for n, p in enumerate(itertools.combinations("abcd", 2))
    )
    matrix = SimilarityMatrix(
        adapters=tuple("abcd"),
        by="phi",
        side="A",
        k=1,
        level=0.01,
        pairs=pairs,
        order=(3, 1, 0, 2),
        linkage=(),
    )
    for n, (a, b) in enumerate(itertools.combinations("abcd", 2)):
        assert matrix.pair(a, b) is matrix.pair(b, a) is pairs[n]
    there = matrix.square("significant", clustered=True)
    assert there[0, 1] == matrix.pair("d", "b").significant
    assert np.isnan(matrix.square("same_initial")).all()
    with pytest.raises(ArgumentError, match="no adapter 'z' in this matrix; it has 'a', 'b'"):
        matrix.pair("a", "z")
    with pytest.raises(ArgumentError, match="is one adapter"):
        matrix.pair(1, 1)
    with pytest.raises(ArgumentError, match="a pair has no 'phi'; it has value"):
        matrix.square("phi")
