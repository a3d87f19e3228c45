"""How a reader sees a number, a p-value, a count: here alone. Undefined is a dash everywhere."""

from __future__ import annotations

from typing import Any

UNDEFINED = "-"


def is_undefined(value: object) -> bool:
    """Whether a value is None or NaN.

    >>> is_undefined(None), is_undefined(float("nan")), is_undefined("")
    (True, True, False)
    """
    return value is None or bool(value != value)


def number(value: object, *, digits: int = 3, decimals: int | None = None) -> str:
    """Return a number of so many significant digits, or of so many decimals; any other as text.

    A whole number keeps all its digits, with commas between thousands.

    >>> number(0.12345), number(1234567), number(0.5, decimals=3), number(float("nan"))
    ('0.123', '1,234,567', '0.500', '-')
    """
    if is_undefined(value):
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if hasattr(value, "item"):
        return number(value.item(), digits=digits, decimals=decimals)
    if isinstance(value, float):
        return f"{value:.{digits}g}" if decimals is None else f"{value:.{decimals}f}"
    return str(value)


def pvalue(p: Any, *, least: float = 1e-12) -> str:  # noqa: ANN401 - a number, numpy's too, or None
    """Return a p-value: two significant digits, down to what the null's tail is known to.

    >>> pvalue(0.45), pvalue(0.5), pvalue(0.00123), pvalue(0.0000451), pvalue(1e-30)
    ('0.45', '0.50', '0.0012', '4.5e-05', '< 1e-12')
    """
    if is_undefined(p):
        return UNDEFINED
    return f"< {least:.0e}".replace("e-0", "e-") if p < least else f"{p:#.2g}"


def percent(share: Any) -> str:  # noqa: ANN401 - a number, numpy's too, or None
    """Return a share in percent.

    >>> percent(0.1234), percent(None)
    ('12.3%', '-')
    """
    return UNDEFINED if is_undefined(share) else f"{share:.1%}"


def of(count: object, most: object) -> str:
    """Return a count out of so many.

    >>> of(2, 8), of(None, 8)
    ('2/8', '-')
    """
    return UNDEFINED if is_undefined(count) else f"{number(count)}/{number(most)}"


def with_range(middle: str, low: str, high: str) -> str:
    """Return a number with its range.

    >>> with_range("3", "2", "5"), with_range("-", "-", "-")
    ('3 (2-5)', '-')
    """
    return middle if middle == UNDEFINED else f"{middle} ({low}-{high})"


def significant(text: str, finding: bool | None) -> str:
    """Return a number with a star where it is significant.

    >>> significant("0.123", True), significant("0.5", None)
    ('0.123*', '0.5')
    """
    return f"{text}*" if finding else text
