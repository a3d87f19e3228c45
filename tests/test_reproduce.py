"""``subspace reproduce`` on a tiny model: every figure, the page, and nothing trained twice."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import subspace.cli.reproduce as verb
from subspace.cli.shared import options
from subspace.cli.train import sweep_of
from subspace.gallery import write as gallery
from subspace.results.render import markdown_text
from subspace.training.sweep.read import find_runs
from subspace.training.sweep.summary import make_table6
from tests.support.decoders import write_tokenizer
from tests.support.tiny_world import write_world
from tests.support.verbs import run

FIGURES = {
    "table6", "figure3", "figure4", "figure6", "figure7", "figure8", "figure8-r64", "profile",
    "amplification-map", "amplification-curve", "gains", "rank",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def reproduced(world, out, *more, code=0):
    source = ("--model", world / "tiny-bert", "--data", world / "texts.jsonl", "--out", out)
    return run("reproduce", "--quick", "--steps", 6, *source, "--lr", "2e-2", *more, code=code)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduced")
    done = reproduced(world, out)
    return out, done


def test_the_gallery_is_complete_and_the_page_names_it(made):
    out, _ = made
    page = (out / "README.md").read_text()
    assert {path.stem for path in out.glob("*.png")} == FIGURES
    assert set(re.findall(r"!\[(\S+)\.png\]", page)) == FIGURES
    for head in ("Beside the paper", "Table 6", "Learned or inherited?", "Table 7"):
        assert head in page
    command = "subspace reproduce --quick --model tiny-bert --data texts.jsonl --steps 6 --lr 2e-2"
    assert f"    {command} --out {out.name}\n" in page
    assert str(out.parent) not in page


def test_the_commands_under_the_figures_draw_them(made, world, monkeypatch, tmp_path):
    out, _ = made
    page = (out / "README.md").read_text()
    commands = re.findall(r"^    subspace (\S.*) --out (\S+)\.png$", page, flags=re.MULTILINE)
    assert {Path(place).name for _, place in commands} == FIGURES - {"table6"}
    monkeypatch.chdir(out.parent)
    for words, place in commands:
        folder, name = place.split("/")
        assert folder == out.name
        given = words.replace("--base tiny-bert", f"--base {world / 'tiny-bert'}").split()
        run(*given, "--out", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes() == (out / f"{name}.png").read_bytes(), name


def test_the_kept_adapters_are_the_compared_runs(made):
    out, _ = made
    names = {"r8-seed0", "r64-seed0", "r64-seed1", "r64-seed0-shuffled", "r64-seed1-shuffled"}
    assert {path.name for path in (out / "adapters").iterdir()} == names
    for name in names:
        for file in (out / "adapters" / name).iterdir():
            assert file.read_bytes() == (out / "runs" / name / file.name).read_bytes()


def test_a_control_has_another_seed_than_the_run_beside(made):
    page = (made[0] / "README.md").read_text()
    pairs = re.findall(r"similarity \S+/r\d+-seed(\d) \S+ --control \S+/r64-seed(\d)", page)
    assert len(pairs) == 2
    assert all(run != control for run, control in pairs)


def test_what_is_printed_is_on_the_page(made):
    out, done = made
    page = (out / "README.md").read_text()
    lines = done.stdout.splitlines()
    assert len(lines) >= 5
    assert all(f"- {markdown_text(line)}" in page for line in lines)


def test_the_runs_are_a_sweep_with_its_control(made):
    out, _ = made
    names = {path.name for path in (out / "runs").iterdir()}
    lora = {f"r{r}-seed{s}" for r in (1, 8, 64) for s in (0, 1)}
    assert names == lora | {"head-seed0", "head-seed1"} | {
        "r64-seed0-shuffled",
        "r64-seed1-shuffled",
    }


def test_run_again_it_trains_nothing_and_writes_the_same(made, world):
    out, first = made
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("training.json")}
    again = reproduced(world, out)
    assert again.stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("training.json")} == stamps
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before


def test_the_runs_are_as_many_and_as_long_as_asked_for(made):
    """--steps shortens the warm-up and the looks with it."""
    record = json.loads((made[0] / "runs" / "r8-seed0" / "training.json").read_text())
    options = record["options"]
    assert (options["steps"], options["warmup"], options["eval_every"]) == (6, 1, 3)


def test_ranks_seeds_and_steps_of_ones_own_stand_before_a_files(world, tmp_path):
    sweep = write_sweep(world, tmp_path / "sweep.toml", ranks=[1], seeds=[9])
    words = ["--config", str(sweep), "--ranks", "2,4", "--seeds", "0,1", "--steps", "3"]
    done = run("reproduce", *words, "--out", tmp_path / "o", "--json")
    plain = json.loads(done.stdout)
    assert [(row["rank"], row["seeds"]) for row in plain["table6"]["rows"]] == [
        (2, [0, 1]),
        (4, [0, 1]),
    ]
    record = json.loads((tmp_path / "sweep" / "r2-seed0" / "training.json").read_text())
    assert (record["options"]["steps"], record["options"]["warmup"]) == (3, 1)


def test_a_task_of_writing_has_no_head_to_train_alone(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tmp_path / "decoder"
    write_tokenizer(model, eos_token="<end>", bos_token="<start>")
    sizes = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 0}
    tiny = GPT2Config(n_positions=40, n_embd=16, n_layer=1, n_head=2, **sizes)
    GPT2LMHeadModel(tiny).save_pretrained(model)
    rows = [{"prompt": f"say {w}", "completion": w} for w in "abcdefghij" for _ in range(3)]
    (tmp_path / "say.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", str(model), "--data", str(tmp_path / "say.jsonl"), "--ranks", "1,2"]
    words += ["--seeds", "0,1", "--steps", "2", "--out", str(tmp_path / "o"), "--json"]
    done = run("reproduce", *words)
    found = json.loads(done.stdout)["table6"]["rows"]
    assert [(row["method"], row["metric"]) for row in found] == [("lora", "exact match")] * 2


@pytest.fixture(scope="module")
def told(made, world):
    """What the command says of the gallery as JSON."""
    done = reproduced(world, made[0], "--json")
    return json.loads(done.stdout)


def test_json_names_every_file_and_repeats_the_page(made, told):
    out, first = made
    page = (out / told["page"]).read_text()
    assert told["folder"] == str(out)
    assert {Path(figure["file"]).stem for figure in told["figures"]} == FIGURES
    for figure in told["figures"]:
        assert (out / figure["file"]).is_file()
        assert f"`{figure['file']}`: {figure['words']}\n\n    {figure['command']}\n" in page
    assert {str(path) for path in (out / "adapters").iterdir()} == set(told["adapters"])
    assert "--json" not in told["command"]
    assert f"    {told['command']}\n" in page
    assert told["findings"] == first.stdout.splitlines()
    for claim in told["claims"]:
        cells = (claim["where"], claim["paper"], claim["here"], claim["verdict"])
        assert " | ".join(map(markdown_text, cells)) in page
    assert [row["rank"] for row in told["table6"]["rows"]] == [1, 8, 64, None]
    small, large = ([m["rank"] for m in table["modules"]] for table in told["table7"])
    assert (small, large) == ([8] * 4, [16] * 4)  # of r = 64, what the matrices have room for
    for pair in told["shared"]:
        initial = pair["initial"]
        line = f"| {' and '.join(pair['runs'])} | {pair['sides']['A']['phi']:.3f}; "
        assert line in page
        assert f"| {initial['phi']:.3f}; {initial['agreeing']:g} |\n" in page


def test_csv_has_the_same_numbers(made, world, told):
    done = reproduced(world, made[0], "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["part", "item", "quantity", "value"]
    assert [r["value"] for r in rows if r["part"] == "finding"] == told["findings"]
    assert [r["value"] for r in rows if r["quantity"] == "verdict"] == [
        claim["verdict"] for claim in told["claims"]
    ]
    files = {r["item"] for r in rows if r["part"] == "file"}
    assert files == {"README.md", *told["adapters"], *(f["file"] for f in told["figures"])}
    means = [float(r["value"]) for r in rows if (r["part"], r["quantity"]) == ("Table 6", "mean")]
    assert means == [row["mean"] for row in told["table6"]["rows"]]
    factors = [float(r["value"]) for r in rows if r["quantity"] == "factor"]
    assert factors == [m["factor"] for table in told["table7"] for m in table["modules"]]
    initial = [r for r in rows if r["quantity"] == "phi(1,1), initial A"]
    assert [float(r["value"]) for r in initial] == [p["initial"]["phi"] for p in told["shared"]]


def page_of(out):
    """The page without the commands, which name the folders."""
    return re.sub(r"^    subspace .*$", "", (out / "README.md").read_text(), flags=re.MULTILINE)


def pictures(out):
    return {path.name: path.read_bytes() for path in out.glob("*.png")}


def test_folders_of_runs_are_taken_as_they_are(made, world, tmp_path):
    out, first = made
    base = world / "tiny-bert"
    again = run("reproduce", out / "runs", "--base", base, "--out", tmp_path / "again")
    assert again.stdout == first.stdout
    assert page_of(tmp_path / "again") == page_of(out)
    assert pictures(tmp_path / "again") == pictures(out)
    assert not (tmp_path / "again" / "adapters").exists()  # the runs are where they were given


@pytest.mark.parametrize("control", [0, 1])
def test_of_runs_with_a_record_alone_the_page_says_how_to_train_them(
    made, world, tmp_path, control
):
    """One control of two is enough: it stands beside another seed than its own."""
    out, _ = made
    runs = shutil.copytree(out / "runs", tmp_path / "runs")
    gone = runs / f"r64-seed{1 - control}-shuffled"
    (gone / "adapter_model.safetensors").unlink()
    base = str(world / "tiny-bert")
    words = ["reproduce", str(runs), "--base", base, "--out", str(tmp_path / "o"), "--json"]
    done = run(*words)
    plain = json.loads(done.stdout)
    page = (tmp_path / "o" / "README.md").read_text()
    assert str(gone) not in plain["adapters"]
    assert "Two seeds on shuffled labels" not in page
    assert f"without the weights: {gone.name}." in page
    seeds = r"similarity runs/r64-seed(\d) runs/r64-seed(\d) --control runs/r64-seed(\d)-shuf.* 4 "
    (first, second, beside), *more = re.findall(seeds, page)
    assert not more
    assert (first, second, beside) == (str(1 - control), str(control), str(control))
    names = [set(pair["runs"]) for pair in plain["shared"]]
    assert all(names.count(each) == 1 for each in names)
    (again,) = re.findall(r"^    subspace train (.*)$", page, flags=re.MULTILINE)
    assert again.endswith(f" --overwrite --out runs/{gone.name}")
    sweep, place = sweep_of(again.split())
    assert place == Path("runs") / gone.name
    config = replace(sweep.options, rank=sweep.ranks[0], seed=sweep.seeds[0])
    (lost,) = find_runs([gone])
    assert config.to_options() == lost.config.to_options()


def test_a_sweep_from_a_file_needs_records_and_the_kept_adapters_alone(made, world, tmp_path):
    """What a fresh clone has: each run's record, and of the compared runs a copy."""
    out, first = made
    clone = tmp_path / "clone"
    shutil.copytree(out / "runs", clone / "runs")
    shutil.copytree(out / "adapters", clone / "adapters")
    for weights in (clone / "runs").rglob("*.safetensors"):
        weights.unlink()
    sweep = clone / "sweep.toml"
    sweep.write_text(
        f"""model = {json.dumps(str(world / "tiny-bert"))}
data = {json.dumps(str(world / "texts.jsonl"))}
ranks = [1, 8, 64]
seeds = [0, 1]
references = ["head"]
lr = 2e-2
steps = 6
warmup = 1
eval_every = 3
out = {json.dumps(str(clone / "runs"))}
"""
    )
    words = ["reproduce", "--config", str(sweep), "--out", str(clone)]
    again = run(*words)
    assert "used again" in again.stderr
    assert "trained" not in again.stderr
    assert again.stdout == first.stdout
    assert pictures(clone) == pictures(out)

    # A kept adapter that is lost is trained again, to the same bytes.
    lost = clone / "adapters" / "r8-seed0"
    shutil.rmtree(lost)
    again = run(*words)
    assert "r8-seed0: its weights are not here; training it again" in again.stderr
    assert load_file(lost / "adapter_model.safetensors").keys()
    assert pictures(clone) == pictures(out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUNS"], "--base"),
        (["NOTHING", "--base", "BASE"], "no run in it"),
        (["RUNS/r8-seed0", "--base", "BASE"], "--ranks 8,64"),
        (["RUNS/r8-seed0", "RUNS/r64-seed0", "--base", "BASE"], "two seeds of r = 64"),
        (["RUNS", "--base", "BASE", "--compare", "key"], "no runs of the targets 'key'"),
        (["--quick", "--config", "NOTHING/x.toml"], "give one of them"),
        (["RUNS", "--base", "BASE", "--lr", "1"], "--lr is for training"),
        (["RUNS", "--base", "BASE", "--quick"], "--quick is for training"),
        (["RUNS", "--base", "BASE", "--steps", "9"], "--steps is for training"),
        (["RUNS", "--base", "BASE", "--ranks", "1,8"], "--ranks is for training"),
        (["--model", "BASE", "--ranks", "8", "--seeds", "0,1"], "compares two ranks"),
        (["--model", "BASE", "--ranks", "4,8", "--seeds", "3"], "compares two seeds of r = 8"),
        (["--model", "BASE", "--ranks", "4,x"], "write a whole number, or a list such as 1,8,64"),
        (["--json", "--csv"], "--json and --csv write to stdout"),
        (["RUNS", "--base", "BASE", "--config", "NOTHING/x.toml"], "--config is for training"),
        (["--quick", "--model", "BASE", "--compare", "key"], "no runs of the targets 'key'"),
    ],
)
def test_what_cannot_be_compared_is_refused(made, world, tmp_path, words, said):
    out, _ = made
    (tmp_path / "nothing").mkdir()
    places = {"RUNS": out / "runs", "NOTHING": tmp_path / "nothing", "BASE": world / "tiny-bert"}
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    done = run("reproduce", *words, "--out", tmp_path / "out", code=2)
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()  # refused before anything is trained or drawn


