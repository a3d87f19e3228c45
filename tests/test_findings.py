"""Each outcome of each sentence, from results whose numbers are chosen."""

import dataclasses

import numpy as np
import pytest

from subspace.errors import printable
from subspace.findings import describe_similarity
from subspace.findings import similarity as words
from subspace.results import ModuleSimilarity, Similarity
from tests.support.results import fill_rest

D = 384


def module(name, *, agreeing=0, phi11=0.003, p=0.5, share=None, r_a=8, r_b=64, phi_end=None):
    """A module whose further directions lie within b by `share`."""
    i, j = np.ogrid[1 : r_a + 1, 1 : r_b + 1]
    mean = np.maximum(i, j) / D
    phi, pvalue = mean.copy(), np.full(mean.shape, 0.5)
    phi[0, 0], pvalue[0, 0] = phi11, p
    if phi_end is not None:
        phi[-1, -1], pvalue[-1, -1] = phi_end, 1e-9
    overlap = np.full(r_a, r_b / D if share is None else share)
    overlap[: agreeing or 0] = 0.95  # counted as agreeing: not part of the rest
    return fill_rest(
        ModuleSimilarity(
            module=name,
            side="A",
            d=D,
            rank_a=r_a,
            rank_b=r_b,
            numerical_rank_a=r_a,
            numerical_rank_b=r_b,
            phi=phi,
            error=np.zeros_like(phi),
            masked=np.zeros(phi.shape, dtype=bool),
            null_mean=mean,
            null_std=np.zeros_like(phi),
            pvalue=pvalue,
            agreeing=agreeing,
            overlap_a=overlap,
            overlap_b=np.full(r_b, r_a / D),
            method_a="cholesky",
            method_b="cholesky",
        )
    )


def untrained(name):
    bare = module(name)
    return dataclasses.replace(
        bare,
        agreeing=None,
        numerical_rank_a=0,
        phi=np.full_like(bare.phi, np.nan),
        pvalue=np.full_like(bare.phi, np.nan),
        note="untrained: the update of a is exactly zero, so it has no directions",
    )


def compared(modules, names=("r8", "r64"), **others):
    return Similarity(
        adapters=names, side="A", modules={m.module: m for m in modules}, level=0.01, **others
    )


def several(counts, **options):
    return [module(f"layer.{k}.q", agreeing=c, **options) for k, c in enumerate(counts)]


def seeds(counts, **options):
    return compared(several(counts, r_a=64, r_b=64, **options), ("r64", "r64-seed1"))


def test_shared_directions_carry_their_numbers_and_chance():
    first, _, _ = describe_similarity(
        compared(several([2] * 11 + [0], phi11=0.25, p=1e-30)), seeds([1] * 12)
    )
    assert first == (
        "In 11 of 12 modules 'r8' and 'r64' share leading directions above chance (level 0.01): "
        "a median of 2 of 8 (range 0 to 2). The median φ(1,1) is 0.25, where chance gives "
        "0.0026 (median p < 1e-12)."
    )


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        ([0, 0, 0, 0], "Nothing above chance: in none of 4 modules do 'r8' and 'r64' share"),
        ([1, 0, 0, 0], "Only in 1 of 4 modules"),
        ([1, 1, 0, 0], "In 2 of 4 modules"),  # MOST is reached
        ([0], "Nothing above chance: in no module do"),
    ],
)
def test_first_sentence_is_chosen_by_the_fraction_of_modules(counts, start):
    assert describe_similarity(compared(several(counts)), seeds([0]))[0].startswith(start)


