"""What is adapted: names, patterns, and what is suggested where neither was given or is there."""

import json
import re

import pytest
import torch

from subspace.errors import ArgumentError
from subspace.training import TrainConfig, train
from subspace.training.targets import check_found, default_targets, linear_ends, read_targets, typed
from tests.support.tiny_world import write_world
from tests.support.verbs import run

SMALL = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def short(world, **options):
    return TrainConfig(
        model=str(world / "tiny-bert"), data=str(world / "texts.jsonl"), rank=1, steps=1, warmup=0,
        batch=2, eval_every=0, eval_texts=3, **options,
    )  # fmt: skip


def saved(folder, config):
    """A model folder of random weights, as a user has one."""
    from transformers import AutoModel

    AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


# Defaults


def test_a_kind_that_peft_knows_has_its_modules(world, tmp_path):
    from transformers import GPT2Config

    assert default_targets(str(world / "tiny-bert")) == ("query", "value")
    tiny = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=8)
    assert default_targets(saved(tmp_path, tiny)) == ("c_attn",)


def unknown_to_peft(kind):
    from peft.utils import constants

    return kind not in constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING


def test_a_kind_that_peft_lacks_has_the_names_that_its_modules_have(tmp_path):
    """DistilBERT and Phi-3 are in no table: one has q_lin and v_lin, the other a fused matrix."""
    from transformers import DistilBertConfig, Phi3Config

    assert unknown_to_peft("distilbert")
    assert unknown_to_peft("phi3")
    distil = DistilBertConfig(vocab_size=9, dim=8, n_heads=2, n_layers=1, hidden_dim=8)
    assert default_targets(saved(tmp_path / "distil", distil)) == ("q_lin", "v_lin")
    phi = Phi3Config(vocab_size=9, intermediate_size=8, pad_token_id=0, eos_token_id=1, **SMALL)
    state = torch.get_rng_state()
    assert default_targets(saved(tmp_path / "phi", phi)) == ("qkv_proj",)
    assert not torch.equal(state, torch.get_rng_state())  # saved above, by the test
    state = torch.get_rng_state()
    default_targets(str(tmp_path / "phi"))
    assert torch.equal(state, torch.get_rng_state())


def test_a_kind_without_such_names_is_answered_with_those_it_has(tmp_path):
    from transformers import FNetConfig

    config = FNetConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    place = saved(tmp_path / "fnet", config)
    with pytest.raises(ArgumentError) as told:
        default_targets(place)
    assert "'fnet' is of the type 'fnet'" in str(told.value)
    assert "its linear modules end in dense, projection; name some of them" in str(told.value)
    assert "--targets dense,projection" in str(told.value)
    done = run("train", "--model", place, "--out", tmp_path / "run", code=2)
    assert str(told.value) in done.stderr


# Suggestions


def test_a_models_own_heads_are_not_suggested():
    """A head by any name: DistilBERT's is two layers, RoBERTa's has one named as others within."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        DistilBertConfig,
        GPT2Config,
        RobertaConfig,
    )

    distil = DistilBertConfig(vocab_size=9, dim=8, n_heads=2, n_layers=1, hidden_dim=8)
    model = AutoModelForSequenceClassification.from_config(distil)
    assert {"pre_classifier", "classifier"} <= dict(model.named_modules()).keys()
    assert linear_ends(model) == ["k_lin", "lin1", "lin2", "out_lin", "q_lin", "v_lin"]
    roberta = RobertaConfig(vocab_size=9, intermediate_size=8, **SMALL)
    model = AutoModelForSequenceClassification.from_config(roberta)
    assert linear_ends(model) == ["dense", "key", "query", "value"]
    gpt = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9, n_positions=8)
    model = AutoModelForCausalLM.from_config(gpt)
    assert linear_ends(model) == ["c_attn", "c_fc", "c_proj"]
    with pytest.raises(ArgumentError, match=r"ends in 'q': .* such as --targets c_attn, or all"):
        check_found(("q",), model)


def test_query_and_value_are_the_example_where_they_are(world, tmp_path):
    with pytest.raises(ArgumentError, match=r"such as --targets query,value, or all of them"):
        train(short(world, targets=("q_proj",)), tmp_path / "run")


# Names and patterns


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        ("re:.*layer.1.*(query|key)", ["1.key", "1.query"]),
        (("re:.*layer.1.*(query|key)",), ["1.key", "1.query"]),
        (("value", "re:.*layer.1.*key"), ["0.value", "1.key", "1.value"]),
        (("re:.*0.*key", "re:.*1.*value"), ["0.key", "1.value"]),
    ],
)
def test_names_and_patterns_stand_side_by_side(world, tmp_path, targets, kinds):
    done = train(short(world, targets=targets), tmp_path / "run")
    found = [m.replace("attention.self.", "").split("layer.")[1] for m in done.record["modules"]]
    assert sorted(found) == kinds
    stored = targets if isinstance(targets, str) else list(targets)
    assert done.record["options"]["targets"] == stored
    assert train(short(world, targets=targets), tmp_path / "run").reused


@pytest.mark.parametrize("targets", [("query", "nothing"), ("query", "re:.*nothing")])
def test_a_target_that_is_not_there_beside_one_that_is(world, tmp_path, targets):
    """peft would adapt the other alone, and nobody would know."""
    how = "has a name like" if targets[1].startswith("re:") else "ends in"
    with pytest.raises(
        ArgumentError, match=rf"no module of Bert\w+ {how} '{re.escape(targets[1])}': its"
    ):
        train(short(world, targets=targets), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("targets", ["re:(", ("query", "re:(")])
def test_a_pattern_that_is_none_is_refused_at_once(targets):
    with pytest.raises(ArgumentError, match=r"target 're:\(' is no regular expression: .*position"):
        TrainConfig(targets=targets)


def test_the_command_and_a_file_say_the_same(world, tmp_path):
    sets = [["value", "re:.*1.*key"], ["re:.*0.*key", "query", "re:.*1.*key{1,1}"]]
    words = [
        "--model", str(world / "tiny-bert"), "--data", str(world / "texts.jsonl"), "--rank", "1",
        "--steps", "1", "--warmup", "0", "--out", str(tmp_path / "runs"), "--json",
    ]  # fmt: skip
    (tmp_path / "sweep.toml").write_text(f"targets = {json.dumps(sets)}\n")
    filed = run("train", *words, "--config", tmp_path / "sweep.toml")
    first, second = json.loads(filed.stdout)["runs"]
    rows = json.loads(filed.stdout)["table"]["rows"]
    assert rows[0]["targets"] == "value+re:.*1.*key"  # as it was written, not as its folder
    assert first["options"]["targets"] == sets[0]
    assert len(second["modules"]) == 4
    typed_in = [word for each in sets for word in ("--targets", typed(each))]
    again = run("train", *words, *typed_in)
    assert [run["reused"] for run in json.loads(again.stdout)["runs"]] == [True, True]
    assert read_targets(typed(sets[0])) == tuple(sets[0])