def test_the_page_shows_strangers_names_and_odd_records_as_they_are(made, world, tmp_path):
    out, _ = made
    shutil.copytree(out / "runs", tmp_path / "runs")
    shutil.copytree(world / "tiny-bert", tmp_path / "<i>base|")
    # A second rate of one rank, the worse one.
    extra = shutil.copytree(tmp_path / "runs" / "r1-seed0", tmp_path / "runs" / "r1-other")
    for path in (tmp_path / "runs").rglob("training.json"):
        record = json.loads(path.read_text())
        record["options"]["data"] = "<img src=x>|*a*_b_.csv"
        record["model"]["name"] = "<b>`model`</b>"
        for gone in ("threads", "device", "versions"):
            del record[gone]
        if path.parent == extra:
            record["options"]["learning_rate"] = 0.5
            record["history"][-1]["validation_accuracy"] = 0.0
        path.write_text(json.dumps(record))
    words = ["reproduce", str(tmp_path / "runs"), "--base", str(tmp_path / "<i>base|")]
    run(*words, "--out", tmp_path / "o")
    page = (tmp_path / "o" / "README.md").read_text()
    prose = [line for line in page.splitlines() if not line.startswith("    ")]
    for line in prose:
        assert not re.search(r"(?<!\\)[<>*_]", line), line
        assert not line.startswith("|") or line.count("|") - line.count(r"\|") >= 5
    assert "seeds 0, 1, on unknown with unknown threads a run, torch unknown" in page
    (rates,) = (line for line in prose if "lr 0.5" in line)
    (row,) = (line for line in prose[prose.index(rates) :] if line.endswith(" 0.0% |"))
    assert row.count(r"%\*") == 1