def test_first_directions_that_lean_together_are_not_called_nothing():
    """phi(1, 1) = 0.07 is far from 1/d, and yet e_1 may not stand out from r_b/d."""
    leaning = several([0, 0, 0], phi11=0.07, p=1e-7)
    first = describe_similarity(compared(leaning), seeds([0]))[0]
    assert first.startswith(
        "In none of 3 modules do 'r8' and 'r64' share a whole leading direction"
    )
    assert "though the first ones lean together above chance in 3. The median" in first
    third = describe_similarity(compared(leaning), seeds([0, 0], phi11=0.07, p=1e-7))[2]
    assert "agree in a whole direction in none of 2 modules, though the first ones lean" in third
    barely = several([0] * 4, p=0.004)  # 0.01 of one module, not of four
    assert describe_similarity(compared(barely), seeds([0]))[0].startswith("Nothing above chance")


def at(excess):
    """The share that stands at this excess over chance."""
    return 64 / D + excess * (1 - 64 / D)


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (at(-2 * words.NEAR_CHANCE), "overlap less than chance gives"),
        (at(0), "are not told apart from chance"),
        (at(words.NEAR_CHANCE - 1e-6), "are close to chance"),
        (at(words.NEAR_CHANCE + 1e-6), "agree in part"),
        (at(words.AGREE_TOO - 1e-6), "agree in part"),
        (at(words.AGREE_TOO + 1e-6), "agree too"),
    ],
)
@pytest.mark.parametrize("shared", [0, 2])
def test_second_sentence_is_chosen_by_the_excess_of_the_rest(share, verdict, shared):
    second = describe_similarity(compared(several([shared] * 3, share=share)), seeds([0]))[1]
    subject = "Beyond those the" if shared else "Taken one by one the"
    assert second.startswith(f"{subject} directions of 'r8' {verdict}: ")
    assert "chance gives 0.17" in second


def test_second_sentence_counts_modules_above_chance_as_a_whole():
    modules = [*several([1, 1], phi_end=0.5), module("last", agreeing=1)]
    second = describe_similarity(compared(modules), seeds([0]))[1]
    assert "the median φ is 0.50, where chance gives 0.17 (p ≤ 0.01 in 2 of 3 modules)" in second


def test_no_rest_is_left_over():
    second = describe_similarity(compared(several([8, 8])), seeds([0]))[1]
    assert second.startswith(
        "No direction of 'r8' is left over: all of them agree with 'r64'. All against all"
    )
    second = describe_similarity(compared(several([8, 2])), seeds([0]))[1]
    assert "(1 module with none left not counted)" in second


def test_a_full_space_cannot_judge_the_rest():
    """r_b = d: everything lies within b, and chance gives 1."""
    second = describe_similarity(compared(several([1], r_b=D)), seeds([0]))[1]
    assert "cannot be judged, for they fill the space" in second


@pytest.mark.parametrize(
    ("two_ranks", "two_seeds", "said"),
    [
        ([2, 2], [0, 0], "agree above chance in none of 2 modules, fewer than the two ranks"),
        ([2, 2], [2, 2], "in 2 of 2 modules: 2 of 64 in each, about as many as"),
        ([2, 2], [3, 3], "more than the two ranks (median 3 against 2)"),
        ([2, 3], [2, 2], "about as many as the two ranks (median 2 against 2.5)"),
        ([0, 0], [0, 0], "as few as the two ranks (median 0 against 0)"),
        ([0, 0, 0], [1, 0, 0], "only in 1 of 3 modules"),
    ],
)
def test_third_sentence_relates_the_seeds_to_the_ranks(two_ranks, two_seeds, said):
    third = describe_similarity(compared(several(two_ranks)), seeds(two_seeds))[2]
    assert third.startswith("Two seeds at rank 64 ('r64' and 'r64-seed1') agree above chance")
    assert said in third
    assert "chance gives 0.0026" in third


def test_the_relation_rests_on_modules_that_both_define():
    ranks = compared([module("a", agreeing=1), untrained("b")])
    pair = compared([module("a", agreeing=3), module("b", agreeing=0)])
    assert "(median 3 against 1, on the 1 module of both)" in describe_similarity(ranks, pair)[2]
    apart = describe_similarity(compared([untrained("b")]), pair)[2]
    assert "which no module allows to compare" in apart
    assert "of several ranks" in apart


