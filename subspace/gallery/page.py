"""README.md of the gallery: the paper's argument, retold with the numbers of this sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.files import replace_file
from subspace.findings.inheritance import SIDES
from subspace.results.numbers import percent
from subspace.results.render import markdown_table, markdown_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from subspace.adapters import Adapter
    from subspace.gallery.figures import Commands, Drawing
    from subspace.gallery.measure import GalleryResults
    from subspace.gallery.runs import ComparedAdapters
    from subspace.results import Amplification, Shared, SharedByRuns
    from subspace.training.sweep.run import SweepRun

PAGE = "README.md"

# What a task's texts are and whose; a user's own file is called by its name alone.
_TASKS = {
    "icd10": "`icd10` sorts a diagnosis text into its chapter of ICD-10-CM (a work of the US "
    "government)",
    "icd10-pairs": "`icd10-pairs` tells how two diagnosis titles stand in ICD-10-CM's hierarchy",
    "wikisql-agg": "`wikisql-agg`, a stand-in for text-to-SQL, tells the aggregation operator that "
    "a question of WikiSQL (Zhong et al. 2017, arXiv:1709.00103; BSD-3-Clause) asks for",
    "wikisql-sql": "`wikisql-sql` writes the query that a question of WikiSQL (Zhong et al. 2017, "
    "arXiv:1709.00103; BSD-3-Clause) asks for, from the question and the columns",
    "snli": "`snli` tells entailment, neutral and contradiction in pairs of SNLI (Bowman et al. "
    "2015, arXiv:1508.05326; CC BY-SA 4.0), which the bundled MiniLM was itself trained on",
}


def write_page(
    results: GalleryResults,
    runs: ComparedAdapters,
    drawn: Mapping[str, Drawing],
    trained: Sequence[SweepRun],
    out: Path,
    commands: Commands,
) -> None:
    """Write README.md into `out`."""
    findings = results.findings
    writes = _writes_texts(trained)
    shared_by_seed = "the order of texts" if writes else "the initial head and the order of texts"
    pages = (
        _write_head(trained, runs, commands),
        _write_section(
            "Beside the paper",
            "What Hu et al. 2021 ([arXiv:2106.09685](https://arxiv.org/abs/2106.09685)) found on "
            "GPT-3, and what these runs show. The verdict follows from the numbers by fixed rules "
            "(`subspace.findings.claims`), not by eye. A verdict is on what the paper says; where "
            "chance says the same, the number beside it shows that.",
            markdown_table(
                ["", "the paper", "here", ""],
                [[claim.where, claim.paper, claim.here, claim.verdict] for claim in results.claims],
                left=4,
            ),
        ),
        _find_rank(results, trained),
        _write_figures(drawn, "table6.png"),
        _write_section(
            "Which directions do two ranks share? (Figures 3 and 6)", _list(findings.ranks)
        ),
        _write_figures(drawn, "figure3.png", "figure6.png"),
        _write_section("Which do two seeds share? (Figures 4 and 7)", _list(findings.seeds)),
        _write_figures(drawn, "figure4.png", "figure7.png", "rank.png"),
        _write_section(
            "Learned or inherited?",
            "Medians over modules of φ(1, 1) and of the leading directions that agree above "
            f"chance. Runs of one seed share {shared_by_seed}"
            + ("; runs on shuffled labels saw the texts, not the task." if runs.controls else "."),
            markdown_table(*_write_shared(results.shared)),
            markdown_text(findings.shared),
            markdown_text(findings.moved),
        ),
        _write_section(
            "What does the update amplify? (Table 7, Figure 8)", _list(findings.amplified)
        ),
        (_write_table7(result) for result in results.table7),
        _write_figures(drawn, *(name for name in drawn if name not in _EARLIER)),
    )
    parts = [part for page in pages for part in page]
    text = "\n\n".join(parts) + "\n"
    replace_file(text.encode(), out / PAGE)


_EARLIER = ("table6.png", "figure3.png", "figure6.png", "figure4.png", "figure7.png", "rank.png")


def _write_section(title: str, *parts: str) -> Iterator[str]:
    yield f"## {title}"
    yield from parts


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _write_figures(drawn: Mapping[str, Drawing], *names: str) -> Iterator[str]:
    for name in names:
        figure = drawn[name]
        yield f"![{name}]({name})"
        yield f"`{name}`: {figure.words}"
        yield f"    {figure.command}"


def _write_head(
    trained: Sequence[SweepRun], runs: ComparedAdapters, commands: Commands
) -> Iterator[str]:
    from subspace.training.tasks.load import strip_folder

    records = [run.record for run in trained if run.record is not None]
    yield "# The argument of the LoRA paper, retold on this model"
    yield f"    {commands.command}"
    tasks = dict.fromkeys(
        f"{strip_folder(run.config.data)} in {run.config.steps} steps" for run in trained
    )
    threads = _list_distinct(record.get("threads") for record in records)
    made = (
        f"{_list_distinct(record['model']['name'] for record in records)}, task "
        f"{' and '.join(tasks)}, "
        f"seeds {', '.join(map(str, sorted({run.config.seed for run in trained})))}, on "
        f"{_list_distinct(record.get('device') for record in records)} with {threads} "
        f"thread{'' if threads == '1' else 's'} a run, torch "
        f"{_list_distinct((record.get('versions') or {}).get('torch') for record in records)}"
    )
    task_texts = dict.fromkeys(_TASKS.get(run.config.data.partition(":")[0]) for run in trained)
    about = "; ".join(text for text in task_texts if text)
    yield (
        f"wrote this page and every file beside it: {markdown_text(made)}. "
        f"Run again, it trains nothing that is there. The figures compare "
        f"{markdown_text(_names([runs.small, *runs.same_rank]))} "
        f"({markdown_text(f'{runs.task}, {runs.targets}')}){_write_controls(runs)}; the command "
        "under "
        "each but `table6.png` draws it alone, where this one ran."
    )
    if about:
        yield f"{about}."
    if commands.absent:
        yield (
            f"Not compared, for their records are here without the weights: "
            f"{markdown_text(', '.join(commands.absent))}. To train them again:"
        )
        yield "\n".join(f"    {command}" for command in commands.absent.values())


def _names(adapters: Sequence[Adapter]) -> str:
    *others, last = (adapter.name for adapter in adapters)
    return f"{', '.join(others)} and {last}" if others else last


def _write_controls(runs: ComparedAdapters) -> str:
    if not runs.controls:
        return ""
    return f" and, on shuffled labels, {markdown_text(_names(runs.controls))}"


def _list_distinct(values: Iterable[Any]) -> str:
    return " or ".join(str(v) for v in dict.fromkeys(values) if v is not None) or "unknown"


def _find_rank(results: GalleryResults, trained: Sequence[SweepRun]) -> Iterator[str]:
    from subspace.findings.table6 import set_beside_paper

    yield "## How much rank does the task need? (Table 6)"
    yield _list(results.findings.enough)
    yield markdown_table(*set_beside_paper(results.table))
    yield (
        f"{_metric(trained)} in percent, mean ± standard deviation over seeds; alpha is "
        f"{_find_alpha(trained)}{_only_rate(trained)}. Nearly enough is the smallest rank whose "
        "mean is "
        "within one standard error of the best, paired over seeds. The paper's figures are of "
        "GPT-3 on other tasks: what can be compared is how little the rows depend on r."
    )
    rates = _list_rates(results)
    if rates is not None:
        yield (
            "Where several learning rates were tried: accuracy on validation texts with the first "
            "seed. The one with an asterisk was used for every seed."
        )
        yield markdown_table(*rates)
        if results.findings.rates:
            yield markdown_text(results.findings.rates)


def _writes_texts(trained: Sequence[SweepRun]) -> bool:
    """Whether the task is to write a text, and accuracy the share that is written exactly."""
    from subspace.training.sweep.run import writes_texts

    return any(writes_texts(run.record) for run in trained)


def _metric(trained: Sequence[SweepRun]) -> str:
    if not _writes_texts(trained):
        return "Test accuracy"
    texts = _list_distinct((run.record or {}).get("after", {}).get("generated") for run in trained)
    losses = [
        f"r = {run.config.rank}, seed {run.config.seed}: {run.record['after']['loss']:.3f}"
        for run in trained
        if run.record is not None and not run.config.shuffle_labels
        if run.record["after"].get("loss") is not None
    ]
    return f"Loss on test texts: {'; '.join(losses)}. Exact matches among {texts} test texts"


def _only_rate(trained: Sequence[SweepRun]) -> str:
    rates = {run.config.learning_rate for run in trained}
    return f", the learning rate {rates.pop():g}" if len(rates) == 1 else ""


def _find_alpha(trained: Sequence[SweepRun]) -> str:
    lora = sorted(
        {(c.config.rank, c.config.lora_alpha) for c in trained if c.config.method == "lora"}
    )
    if len({alpha for _, alpha in lora}) == 1:
        return f"{lora[0][1]:g} at every rank"
    return ", ".join(f"{alpha:g} at r = {rank}" for rank, alpha in lora)


def _list_rates(results: GalleryResults) -> tuple[list[str], list[list[str]]] | None:
    rows = [row for row in results.table if row.searched]
    if not rows:
        return None
    tried = sorted({rate for row in rows for rate, _ in row.searched})
    header = ["data", "adapted", "rank", *(f"lr {rate:g}" for rate in tried)]
    lines = []
    for row in rows:
        accuracy = dict(row.searched)
        cells = [
            "-"
            if rate not in accuracy
            else percent(accuracy[rate]) + ("*" if rate == row.learning_rate else "")
            for rate in tried
        ]
        name = row.targets if row.rank is not None else f"{row.method} (reference)"
        lines.append([row.data, name, "-" if row.rank is None else str(row.rank), *cells])
    return header, lines


def _write_shared(pairs: Sequence[SharedByRuns]) -> tuple[list[str], list[list[str]]]:
    """Return the header and a row for each pair of runs."""
    header = ["runs", *(f"side {side}" for side in SIDES), "initial A"]
    rows = [
        [
            " and ".join(p.runs),
            *(_write_words(p.sides[side]) for side in SIDES),
            _write_words(p.initial),
        ]
        for p in pairs
    ]
    return header, rows


def _write_words(shared: Shared | None) -> str:
    if shared is None:
        return "-"
    first = f"{shared.phi:.3f}" if shared.phi == shared.phi else "undefined"
    return first + (f"; {shared.agreeing:g}" if shared.agreeing == shared.agreeing else "")


def _write_table7(result: Amplification) -> str:
    name = markdown_text(f"{result.adapter} of {result.base}")
    return f"{name}:\n\n{result.to_markdown()}"
