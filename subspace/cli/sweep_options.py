"""What ``subspace train`` reads as lists, and a TOML file in the place of its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path


def read_numbers(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> list[int]:
    """Flatten ``--ranks 1,8 --rank 64`` to numbers, each once, in the order given."""
    try:
        return list(dict.fromkeys(int(part) for text in given for part in text.split(",")))
    except ValueError as error:
        raise click.BadParameter("write a whole number, or a list such as 1,8,64") from error


def read_rates(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """Read ``--lr 2e-3,4e-3 --lr full:1e-4`` by method."""
    rates: dict[str, tuple[float, ...]] = {}
    try:
        for text in given:
            method, colon, numbers = text.rpartition(":")
            key = method if colon else "lora"
            rates[key] = tuple(dict.fromkeys(float(part) for part in numbers.split(",")))
    except ValueError as error:
        raise click.BadParameter("write numbers, as in 2e-3,4e-3 or full:1e-4,3e-4") from error
    if wrong := sorted(set(rates) - {"lora", "full", "head"}):
        raise click.BadParameter(f"no method {wrong[0]!r}; there are lora, full and head")
    return rates


def read_file(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Let a TOML file say what the command line does not."""
    if path is None:
        return
    from subspace.training.sweepfile import read_sweep
    from subspace.training.targets import typed

    found = read_sweep(path)
    for axis in ("ranks", "seeds"):
        if axis in found:
            found[axis] = [",".join(map(str, _listed(found[axis])))]
    if "targets" in found:
        sets = _listed(found["targets"])
        sets = sets if any(isinstance(each, list) for each in sets) else [sets]
        found["targets"] = [typed([str(one) for one in _listed(each)]) for each in sets]
    if "lr" in found:
        rates = found["lr"] if isinstance(found["lr"], dict) else {"lora": found["lr"]}
        found["lr"] = [f"{m}:{','.join(map(str, _listed(each)))}" for m, each in rates.items()]
    for axis in ("data", "references"):
        if axis in found:
            found[axis] = _listed(found[axis])
    ctx.default_map = {**(ctx.default_map or {}), **found}


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - as TOML has it
    return value if isinstance(value, list) else [value]