def test_untrained_is_undefined_and_says_why():
    every = compared([untrained("a"), untrained("b")])
    first, second, third = describe_similarity(every, every)
    assert first == (
        "Undefined: none of 2 modules has directions in both 'r8' and 'r64' "
        "(untrained: the update of a is exactly zero, so it has no directions)."
    )
    assert second.startswith("Undefined: ")
    assert third == first


def test_no_module_in_common():
    nothing = compared([])
    assert (
        describe_similarity(nothing, nothing)[0]
        == "Undefined: 'r8' and 'r64' have no module in common."
    )


def test_no_module_is_left_out_in_silence():
    ranks = compared([module("a", agreeing=1), untrained("b"), untrained("c")])
    first, second, third = describe_similarity(ranks, ranks)
    for sentence in (first, second, third):
        assert "Left out as undefined: 2 of 3 modules" in sentence
    masked = module("d", agreeing=1)
    masked.phi[0, 0] = masked.pvalue[0, 0] = np.nan  # tied singular values
    first = describe_similarity(compared([module("a", agreeing=1), masked]), ranks)[0]
    assert "The median φ(1,1) is 0.003 (undefined in 1)" in first
    first = describe_similarity(compared([masked]), ranks)[0]
    assert "The median φ(1,1) is undefined in every module, where chance gives 0.0026." in first


def test_the_initial_a_is_shown_and_a_common_start_is_cautioned_against():
    apart = compared(several([0, 0], phi11=0.004))
    first = describe_similarity(compared(several([1, 1]), initial=apart), seeds([1]))[0]
    assert first.endswith(" Between the initial A the median φ(1,1) was 0.004.")
    one = compared([module("a", phi11=1.0), module("b", phi11=0.004)])
    first = describe_similarity(compared(several([1, 1]), initial=one), seeds([1]))[0]
    assert "Caution: in 1 of 2 modules both had the same initial A" in first


def test_a_start_that_agrees_as_a_whole_alone_is_cautioned_against():
    """One seed at two ranks draws the same rows: phi(r_a, r_b) is 1 where phi(1, 1) is not."""
    nested = compared(several([0], phi11=0.01, phi_end=1.0))
    first = describe_similarity(compared(several([1]), initial=nested), seeds([1]))[0]
    assert "Caution: in 1 of 1 module both had the same initial A" in first
    full = compared(several([0], phi11=0.01, r_b=D, phi_end=1.0))  # there chance gives 1
    assert "Caution" not in describe_similarity(compared(several([1]), initial=full), seeds([1]))[0]


def test_undefined_initial_and_control_are_said():
    gone = compared([untrained("a")], ("r8", "shuffled"))
    first = describe_similarity(compared(several([1]), initial=gone, control=gone), seeds([1]))[0]
    assert " The control 'shuffled' is undefined. The initial A is undefined." in first


def test_the_control_stands_beside():
    control = compared(several([0, 0], phi11=0.015, p=0.2), ("r8", "shuffled"))
    first = describe_similarity(compared(several([2, 2], phi11=0.25), control=control), seeds([1]))[
        0
    ]
    assert (
        " With the control 'shuffled' the count is 0 of 8 in each, "
        "and the median φ(1,1) is 0.01" in first
    )


@pytest.mark.parametrize(("p", "said"), [(0.9e-12, "< 1e-12"), (1.1e-12, "1.1e-12"), (0.5, "0.5")])
def test_small_p_is_not_printed_beyond_what_is_known(p, said):
    assert f"(median p {said})" in describe_similarity(compared(several([1], p=p)), seeds([1]))[0]


def test_a_hostile_name_stays_on_one_printable_line():
    ranks = compared(several([1]), ("\x1b[31mr8\n", "r64"))
    for sentence in describe_similarity(ranks, ranks):
        assert sentence == printable(sentence)
