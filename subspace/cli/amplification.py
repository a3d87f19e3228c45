"""``subspace amplification ADAPTER --base MODEL``: Table 7, against chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli import options
from subspace.cli.printing import (
    common_path,
    echo_csv,
    echo_json,
    echo_latex,
    echo_markdown,
    echo_table,
    progress,
    say,
)
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from subspace.pretrained import Pretrained
    from subspace.results import Amplification, ModuleAmplification


def _ranks(_ctx: click.Context, _param: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise click.BadParameter("write whole numbers, such as 1,2,4,8") from error


HEADER = (
    "module", "r", "|W|", "|ΔW|", "in ΔW", "in W", "random", "factor", "by chance", "x chance",
)  # fmt: skip


@click.command()
@click.argument("path", metavar="ADAPTER", type=click.Path(path_type=Path))
@options.BASE
@options.MODULE
@click.option(
    "--ranks", callback=_ranks, metavar="K[,K…]", help="Truncate the update to its leading K."
)
@click.option("--unscaled", is_flag=True, help="Leave alpha / r out of delta W.")
@click.option("--directions", is_flag=True, help="One line a direction: sigma, w, ratio, gain.")
@click.option("--seed", default=0, show_default=True, help="Of the random directions drawn.")
@options.JSON
@click.option("--csv", "as_csv", is_flag=True, help="Write one line a module and rank.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Write Table 7 for a model card.")
@click.option("--latex", "as_latex", is_flag=True, help="Write Table 7 for a paper (booktabs).")
@click.option(
    "--out",
    metavar="FIG",
    type=click.Path(path_type=Path),
    help="Draw W, delta W and their sum along each direction of one module.",
)
@options.DEVICE
def command(
    path: Path,
    base: str,
    modules: str | None,
    ranks: list[int] | None,
    unscaled: bool,
    directions: bool,
    seed: int,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    as_latex: bool,
    out: Path | None,
    device: str,
) -> None:
    """How much of W lies in the directions of delta W? Table 7 of the LoRA paper, against chance.

    The factor is |delta W| / |U^T W V|, U and V the singular vectors of delta W. A large one alone
    proves nothing, since a random delta W has a larger one still: "x chance" says how many times
    more of W the update meets than a random one, and a star marks it where it is outside the
    central 95 % of chance.

    \b
        subspace amplification data/adapters/r8 --base minilm
        subspace amplification runs/r8 --base ./my-model --module '*.value' --ranks 1,2,4,8
        subspace amplification runs/r8 --base ./my-model --module '*.3.*.query' --out gains.png
        subspace amplification runs/r8 --base ./my-model --json | jq '.modules[].quotient'
    """  # noqa: D301 - click wants the real character
    if as_json + as_csv + as_markdown + as_latex + directions > 1:
        raise ArgumentError(
            "--json, --csv, --markdown, --latex and --directions all write to stdout; choose one"
        )
    if out is not None:
        from subspace.plots.save import check

        check(out)
    from subspace.adapters import load
    from subspace.measures.amplification import amplification

    adapter = load(path)
    checkpoint = open_base(base)
    with progress("projecting", len(adapter.select(modules))) as at:
        result = amplification(
            adapter,
            checkpoint,
            ranks=ranks,
            modules=modules,
            scaled=not unscaled,
            seed=seed,
            device=device,
            progress=at,
        )
    if out is not None:
        from subspace.plots.gains import gains_figure
        from subspace.plots.save import save

        save(gains_figure(result), out)
    if as_json:
        echo_json(result.to_dict())
    elif as_csv:
        rows = [row.to_dict() for row in result]
        names = [n for n in rows[0] if n not in ("directions", "shape")]
        echo_csv(names, [["" if row[n] is None else row[n] for n in names] for row in rows])
    elif as_markdown:
        echo_markdown(HEADER, _rows(result))
    elif as_latex:
        echo_latex(HEADER, _rows(result))
    elif directions:
        _show_directions(result)
    else:
        show(result)


def open_base(base: str) -> Pretrained:
    """Open the checkpoint that ``--base`` names."""
    from subspace.pretrained import open_pretrained

    if base == "minilm":
        from subspace.training.models import find_model

        embedded = find_model(base)
        opened = open_pretrained(Path(embedded.location))
        return replace(opened, name=embedded.name.split("/")[-1])  # the folder is called "model"
    return open_pretrained(Path(base))


def _head(result: Amplification) -> str:
    scale = "with" if result.scaled else "without"
    say(f"amplification by {result.adapter} of {result.base}, delta W {scale} its scale alpha/r")
    above = common_path([row.module for row in result])
    if above:
        say(f"modules of {above}")
    return above


def show(result: Amplification) -> None:
    """Print Table 7 with what chance gives."""
    above = _head(result)
    echo_table(HEADER, _rows(result, above))
    say("in X: |U^T W V| with U, V from delta W, from W's own top r, from random directions")
    say("x chance: how many times more of W than a random update meets; * outside its central 95 %")
    for row in result:
        if row.note:
            say(f"note: {row.module}: {row.note}")


def _rows(result: Amplification, above: str = "") -> list[list[str]]:
    return [
        [
            row.module.removeprefix(f"{above}."),
            str(row.rank),
            _number(row.w_norm),
            _number(row.delta_norm),
            _number(row.w_in_delta),
            _number(row.w_in_w),
            _number(row.w_in_random),
            _number(row.factor),
            _by_chance(row),
            _times(row),
        ]
        for row in result
    ]


def _show_directions(result: Amplification) -> None:
    above = _head(result)
    rows = []
    for row in result:
        for k, d in enumerate(row.directions, start=1):
            cells = [_number(x) for x in (d.sigma, d.w, row.w_by_chance, d.ratio, d.gain)]
            rows.append([row.module.removeprefix(f"{above}."), str(k), *cells])
    echo_table(["module", "k", "sigma", "w", "|w| by chance", "sigma/|w|", "gain"], rows)
    say("w = u_k^T W v_k; gain = 1 + sigma/w: what W does along it is multiplied by this")


def _by_chance(row: ModuleAmplification) -> str:
    if row.chance_factor != row.chance_factor:
        return "-"
    return f"{row.chance_factor:.3g} ({row.chance_low:.3g}-{row.chance_high:.3g})"


def _times(row: ModuleAmplification) -> str:
    return "-" if row.finding is None else f"{row.quotient:.2f}{'*' if row.finding else ' '}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3g}"
