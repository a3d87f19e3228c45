"""How a number is said: middles over modules, small values, counts beside the null."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Below this a p-value is printed as '< 1e-12': the null's tail is not known any better.
SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Middle:
    """The median of the finite values, and how many there were not.

    >>> str(Middle.of([0.5, 0.25, float("nan")]))
    '0.38 (undefined in 1)'
    """

    value: float
    missing: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Middle:
        """Take the median; NaN where no value is finite."""
        every = [float(v) for v in values]
        finite = [v for v in every if math.isfinite(v)]
        return cls(median(finite) if finite else math.nan, len(every) - len(finite))

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined in every module"
        return number(self.value) + (f" (undefined in {self.missing})" if self.missing else "")


def number(x: float) -> str:
    """Return two digits after the point, or two significant ones of a small number.

    >>> number(0.523), number(0.00261)
    ('0.52', '0.0026')
    """
    return f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.2g}"


def pvalue(p: float) -> str:
    """Return a p-value no smaller than its null is known.

    >>> pvalue(1e-30), pvalue(0.0312)
    ('< 1e-12', '0.031')
    """
    return "< 1e-12" if p < SMALLEST_P else f"{p:.2g}"


def modules(n: int) -> str:
    """Return a count of modules in words.

    >>> modules(1), modules(12)
    ('1 module', '12 modules')
    """
    return f"{n} module{'' if n == 1 else 's'}"


def of_modules(count: int, n: int) -> str:
    """Return in how many of some modules, in words that also fit a single one.

    >>> of_modules(3, 12), of_modules(0, 12), of_modules(1, 1), of_modules(0, 1)
    ('3 of 12 modules', 'none of 12 modules', 'the one module', 'no module')
    """
    if n == 1:
        return "the one module" if count else "no module"
    return f"{count} of {modules(n)}" if count else f"none of {modules(n)}"


def excess(value: float, chance: float) -> float:
    """Return 0 at chance, 1 at identity; NaN where chance alone gives 1.

    >>> excess(0.25, 0.25), excess(1.0, 0.25)
    (0.0, 1.0)
    """
    return (float(value) - float(chance)) / (1 - float(chance)) if chance < 1 else math.nan


def tail(count: int, of: int, chance: float) -> float:
    """P(at least `count` of `of` modules) where each is one by `chance`, independent modules.

    >>> tail(1, 2, 0.5)
    0.75
    """
    return sum(
        math.comb(of, k) * chance**k * (1 - chance) ** (of - k) for k in range(count, of + 1)
    )


def write_sentences(*parts: str) -> str:
    """Write a finding and what stands beside it as sentences, a part each; empty ones left out.

    >>> write_sentences("they agree in 3 of 4 modules", "", "; left out: 2")
    'They agree in 3 of 4 modules. Left out: 2.'
    """
    clean = [part.removeprefix("; ") for part in parts if part]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in clean)
