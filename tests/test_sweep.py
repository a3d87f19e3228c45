"""A grid of runs: none twice, a killed one goes on to the same bytes, a failed one stops none."""

import json
import shlex
from dataclasses import replace

import click
import pytest
import torch

from subspace.cli import main
from subspace.errors import ArgumentError
from subspace.findings.table6 import describe_enough
from subspace.results import SweepRow, Table6
from subspace.training import Sweep, TrainConfig, run_sweep, train
from subspace.training.sweep.file import NOT_OF_A_SWEEP
from subspace.training.sweep.run import SweepRun
from subspace.training.sweep.summary import find_nearly_enough, make_table6
from tests.support.decoders import write_tokenizer
from tests.support.tiny_world import tiny_config, write_world
from tests.support.verbs import run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def config(world):
    return tiny_config(world)


def grid(config, **axes):
    options = {
        "data": (config.data,), "targets": (("query",), ("query", "value")), "ranks": (1, 2),
        "seeds": (0, 1),
    } | axes  # fmt: skip
    return Sweep(options=config, **options)


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    sweep = grid(config, references=("full", "head"))
    return sweep, out, run_sweep(sweep, out)


def contents(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != "training.json"}


def test_every_cell_of_the_grid_is_a_folder(swept):
    sweep, out, cells = swept
    assert sweep.runs == len(cells) == 2 * (4 + 2)
    assert all(cell.record is not None and not cell.reused for cell in cells), cells
    places = {cell.folder.relative_to(out).as_posix() for cell in cells}
    assert "texts.jsonl/query+value/r2-seed1" in places
    assert "texts.jsonl/full-seed0" in places
    for cell in cells:
        names = {p.name for p in cell.folder.iterdir()}
        assert "training.json" in names
        assert {"lora": "initial_A.safetensors", "full": "model.safetensors",
                "head": "head.safetensors"}[cell.config.method] in names  # fmt: skip
    assert [p.name for p in out.rglob(".*")] == []


def test_a_reference_trains_what_its_name_says(swept):
    _, _, cells = swept
    trained = {cell.config.method: cell.record["trainable_parameters"] for cell in cells}
    assert trained["head"] < trained["lora"] < trained["full"]
    head = next(cell for cell in cells if cell.config.method == "head")
    from safetensors.torch import load_file

    assert set(load_file(head.folder / "head.safetensors")) == {
        "classifier.weight",
        "classifier.bias",
    }
    assert head.record["scale"] is None


def test_a_finished_cell_is_never_trained_again(swept):
    sweep, out, cells = swept
    before = {cell.folder: (cell.folder / "training.json").stat().st_mtime_ns for cell in cells}
    again = run_sweep(sweep, out)
    assert all(cell.reused for cell in again)
    assert {c.folder: (c.folder / "training.json").stat().st_mtime_ns for c in again} == before
    assert make_table6(again).to_dict() == make_table6(cells).to_dict()


def test_processes_side_by_side_train_the_same(swept, tmp_path, config):
    _, out, _ = swept
    threads = torch.get_num_threads()
    small = grid(config, targets=(("query",), ("query", "value")), ranks=(2,), seeds=(0,))
    cells = run_sweep(small, tmp_path, jobs=2)
    assert torch.get_num_threads() == threads
    assert [cell.error for cell in cells] == ["", ""]
    for cell in cells:
        assert contents(cell.folder) == contents(out / cell.folder.relative_to(tmp_path))


