"""The tables of a sweep say what is counted: classes that are right, tokens, or whole texts."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from subspace.cli.sweep_table import echo_cells_csv, echo_table6, show_cells
from subspace.findings.table6 import describe_enough
from subspace.reports.tables import tabulate_table6
from subspace.results import SweepRow, Table6
from subspace.training import TrainConfig
from subspace.training.sweep.run import SweepRun
from subspace.training.sweep.summary import find_nearly_enough, make_table6
from tests.support.documents import held


def record(seed, **after):
    """A record as `train` writes it, of a task of writing if it has the accuracy of tokens."""
    word = "token_accuracy" if "token_accuracy" in after else "accuracy"
    look = {"step": 4, f"train_{word}": 0.61, f"validation_{word}": 0.52 + seed / 100}
    before = {"loss": 5.5, "accuracy": 0.0} | {"token_accuracy": 0.01} | {"generated": 7}
    before = {name: before[name] for name in after}
    return {
        "before": before, "after": after, "history": [look], "trainable_parameters": 9,
        "seconds": 3.0,
    }  # fmt: skip


def writing(rank, seed, exact, loss):
    config = TrainConfig(data="prompts.jsonl", rank=rank, seed=seed, targets=("q_proj", "v_proj"))
    done = record(seed, loss=loss, accuracy=exact, token_accuracy=0.7, generated=7)
    return SweepRun(folder=Path(f"w{rank}-{seed}"), config=config, record=done, reused=False)


def sorting(rank, seed, accuracy):
    config = TrainConfig(data="texts.csv", rank=rank, seed=seed)
    found = record(seed, loss=0.4, accuracy=accuracy)
    return SweepRun(folder=Path(f"s{rank}-{seed}"), config=config, record=found, reused=True)


WRITING = [writing(1, 0, 0.2, 1.5), writing(1, 1, 0.4, 1.25), writing(8, 0, 0.5, 1.125)]
FAILED = replace(writing(8, 1, 0, 0), record=None, error="no room")
SORTING = [sorting(1, 0, 0.75), sorting(8, 0, 0.875)]


def printed(capsys, write, *given):
    write(*given)
    return capsys.readouterr().out


def test_a_task_of_writing_counts_tokens_texts_and_loss(capsys):
    lines = printed(capsys, show_cells, [*WRITING, FAILED]).splitlines()
    assert " ".join(lines[0].split()) == (
        "run rank alpha seed lr steps train tokens validation tokens exact before exact after "
        "loss before loss after seconds"
    )
    assert lines[2].split()[-7:] == ["61.0%", "52.0%", "0.0%", "20.0%", "5.500", "1.500", "3"]
    assert lines[5].split()[-2:] == ["-", "failed"]
    assert (
        "exact: test texts whose whole completion is written, among 7 of them; loss: " in lines[7]
    )
    assert lines[-1] == "failed: w8-1: no room"


def test_a_reason_that_several_share_is_said_once(capsys):
    more = [replace(FAILED, folder=Path("other")), replace(FAILED, folder=Path("x"), error="heat")]
    lines = printed(capsys, show_cells, [*WRITING, FAILED, *more]).splitlines()
    assert lines[-2:] == ["failed: w8-1, other: no room", "failed: x: heat"]
    table = make_table6([*WRITING, FAILED])
    assert "no room" not in printed(capsys, echo_table6, table, "text")  # it is said above


def test_a_task_of_sorting_is_told_as_before(capsys):
    text = printed(capsys, show_cells, SORTING)
    assert " ".join(text.splitlines()[0].split()) == (
        "run rank alpha seed lr steps train validation test before after seconds"
    )
    assert "loss" not in text
    assert "tokens" not in text


def test_two_kinds_of_task_are_two_tables(capsys):
    text = printed(capsys, show_cells, [*SORTING, *WRITING])
    assert text.count("run ") == 2
    assert text.index("test before") < text.index("s8-0") < text.index("exact before")


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_table_6_has_a_column_for_what_is_counted(capsys, style):
    table = make_table6([*SORTING, *WRITING])
    lines = printed(capsys, echo_table6, table, style).splitlines()
    marks = {"text": None, "markdown": "|", "latex": "&"}[style]

    def cells(line):
        return [c.strip(" \\") for c in line.strip("| ").split(marks)] if marks else line.split()

    percent = "\\%" if style == "latex" else "%"
    head = next(n for n, line in enumerate(lines) if line.lstrip("| ").startswith("data"))
    assert cells(lines[head])[:3] == ["data", "adapted", "counted"]
    text = "\n".join(lines)
    (exact,) = (line for line in lines if f"exact match ({percent})" in line)
    assert "30.0 ± 14.1" in exact
    assert "50.0" in exact
    (loss,) = (line for line in lines if "token loss (nats)" in line)
    assert "1.375 ± 0.177" in loss
    assert "1.125" in loss
    (sorted_,) = (line for line in lines if "texts.csv" in line and f"accuracy ({percent})" in line)
    assert "87.5" in sorted_
    for paper in (line for line in lines if "paper: GPT-3" in line):
        assert f"accuracy ({percent})" in paper
    assert "test accuracy" not in text
    if style == "latex":
        assert lines[0] == r"\begin{tabular}{lllrr}"
    if style == "markdown":
        assert lines[1] == "| :-- | :-- | :-- | --: | --: |"


def test_table_6_of_sorting_alone_is_the_papers(capsys):
    lines = printed(capsys, echo_table6, make_table6(SORTING), "text").splitlines()
    assert lines[0] == "test accuracy in percent, mean ± standard deviation over seeds (Table 6)"
    assert lines[1].split() == ["data", "adapted", "r", "=", "1", "r", "=", "8"]
    assert printed(capsys, echo_table6, make_table6(SORTING), "latex").startswith(
        r"\begin{tabular}{llrr}"
    )


def test_columns_of_csv_are_named_by_what_they_count(capsys):
    def rows(cells):
        return list(csv.DictReader(io.StringIO(printed(capsys, echo_cells_csv, cells))))

    (first, *_, failed) = rows([*WRITING, FAILED])
    assert first["train_token_accuracy"] == "0.61"
    assert first["test_exact_match_after"] == "0.2"
    assert (first["test_loss_before"], first["test_loss_after"]) == ("5.5", "1.5")
    assert "train_accuracy" not in first
    assert failed["error"] == "no room"
    assert failed["test_exact_match_after"] == failed["train_token_accuracy"] == ""
    (one, _) = rows(SORTING)
    assert (one["test_accuracy_before"], one["test_accuracy_after"]) == ("0.0", "0.75")
    assert "exact" not in "".join(one)
    both = rows([*SORTING, *WRITING])
    assert both[0]["test_exact_match_after"] == both[-1]["test_accuracy_after"] == ""
    assert both[-1]["validation_token_accuracy"] == "0.52"


def test_a_row_that_failed_counts_what_others_of_its_data_count():
    (_, failed) = make_table6([WRITING[0], FAILED])
    assert (failed.test, failed.metric) == ((), "exact match")


def test_the_result_says_its_metric():
    table = make_table6([*SORTING, *WRITING])
    plain = held(json.loads(json.dumps(table.to_dict())))
    found = {(row["data"], row["rank"]): (row["metric"], row["loss"]) for row in plain["rows"]}
    assert found["prompts.jsonl", 1] == ("exact match", [1.5, 1.25])
    assert found["texts.csv", 8] == ("accuracy", [0.4])
    assert set(table.to_frame()["metric"]) == {"accuracy", "exact match"}


def test_a_report_says_what_its_table_counts():
    def caption(cells):
        return tabulate_table6(make_table6(cells)).caption.partition(" in percent")[0]

    assert caption(SORTING) == "Test accuracy"
    assert caption(WRITING) == "Test texts written exactly"
    assert caption([*SORTING, *WRITING]) == "Test accuracy, or texts written exactly,"


def test_runs_that_all_reached_the_same_tell_nothing_of_the_rank():
    def said(*tests):
        rows = tuple(
            SweepRow(
                data="d",
                method="lora",
                targets="q",
                rank=rank,
                alpha=16.0,
                learning_rate=1e-3,
                seeds=(0, 1),
                test=(test, test),
                validation=(),
                train=(),
                before=(),
                parameters=None,
            )
            for rank, test in zip((1, 8), tests, strict=True)
        )
        return describe_enough(find_nearly_enough(rows), Table6(rows, ()))

    assert said(0.0, 0.0) == "d, q: every run reached 0.0%, which tells nothing of the rank"
    assert said(0.0, 0.5) == "d, q: no smaller rank is nearly as good as r = 8"