def watched(monkeypatch):
    """The runs of Table 6, as the gallery is given them."""
    seen, write = [], gallery.write_gallery

    def both(trained, *more):
        seen.extend(trained)
        return write(trained, *more)

    monkeypatch.setattr(gallery, "write_gallery", both)
    return seen


def write_sweep(world, path, **options):
    sweep = {
        "model": str(world / "tiny-bert"), "data": str(world / "texts.jsonl"), "ranks": [8, 64],
        "seeds": [0, 1], "steps": 6, "warmup": 1, "eval_every": 3, "out": str(path.with_suffix("")),
    } | options  # fmt: skip
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in sweep.items()))
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ranks": [8]}, "compares two ranks, and there are runs of 1 on "),
        ({"seeds": [0]}, "compares two seeds of r = 64, and there is one on "),
    ],
)
def test_a_sweep_that_could_not_be_compared_is_not_trained(world, tmp_path, options, said):
    sweep = write_sweep(world, tmp_path / "sweep.toml", **options)
    done = run("reproduce", "--config", sweep, "--out", tmp_path, code=2)
    assert said in done.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.toml"}


def test_two_sweeps_make_one_table(world, tmp_path, monkeypatch):
    """A reference that both have is one row, each seed once; sweeps that differ are refused."""
    seen = watched(monkeypatch)
    one = write_sweep(world, tmp_path / "one.toml", references=["head"])
    two = write_sweep(world, tmp_path / "two.toml", references=["head"], targets=["query"])
    words = ["reproduce", "--config", str(one), "--config", str(two), "--out", str(tmp_path / "o")]
    done = run(*words)
    assert [cell.config.seed for cell in seen if cell.config.method == "head"] == [0, 1]
    assert len(seen) == 10
    assert len(make_table6(seen)) == 5
    write_sweep(world, two, steps=7, targets=["query"])
    done = run(*words, code=2)
    assert "trained with steps 7" in done.stderr.splitlines()[-1]