def test_two_runs_of_one_folder_are_refused(config, world, tmp_path):
    """One would be trained, and stand in the table for the other too."""
    other = tmp_path / "other" / "texts.jsonl"
    other.parent.mkdir()
    other.write_text((world / "texts.jsonl").read_text().replace("old", "new"))
    for axes in ({"data": (config.data, str(other))}, {"targets": ("re:.*query", "re-.-query")}):
        with pytest.raises(ArgumentError, match=r"in one folder, .*r1-seed0: two data sets"):
            run_sweep(grid(config, **axes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_cell_is_reported_and_stops_no_other(config, tmp_path):
    sweep = grid(config, targets=(("nothing",), ("query",)), ranks=(1,), seeds=(0,))
    wrong, right = run_sweep(sweep, tmp_path)
    assert wrong.record is None
    assert "nothing" in wrong.error
    assert right.record is not None
    row = make_table6([wrong, right])[0]
    assert row.test == ()
    assert row.failed[0].startswith("r1-seed0: no module of Bert")


def test_what_failed_is_trained_once_it_is_mended_and_nothing_else_is(config, tmp_path):
    sweep = grid(config, targets=(("query",),), ranks=(1, 2), seeds=(0,))
    (tmp_path / "r2-seed0").mkdir()
    (tmp_path / "r2-seed0" / "notes.txt").write_text("mine")
    right, wrong = run_sweep(sweep, tmp_path)
    assert (right.error, wrong.record) == ("", None)
    assert wrong.error.startswith("holds other files and no training.json")  # folder is a field
    (tmp_path / "r2-seed0" / "notes.txt").unlink()
    right, mended = run_sweep(sweep, tmp_path)
    assert (right.reused, mended.reused, mended.error) == (True, False, "")


def test_the_rate_is_searched_once_and_shown(config, tmp_path):
    rates = {"lora": (1e-6, 3e-2)}
    longer = replace(config, steps=40)
    sweep = grid(longer, targets=(("query",),), ranks=(1,), seeds=(0, 1), rates=rates)
    assert sweep.runs == 3
    cells = run_sweep(sweep, tmp_path)
    assert [c.folder.name for c in cells] == [
        "r1-seed0-lr1e-06", "r1-seed0-lr0.03", "r1-seed1-lr0.03",
    ]  # fmt: skip
    assert [c.searched for c in cells] == [True, False, False]
    (row,) = make_table6(cells)
    assert row.learning_rate == 3e-2
    assert row.seeds == (0, 1)
    assert [rate for rate, _ in row.searched] == [1e-6, 3e-2]
    assert row.searched[1][1] >= row.searched[0][1]


def test_a_record_alone_is_enough_where_weights_are_not_wanted(swept, tmp_path):
    import shutil

    sweep, out, _ = swept
    for record in out.rglob("training.json"):
        to = tmp_path / record.relative_to(out)
        to.parent.mkdir(parents=True)
        shutil.copy(record, to)
    cells = run_sweep(sweep, tmp_path, records_only=True)
    assert all(cell.reused for cell in cells)
    refused = run_sweep(sweep, tmp_path)
    assert all("a file of it is missing" in cell.error for cell in refused)


def row(rank, *test, targets="query"):
    seeds = tuple(range(len(test)))
    return SweepRow(
        data="d",
        method="lora",
        targets=targets,
        rank=rank,
        alpha=16.0,
        learning_rate=1e-3,
        seeds=seeds,
        test=test,
        validation=test,
        train=test,
        before=test,
        parameters=10,
    )


def test_which_rank_is_enough_is_said_of_the_ranks_trained():
    def said(*ranks):
        accuracy = dict(zip(ranks, (0.6, 0.8, 0.7), strict=False))
        rows = tuple(
            SweepRow(
                data="d",
                method="lora",
                targets="q",
                rank=r,
                alpha=16.0,
                learning_rate=1e-3,
                seeds=(0, 1),
                test=(a, a),
                validation=(),
                train=(),
                before=(),
                parameters=None,
            )
            for r, a in accuracy.items()
        )
        found = find_nearly_enough(rows)
        return describe_enough(found, Table6(rows, (found,)))

    assert said(8) == "d, q: r = 8 is the best, and no smaller rank was trained"
    assert said(64, 8) == "d, q: r = 8 is the best, and no smaller rank was trained"
    assert said(1, 8, 64) == "d, q: no smaller rank is nearly as good as r = 8"


def test_a_file_behind_a_tasks_name_leaves_no_path_in_the_table(tmp_path):
    config = TrainConfig(data="snli:/home/me/snli_dev.jsonl")
    record = {"before": {"accuracy": 0.1}, "after": {"accuracy": 0.2}, "trainable_parameters": 1}
    (row,) = make_table6([SweepRun(folder=tmp_path, config=config, record=record, reused=True)])
    assert row.data == "snli:snli_dev.jsonl"


def test_nearly_enough_is_paired_over_seeds():
    """Seeds that differ much, ranks that differ little: only pairs tell."""
    far = [row(1, 0.50, 0.60, 0.70), row(8, 0.52, 0.62, 0.72)]
    assert find_nearly_enough(far).rank == 8  # 2 points behind on every seed: no spread at all
    near = [row(1, 0.50, 0.61, 0.70), row(8, 0.52, 0.60, 0.71)]
    found = find_nearly_enough(near)
    assert (found.rank, found.best) == (1, 8)
    assert found.behind == pytest.approx(0.02 / 3)
    assert found.error == pytest.approx(0.01527525 / 3**0.5, rel=1e-6)


def test_one_seed_tells_no_rank():
    found = find_nearly_enough([row(1, 0.7), row(8, 0.8)])
    assert (found.rank, found.best) == (None, 8)
    assert find_nearly_enough([row(1), row(8)]) is None
    unequal = find_nearly_enough([row(1, 0.7), row(8, 0.8, 0.81)])
    assert (unequal.rank, unequal.best) == (None, 8)


def test_the_command_prints_table_6_with_the_papers(swept, world, config):
    _, out, cells = swept
    common = [
        "train", "--model", str(world / "tiny-bert"), "--data", config.data, "--ranks", "1,2",
        "--seeds", "0,1", "--targets", "query", "--targets", "query,value", "--alpha", "6",
        "--steps", "12", "--warmup", "2", "--batch", "8", "--lr", "2e-2", "--lr", "full:2e-2",
        "--lr", "head:2e-2", "--eval-every", "6", "--eval-texts", "9", "--reference", "full",
        "--reference", "head", "--out", str(out),
    ]  # fmt: skip
    done = run(*common)
    table = make_table6(cells)
    for each in table:
        spread = f"{100 * each.mean:.1f} ± {100 * each.std:.1f}"
        assert spread in done.stdout
    assert "paper: GPT-3, WikiSQL (±0.5)" in done.stdout
    assert "68.8" in done.stdout
    assert "nearly enough: the smallest rank" in done.stdout
    assert "alpha 6" in done.stdout
    plain = json.loads(run(*common, "--json").stdout)
    assert plain["kind"] == "training-runs"
    assert plain["table"] == table.to_dict()
    assert len(plain["runs"]) == 12
    csv = run(*common, "--csv").stdout.splitlines()
    assert len(csv) == 13
    for option in ("--markdown", "--latex"):
        assert spread in run(*common, option).stdout


def test_a_sweep_from_a_file(swept, world, tmp_path, config):
    _, out, _ = swept
    (tmp_path / "sweep.toml").write_text(
        f"""
        model = {json.dumps(str(world / "tiny-bert"))}
        data = {json.dumps(config.data)}
        ranks = [1, 2]
        seeds = [0, 1]
        targets = [["query"], ["query", "value"]]
        references = ["full", "head"]
        alpha = 6
        steps = 12
        warmup = 2
        batch = 8
        lr = {{ lora = 2e-2, full = 2e-2, head = [2e-2] }}
        eval_every = 6
        eval_texts = 9
        out = {json.dumps(str(out))}
        """
    )
    asked = ["train", "--config", str(tmp_path / "sweep.toml"), "--json"]
    done = run(*asked)
    some = out / "texts.jsonl" / "query" / "r1-seed0" / "adapter_model.safetensors"
    some.rename(tmp_path / "away")
    run(*asked, code=1)
    assert run(*asked, "--records-only").stdout == done.stdout
    (tmp_path / "away").rename(some)
    assert all(run["reused"] for run in json.loads(done.stdout)["runs"])
    assert len(json.loads(done.stdout)["runs"]) == 12


def test_tables_are_printed_from_the_folder_alone(swept, tmp_path):
    """Neither options nor the model nor the data are needed, and controls are in no row."""
    _, out, cells = swept
    table = make_table6(cells)

    def told(*words):
        done = run("train", out, *words)
        return done.stdout

    plain = json.loads(told("--json"))
    assert len(plain["runs"]) == 12

    def rows(found):
        return {(r["method"], r["targets"], r["rank"]): (r["mean"], r["seeds"]) for r in found}

    assert rows(plain["table"]["rows"]) == rows(table.to_dict()["rows"])
    assert len(told("--csv").splitlines()) == 13
    for words in ((), ("--markdown",), ("--latex",)):
        for each in table:
            assert f"{100 * each.mean:.1f} ± {100 * each.std:.1f}" in told(*words)
    told("--draw", str(tmp_path / "accuracy.png"))
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


def test_a_control_is_no_row_beside_the_runs_of_the_task(config, tmp_path):
    for name, options in (("run", {}), ("control", {"shuffle_labels": True})):
        train(replace(config, steps=2, warmup=0, eval_every=0, **options), tmp_path / name)
    both = run("train", tmp_path, "--json")
    assert len(json.loads(both.stdout)["runs"]) == 2
    (row,) = json.loads(both.stdout)["table"]["rows"]
    assert row["seeds"] == [5]
    alone = run("train", tmp_path / "control", "--json")
    assert len(json.loads(alone.stdout)["table"]["rows"]) == 1


def test_a_sweep_is_followed_by_a_command_that_runs(swept, monkeypatch):
    _, out, _ = swept
    monkeypatch.setattr("subspace.cli.shared.hints.at_terminal", lambda: True)
    done = run("train", out)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("next: ")]
    run(*shlex.split(line)[2:])
    one = run("train", shlex.split(line)[3])
    assert "next: " not in one.stderr


def test_options_of_training_are_refused_beside_folders(swept, tmp_path):
    _, out, _ = swept
    (tmp_path / "x.toml").write_text("")
    printing = {f"--{word}" for word in NOT_OF_A_SWEEP} - {"--config", "--overwrite"}
    for option in main.get_command(None, "train").params:
        if option.name == "folders" or option.opts[0] in printing:
            continue
        value = str(tmp_path / "x.toml") if option.opts[0] == "--config" else "1"
        value = option.type.choices[0] if isinstance(option.type, click.Choice) else value
        words = option.opts[:1] if option.is_flag else [option.opts[0], value]
        done = run("train", out, *words, code=2)
        assert f"{words[0]} is for training, and '{out}' stands for runs that are" in done.stderr
    (tmp_path / "x.toml").write_text("ranks = [1]")  # typed is --config alone
    done = run("train", out, "--config", tmp_path / "x.toml", code=2)
    assert "--config is for training" in done.stderr
    done = run("train", tmp_path, code=2)
    assert "no run in it" in done.stderr


def test_a_failed_cell_ends_the_command_with_1(world, config, tmp_path):
    words = ["train", "--model", world / "tiny-bert", "--data", config.data, "--steps", "2"]
    words += ["--warmup", "0", "--targets", "nothing", "--targets", "query", "--rank", "1"]
    done = run(*words, "--out", tmp_path / "runs", code=1)
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("failed: "))
    assert "nothing/r1-seed0: no module of Bert" in said
    assert "ends in 'nothing'" in said
    first, second, last = done.stderr.splitlines()
    assert first.endswith(said.partition(": no module")[2])
    assert first.startswith("1/2 ")
    assert "r1-seed0: failed: no module" in first
    assert second.endswith("query/r1-seed0: trained")
    assert last.startswith(
        "1 of 2 runs failed; mend what their lines name and run the command again"
    )


