"""Each outcome of the sentence on amplification, from results with known numbers."""

import math
from dataclasses import replace

import pytest

from subspace.findings import describe_amplification
from subspace.findings.amplification import OUTSIDE, TOO_MANY, describe_crossing
from subspace.findings.numbers import tail
from subspace.results import Amplification, ModuleAmplification


def row(n, factor, *, chance=20.0, low=16.0, high=25.0):
    return ModuleAmplification(
        module=f"layer.{n}.q", rank=8, shape=(9, 7), w_norm=3.0, delta_norm=2.0,
        w_in_delta=0.1, w_in_w=2.0, w_in_w_error=0.0, w_in_w_method="gram", w_in_random=0.1,
        factor=factor, null_factor=chance,
        null_low=low, null_high=high, null_drawn=False, null_w=0.1, directions=(),
    )  # fmt: skip


def table(*factors, name="r8"):
    return Amplification(
        adapter=name,
        base="base",
        scaled=True,
        seed=0,
        rows=tuple(row(n, f) for n, f in enumerate(factors)),
    )


def test_within_chance():
    said = describe_amplification([table(19.0, 21.0, 18.0, 24.0)])
    assert "neither more nor less than a random update in any of 4 modules (0.2 expected" in said
    assert "median factor 20 where chance gives 20" in said
    assert said.endswith("A random update of that norm has factors like these.")


def test_one_in_many_is_what_chance_puts_outside():
    said = describe_amplification([table(*[20.0] * 19, 10.0)])
    assert "more than a random update in 1 of 20 modules (1 expected by chance)" in said
    assert said.endswith("has factors like these.")


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((10.0, 9.0, 8.0, 20.0), "more than a random update in 3 of 4 modules"),
        ((30.0, 40.0, 50.0, 20.0), "less than a random update in 3 of 4 modules"),
        (
            (10.0, 9.0, 40.0, 50.0),
            "more than a random update in 2 and less than a random update in 2 of 4 modules",
        ),
    ],
)
def test_outside_chance(factors, words):
    said = describe_amplification([table(*factors)])
    assert words in said
    assert said.endswith("so many modules outside chance are not by chance.")


def test_two_adapters_in_one_finding():
    said = describe_amplification([table(20.0), table(1.0, 2.0, name="r64")])
    assert "'r8' meets neither" in said
    assert ". 'r64' meets more than a random update in 2 of 2 modules" in said
    assert said.endswith("so many modules outside chance are not by chance.")


def test_untrained_and_left_out():
    assert describe_amplification([table(math.nan, math.nan)]) == (
        "Of W's directions, 'r8' has no factor in any of its 2 modules. "
        "Nothing was added, so there is nothing to amplify."
    )
    assert "1 without a factor left out" in describe_amplification([table(20.0, math.nan)])


def test_the_number_that_chance_puts_outside_is_binomial():
    assert tail(0, 7, OUTSIDE) == pytest.approx(1.0)
    assert tail(1, 7, OUTSIDE) == pytest.approx(1 - 0.95**7)
    assert tail(2, 12, OUTSIDE) > TOO_MANY > tail(3, 12, OUTSIDE)


def test_a_small_factor_is_not_called_large_and_one_module_not_many():
    tiny = describe_amplification([table(2.5e-5)])
    assert "large" not in tiny.lower()
    assert "so many modules" not in tiny
    assert tiny.endswith("but this module lies outside chance.")


def curve(*factors):
    return [replace(row(0, factor), rank=k) for k, factor in enumerate(factors, 1)]


def test_where_a_curve_crosses_chance_for_good():
    """Above the null's range the update meets less of W than a random one."""
    said = describe_crossing(curve(10.0, 20.0, 30.0, 40.0))
    assert said == "The update of layer.0.q meets less of W than a random one from k = 3 on."
    assert describe_crossing(curve(30.0, 10.0)) == ""  # not for good
    assert describe_crossing(curve(10.0, 20.0)) == ""
    assert describe_crossing(curve(30.0, 30.0)).endswith("from k = 1 on.")


def test_at_rank_one_the_level_is_called_a_root_mean_square():
    one = replace(table(20.0), rows=(replace(row(0, 20.0), rank=1),))
    assert any("at r = 1 the null" in line for line in one.table().legend)
    assert not any("at r = 1 the null" in line for line in table(20.0).table().legend)
