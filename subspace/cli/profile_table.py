"""What ``subspace placement --profile`` prints: delta W's energy over W's whole singular index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from subspace.cli.shared import hints, options
from subspace.cli.shared.printing import common_path, echo_table, say
from subspace.cli.shared.progress import progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from matplotlib.figure import Figure

    from subspace.adapters import Adapter
    from subspace.cli.shared.output import FigureStyle, Output
    from subspace.pretrained import Pretrained
    from subspace.results import ModuleProfile, Profile

_NOTED = 1024**3  # cubed dimensions, added up: about a second of work
COLUMNS = ("sigma", "energy", "cumulative", "error", "chance", "chance_low", "chance_high")


def refuse_others() -> None:
    """Refuse the options of Figure 8, which a profile has no use for."""
    given = [name for name in ("top", "figure") if options.given(name)]
    if given:
        raise ArgumentError(
            f"--{', --'.join(given)} chooses a part of W's directions and its figure; --profile "
            "takes them all and has one figure: leave it out"
        )


def run(
    adapter: Adapter,
    base: Pretrained,
    *,
    side: Literal["in", "out"],
    modules: str | None,
    device: str,
    output: Output,
) -> None:
    """Compute, say beforehand how long it takes, and write."""
    from subspace.measures.placement.profile import profile

    infos = adapter.select(modules).updates
    _announce([info.shape for info in infos.values()], device)
    with progress("decomposing W", len(infos)) as advance:
        result = profile(adapter, base, side=side, modules=modules, device=device, progress=advance)

    def draw(style: FigureStyle) -> Figure:
        from subspace.plots.profile import profile_figure

        return profile_figure(result, width=style.width)

    output.emit(
        json=result.to_dict,
        csv=lambda: (("module", "k", *COLUMNS), _lines(result)),
        show=lambda: show(result),
        draw=draw,
        next_commands=[hints.again("--out", "profile.png")],
    )


def _announce(shapes: list[tuple[int, int]], device: str) -> None:
    smaller = [min(shape) for shape in shapes]
    if sum(n**3 for n in smaller) < _NOTED:
        return
    from subspace.measures.placement.profile import estimate_seconds

    n, seconds = max(smaller), estimate_seconds(shapes, device=device)
    grams = f"{len(shapes)} Grams up to" if len(shapes) > 1 else "a Gram of"
    about = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    click.echo(f"profile: eigh of {grams} {n} x {n}, about {about}", err=True)


def show(result: Profile) -> None:
    """Print one line a module, and what a reader must know to read it."""
    words = {"in": "right", "out": "left"}[result.side]
    say(
        f"energy of {result.adapter} over the {words} singular vectors of W of {result.base}, "
        f"side {result.side}"
    )
    above = common_path(list(result))
    if above:
        say(f"modules of {above}")
    ranks = {m.rank for m in result.values()}
    heads = (f"top {next(iter(ranks))}" if len(ranks) == 1 else "top r", "top 10%")
    pairs = [(m.top, m.tenth) for m in result.values()]
    # A chance that all modules share is said once: the table is to fit into 80 columns.
    levels = [{f"{pair[n].chance:.3f}" for pair in pairs} for n in (0, 1)]
    alike = [next(iter(level)) if len(level) == 1 else "" for level in levels]
    header = ["module", "of d"]
    for head, same in zip(heads, alike, strict=True):
        header += [head, "p"] if same else [head, "chance", "p"]
    rows = []
    for (name, m), pair in zip(result.items(), pairs, strict=True):
        row = [name.removeprefix(f"{above}."), f"{m.resolved}/{m.d}"]
        for top, same in zip(pair, alike, strict=True):
            row += [_share(top.energy), *([] if same else [f"{top.chance:.3f}"]), _p(top.p)]
        rows.append([*row, _median(m), _p(m.median_p)])
    echo_table([*header, "half at", "p"], rows)
    said = [f"{head} {same}" for head, same in zip(heads, alike, strict=True) if same]
    by_chance = f"; chance: {', '.join(said)}" if said else ""
    say(f"top: share of the energy in W's leading directions{by_chance}")
    say("half at: k/d within which half of the energy lies, by chance 0.5; p: two-sided")
    say("of d: directions of W told apart from zero, of all on this side")
    for name, m in result.items():
        if m.note:
            say(f"note: {name}: {m.note}")


def _median(m: ModuleProfile) -> str:
    if m.resolved and m.median != m.median:
        return "-".join(f"{k / m.d:.2f}" for k in m.median_between)
    return _share(m.median)


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _p(value: float) -> str:
    # The null's own tail is an order of magnitude there: see `subspace.chance.energy_pvalue`.
    return "-" if value != value else "< 1e-4" if value < 1e-4 else f"{value:.1g}"


def _lines(result: Profile) -> Iterable[list[object]]:
    for name, m in result.items():
        plain = m.to_dict()
        plain["sigma"] += [None] * (m.d - len(m.sigma))
        plain["chance"] = [k / m.d for k in range(1, m.d + 1)]
        for k in range(m.d):
            values = [plain[column][k] for column in COLUMNS]
            yield [name, k + 1, *values]