def test_no_path_of_this_machine_is_in_a_record(config, tmp_path):
    """A task's own file is told by its name, as a user's data is."""
    rows = [
        {"premise": f"a {w} lung {n}", "hypothesis": f"the {w}", "label": label}
        for n in range(30)
        for w, label in (("old", "entailment"), ("new", "neutral"), ("mild", "contradiction"))
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(
        replace(config, data=f"snli:{tmp_path / 'pairs.jsonl'}", steps=2, warmup=0, eval_every=0),
        tmp_path / "run",
    )
    assert str(tmp_path) not in (done.folder / "training.json").read_text()
    assert done.record["options"]["data"] == "snli:pairs.jsonl"


def test_a_head_that_no_model_has_is_refused_before_the_first_run(config, tmp_path):
    rows = [{"prompt": f"say {w}", "completion": w} for w in "abcdefghij"]
    (tmp_path / "say.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = str(tmp_path / "say.jsonl")
    sweep = grid(replace(config, data=data), data=(data,), references=("head",))
    with pytest.raises(ArgumentError, match=r"say\.jsonl is a task of writing.*--reference head"):
        run_sweep(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_completion_task_is_swept_by_its_tokens(tmp_path):
    """A second model and task: prompts and completions on a tiny random decoder."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tmp_path / "decoder"
    write_tokenizer(model, eos_token="<end>", bos_token="<start>")
    sizes = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 0}
    tiny = GPT2Config(n_positions=40, n_embd=32, n_layer=2, n_head=2, **sizes)
    GPT2LMHeadModel(tiny).save_pretrained(model)
    rows = [{"text": f"say {w}", "then": f"{w} {w}"} for w in "abcdefghij" for _ in range(3)]
    (tmp_path / "say.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = TrainConfig(
        model=str(model), data=str(tmp_path / "say.jsonl"), completion_column="then", steps=4,
        warmup=0, batch=4, eval_every=2, eval_texts=4, rank=2, targets="all-linear",
    )  # fmt: skip
    sweep = Sweep(
        options=options, data=(options.data,), targets=("all-linear",), ranks=(1,), seeds=(0,),
        rates={"lora": (1e-5, 1e-2)},
    )  # fmt: skip
    cells = run_sweep(sweep, tmp_path / "runs")
    assert [cell.error for cell in cells] == ["", ""]
    assert all(0 <= cell.validation <= 1 for cell in cells)
    (row,) = make_table6(cells)
    assert len(row.searched) == 2
    assert row.train[0] != row.train[0]  # of tokens, which is no exact match