def test_what_is_trained_again_is_trained_as_it_was(made, world, tmp_path, monkeypatch):
    """With the threads of its record, since another number rounds otherwise; the page says so."""
    out, _ = made
    clone = tmp_path / "clone"
    for part in ("runs", "adapters"):
        shutil.copytree(out / part, clone / part)
    shutil.rmtree(clone / "adapters" / "r8-seed0")
    (clone / "runs" / "r8-seed0" / "adapter_model.safetensors").unlink()
    path = clone / "runs" / "r8-seed0" / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": 3}))
    threads, seen = [], watched(monkeypatch)

    def train(_config, folder, *, overwrite):
        assert overwrite
        threads.append(torch.get_num_threads())
        shutil.copytree(out / "runs" / folder.name, folder, dirs_exist_ok=True)

    monkeypatch.setattr("subspace.training.run.train", train)
    reproduced(world, clone)
    assert threads == [3]
    assert torch.get_num_threads() == 1
    (cell,) = (cell for cell in seen if cell.folder == path.parent)
    assert cell.record["threads"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "/home/me/x.jsonl"], "--data x.jsonl"),
        (["--data", "snli:/home/me/dev.jsonl"], "--data snli:dev.jsonl"),
        (["--data", "snli"], "--data snli"),
        (["--model", "models/mine"], "--model models/mine"),
        (["--targets", "re:.*(query|value)"], "--targets 're:.*(query|value)'"),
        (["/home/me/my runs", "--base", "x\ny"], "'my runs' --base 'x\\x0ay'"),
    ],
)
def test_the_page_repeats_the_command_without_a_path_of_the_machine(words, said):
    given = [*words, "--jobs", "2", "--out", "/home/me/o"]
    with verb.command.make_context("reproduce", given):
        found = options.command_line("jobs")
    assert found == f"subspace reproduce {said} --out o"


def test_a_run_that_fails_is_named(world, tmp_path):
    done = reproduced(world, tmp_path, "--targets", "nothing", code=2)
    assert "runs failed" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize(("chosen", "edge"), [(1e-3, True), (2e-3, False), (4e-3, True)])
def test_a_rate_at_the_end_of_what_was_tried_is_told(chosen, edge):
    from subspace.findings.table6 import describe_rates, is_at_edge
    from subspace.results import SweepRow, Table6

    tried = tuple((rate, 0.5) for rate in (1e-3, 2e-3, 4e-3))
    row = SweepRow(
        data="d",
        method="lora",
        targets="q",
        rank=8,
        alpha=16.0,
        learning_rate=chosen,
        seeds=(0,),
        test=(0.5,),
        validation=(),
        train=(),
        before=(),
        parameters=None,
        searched=tried,
    )
    assert is_at_edge(row) is edge
    assert describe_rates(Table6((row,), ())).endswith("d, q, r = 8.") is edge
    assert not is_at_edge(replace(row, searched=()))
