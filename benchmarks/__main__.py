"""Run a benchmark: ``python -m benchmarks pair-7b``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import base_7b, calibration, page, pair_7b, synthetic
from benchmarks.printing import base_table, page_table, table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name",
        choices=["pair-7b", "pair-minilm", "base-7b", "page", "rates", "accuracy"],
    )
    parser.add_argument(
        "--layers", type=int, help="how many layers (default: all of the model's; base-7b: 2)"
    )
    parser.add_argument("--hidden", type=int, help="the model's width instead of the real one")
    parser.add_argument("--inner", type=int, help="the width of a 7B model's mlp (default 11008)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out-dir", type=Path, help="keep the adapters here and use them again")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions; the best counts")
    parser.add_argument("--draws", type=int, default=400_000, help="of rates (default 400000)")
    parser.add_argument("--cases", type=int, default=60, help="of accuracy (default 60 a kind)")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense SVD out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--paste", type=Path, help="put the table between its marks in this file")
    chosen = parser.parse_args(arguments)
    given = {
        name: getattr(chosen, name)
        for name in ("layers", "hidden", "inner")
        if getattr(chosen, name) is not None
    }
    if chosen.name in ("rates", "accuracy"):
        report(chosen)
        return
    if chosen.name == "pair-minilm":
        if "inner" in given:
            parser.error("--inner is an option of the 7B shapes")
        family = synthetic.minilm(dtype=chosen.dtype, **given)
    else:
        few = {"layers": 2} if chosen.name == "base-7b" else {}
        family = synthetic.llama_7b(dtype=chosen.dtype, **few | given)
    options = {"out_dir": chosen.out_dir, "repeat": chosen.repeat}
    if chosen.name == "base-7b":
        out = base_7b.run(family, **options)
        text = base_table(out)
    elif chosen.name == "page":
        out = page.run(family, **options)
        text = page_table(out)
    else:
        out = pair_7b.run(family, **options, dense=not chosen.no_dense)
        text = table(out)
    if chosen.paste is not None:
        paste(chosen.name, text, chosen.paste)
    print(json.dumps(out, indent=1, allow_nan=False) if chosen.json else text)


def report(chosen: argparse.Namespace) -> None:
    """Measure what is no matter of time: rates of p-values, errors of phi."""
    if chosen.name == "rates":
        out = calibration.measure_rates(chosen.draws)
        text = calibration.rates_table(out)
    else:
        out = calibration.measure_accuracy(chosen.cases)
        text = calibration.accuracy_table(out)
    if chosen.paste is not None:
        paste(chosen.name, text, chosen.paste)
    print(json.dumps(out, indent=1, allow_nan=False) if chosen.json else text)


def paste(name: str, text: str, file: Path) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``.

    A table of Markdown stands there as it is, all else as plain text.
    """
    block = text if text.startswith("|") else f"```text\n{text}\n```"
    before, mark, rest = file.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->")
    if not mark or not end:
        raise SystemExit(f"{file}: no marks <!-- {name} --> and <!-- end {name} -->")
    file.write_text(f"{before}{mark}\n{block}\n\n{end}{after}")


if __name__ == "__main__":
    main()
