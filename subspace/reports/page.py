"""The report as one HTML file that needs nothing but a browser: no request, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from subspace.errors import printable
from subspace.reports.definitions import DEFINITIONS
from subspace.reports.payload import build_payload
from subspace.reports.tables import (
    tabulate_files,
    tabulate_matrix,
    tabulate_ranks,
    tabulate_table6,
)

if TYPE_CHECKING:
    from subspace.results import Report, Table6


SCRIPTS = ("explorer.js", "charts.js", "accuracy.js")


def html(report: Report, *, title: str = "") -> str:
    """Write the report as a page.

    Everything is in it: tables and findings as HTML, grids as compressed numbers, one script whose
    hash the page's own policy names, so that no other script could run. Names from files are text.

    Parameters
    ----------
    report
        What `subspace.report` returns.
    title
        Of the page; by default the adapters' names.

    Returns
    -------
    The same text for the same report.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from subspace.findings import describe_rank

    plain, grids = build_payload(report)
    script, style = "".join(map(_text, SCRIPTS)), _text("page.css")
    environment = Environment(
        loader=PackageLoader("subspace.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = printable
    return environment.get_template("page.html").render(
        title=title or ", ".join(source.name for source in report.sources),
        report=report,
        policy=_policy(script, style),
        script=script,
        style=style,
        data=_embedded(plain),
        grids=grids,
        compared=report.table(),
        read=tabulate_files(report),
        trained=report.trained,
        pairs=[pair.table().shortened() for pair in report.pairs],
        matrix=tabulate_matrix(report.pairs),
        ranks=tabulate_ranks(report.ranks),
        replicable=[
            (each.table().shortened(), describe_rank(each), each) for each in report.replicable
        ],
        amplifications=[each.table().shortened() for each in report.amplifications],
        sweep=None if report.sweep is None else _sweep(report.sweep),
        definitions=DEFINITIONS,
    )


def _text(name: str) -> str:
    return files("subspace.reports").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Let the browser run this script and this style, and nothing else from anywhere."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    ]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _embedded(plain: dict[str, Any]) -> str:
    """JSON that no reader of HTML takes for a tag, whatever names are in it."""
    text = json.dumps(plain, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sweep(table: Table6) -> dict[str, Any]:
    from subspace.reports import accuracy_chart as chart

    panels, why = chart.try_panels(table)
    return {
        "panels": panels,
        "why": why,
        "shapes": chart.SHAPES,
        "wide": chart.WIDE,
        "high": chart.HIGH,
        "left": chart.LEFT,
        "right": chart.RIGHT,
        "top": chart.TOP,
        "bottom": chart.BOTTOM,
        "table": tabulate_table6(table),
    }
