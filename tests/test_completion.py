"""Prompts with completions on tiny decoders: what is encoded, trained on, written and counted."""

import json

import pytest
import torch

from subspace.errors import ArgumentError, FormatError
from subspace.training import TASKS, TrainConfig, load_data, train
from subspace.training.completion import (
    _batches,
    average_tokens,
    measure_exact_match,
    normalise,
    sum_tokens,
)
from subspace.training.encoding import IGNORED, encode, make_collator
from subspace.training.models import find_model, load_model, name_task_type
from subspace.training.tasks.dataset import build_completion, build_labelled, build_paired
from tests.support.decoders import ROWS, WORDS, thrice, write_tokenizer
from tests.support.verbs import run


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny GPT-2 and a tiny Llama, as a download would leave them: neither has a pad token."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("decoders")
    for name in ("gpt2", "llama"):
        write_tokenizer(folder / name, eos_token="<end>", bos_token="<start>")
    sizes = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 0, "initializer_range": 0.1}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_positions=40, n_embd=32, n_layer=2, n_head=2, **sizes)).save_pretrained(folder / "gpt2")  # fmt: skip  # noqa: E501
    LlamaForCausalLM(LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=40, **sizes,
    )).save_pretrained(folder / "llama")  # fmt: skip
    # A setting of the model's own that greedy search would follow.
    (folder / "llama" / "generation_config.json").write_text(
        json.dumps({"repetition_penalty": 9.0, "max_new_tokens": 1, "do_sample": True})
    )
    return folder


@pytest.fixture(scope="module")
def words():
    return build_completion("words", thrice(*ROWS))


@pytest.fixture
def task(monkeypatch, words):
    """A task of one's own is one function by a name."""
    monkeypatch.setitem(TASKS, "words", lambda _source: words)
    return "words"


def config(world, name, **options):
    every = {"gpt2": ("c_attn", "c_fc", "c_proj"), "llama": "all-linear"}
    return TrainConfig(**{
        "model": str(world / name), "data": "words", "rank": 8, "targets": every[name],
        "steps": 250, "warmup": 5, "batch": 8, "max_length": 40, "learning_rate": 2e-2,
        "eval_every": 125, "eval_texts": 8, **options,
    })  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.usefixtures("task")
def test_a_decoder_learns_eight_completions_word_for_word(world, tmp_path, name):
    run = train(config(world, name), tmp_path / "run")
    assert run.record["before"]["accuracy"] == 0
    assert run.record["after"]["accuracy"] == run.after == 1
    assert run.record["after"]["token_accuracy"] == 1
    assert run.record["after"]["generated"] == 8
    assert set(run.history[-1]) == {
        "step", "train_loss", "train_token_accuracy", "validation_loss",
        "validation_token_accuracy",
    }  # fmt: skip
    assert run.history[-1]["train_loss"] == pytest.approx(run.record["after"]["loss"])
    assert run.record["data"]["labels"] == []

    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert json.loads((run.folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    base = AutoModelForCausalLM.from_pretrained(world / name)
    model = PeftModel.from_pretrained(base, run.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(world / name)
    ids = tokenizer(ROWS[3][0] + "\n", return_tensors="pt")["input_ids"]
    for _ in range(20):  # by hand, one prompt at a time, without padding
        following = model(input_ids=ids).logits[0, -1].argmax()
        ids = torch.cat([ids, following.view(1, 1)], 1)
        if following == tokenizer.eos_token_id:
            break
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "\n".join(ROWS[3])


@pytest.mark.usefixtures("task")
def test_the_control_of_completions_has_others(world, tmp_path):
    short = config(world, "gpt2", steps=2, warmup=0, eval_every=0)
    run, control = (
        train(TrainConfig(**{**vars(short), "shuffle_labels": mixed}), tmp_path / str(mixed))
        for mixed in (False, True)
    )
    assert control.record["before"] == run.record["before"]
    assert control.record["losses"] != run.record["losses"]


# Encoding


@pytest.fixture(scope="module")
def decoder(world, words):
    return load_model(find_model(str(world / "gpt2")), words)


def test_a_prompt_carries_no_loss_and_a_completion_ends(decoder, words):
    _, tokenizer = decoder
    examples = encode(tokenizer, words, words.train, 40)
    for (prompt, answer), example in zip(ROWS, examples, strict=True):
        ids, labels = example["input_ids"], example["labels"]
        start = labels.count(IGNORED)
        assert tokenizer.decode(ids[:start]) == prompt + "\n"
        assert tokenizer.decode(ids[start:]) == answer + "<end>"
        assert labels[start:] == ids[start:]
        assert example["completion"] == answer
    batch = make_collator(tokenizer, words)(examples)
    longest = max(len(example["input_ids"]) for example in examples)
    assert batch["input_ids"].shape == batch["labels"].shape == (8, longest)
    padded = batch["attention_mask"] == 0
    assert padded.any()
    assert (batch["labels"][padded] == IGNORED).all()
    assert (batch["input_ids"][padded] == tokenizer.pad_token_id).all()


def test_a_long_prompt_loses_its_start_and_a_long_completion_is_refused(decoder):
    _, tokenizer = decoder
    long = build_completion("long", thrice(("first words and last", "skin 2")))
    (whole,) = encode(tokenizer, long, long.test, 40)
    cut = len(whole["input_ids"]) - 3
    (short,) = encode(tokenizer, long, long.test, cut)
    assert short["input_ids"] == whole["input_ids"][3:]
    assert short["labels"] == whole["labels"][3:]
    with pytest.raises(ArgumentError, match=r"may have 3: raise the maximal length.*'skin 2'"):
        encode(tokenizer, long, long.test, 3)


def test_a_first_token_that_every_prompt_has_stays(world, words):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world / "llama")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>", pair="<start> $A <end> $B <end>",
        special_tokens=[("<start>", 1), ("<end>", 0)],
    )  # fmt: skip
    for limit in (40, 12):
        for example in encode(tokenizer, words, words.test, limit):
            assert len(example["input_ids"]) <= limit
            assert example["input_ids"][0] == 1
            assert example["input_ids"].count(0) == 1  # the end that a prompt got is taken off


def test_pairs_are_what_the_tokenizer_makes_of_a_pair(tmp_path):
    from transformers import BertConfig, BertModel

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=12, intermediate_size=8, **small)).save_pretrained(tmp_path)
    rows = [("heart lung skin bone", "eye ear", 0), ("nerve", "liver", 1)]
    data = build_paired("pairs", ("a", "b"), thrice(*rows))
    model, tokenizer = load_model(find_model(str(tmp_path)), data)
    assert name_task_type(data) == "SEQ_CLS"
    first, second = encode(tokenizer, data, data.train, 32)
    assert tokenizer.decode(first["input_ids"]) == "[CLS] heart lung skin bone [SEP] eye ear [SEP]"
    assert first["token_type_ids"] == [0] * 6 + [1] * 3
    assert (first["label"], second["label"]) == (0, 1)
    short, _ = encode(tokenizer, data, data.train, 7)
    assert tokenizer.decode(short["input_ids"]) == "[CLS] heart lung [SEP] eye ear [SEP]"
    scores = model(**make_collator(tokenizer, data)([first, second])).logits
    assert scores.shape == (2, 2)


def test_a_decoder_is_told_where_the_second_text_begins(world):
    data = build_paired("pairs", ("a", "b"), thrice(("skin", "bone", 0), ("a", "b", 1)))
    model, tokenizer = load_model(find_model(str(world / "gpt2")), data)
    examples = encode(tokenizer, data, data.train, 32)
    assert tokenizer.decode(examples[0]["input_ids"]) == "skin\nbone"
    assert model(**make_collator(tokenizer, data)(examples)).logits.shape == (2, 2)


# What is counted


@pytest.mark.parametrize(
    ("one", "other", "match", "same"),
    [
        ("SELECT  a\nFROM t", "select A from T", "sql", True),
        ('a = "New York"', 'A = "New York"', "sql", True),
        ('a = "New York"', 'a = "new york"', "sql", False),
        ('a = "New  York"', 'a = "New York"', "sql", False),
        ('a = "x" AND b = "Y"', 'a  = "x" and B = "Y"', "sql", True),
        ("it's 'A'", "it's 'a'", "sql", True),  # WikiSQL's own apostrophes quote nothing
        ('a = "open B', 'a = "open b', "sql", True),
        (" two  words ", "two words", "text", True),
        ("Two", "two", "text", False),
    ],
)
def test_when_two_completions_are_the_same(one, other, match, same):
    assert (normalise(one, match) == normalise(other, match)) == same


def test_the_loss_is_a_mean_over_tokens_however_texts_fall_into_batches(decoder, words):
    model, tokenizer = decoder
    examples = encode(tokenizer, words, words.train, 40)
    alone = []
    for example in examples:
        ids = torch.tensor([example["input_ids"]])
        scores = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        for k, wanted in enumerate(example["labels"][1:]):
            if wanted != IGNORED:
                alone.append((-scores[k, wanted].item(), scores[k].argmax().item() == wanted))
    for sizes in ([8], [3, 5]):
        sums, start = [], 0
        for size in sizes:
            batch = make_collator(tokenizer, words)(examples[start : start + size])
            labels = batch["labels"]
            with torch.no_grad():
                sums.append(sum_tokens((model(**batch).logits,), labels).numpy())
            start += size
        found = average_tokens(type("Found", (), {"predictions": [row for s in sums for row in s]}))
        assert found["nll"] == pytest.approx(sum(loss for loss, _ in alone) / len(alone), rel=1e-5)
        assert found["token_accuracy"] == pytest.approx(sum(r for _, r in alone) / len(alone))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_padding_changes_nothing_that_is_written(world, words, name):
    """What an untrained model writes alone is its completion; in a batch it must write that."""
    model, tokenizer = load_model(find_model(str(world / name)), words)
    model.eval()
    rows = []
    for prompt, _ in ROWS:
        ids = tokenizer(prompt + "\n", return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(6):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
        rows.append((prompt, ids[0].tolist(), start))
    examples = [
        {
            "input_ids": ids, "labels": [IGNORED] * start + ids[start:],
            "completion": tokenizer.decode(ids[start:], skip_special_tokens=True),
        }
        for _, ids, start in rows
    ]  # fmt: skip
    assert len({start for _, _, start in rows}) > 1
    assert measure_exact_match(model, tokenizer, examples, match="text", batch=8) == 1
    wrong = [{**example, "completion": "no"} for example in examples[:4]]
    assert measure_exact_match(model, tokenizer, wrong + examples[4:], match="text", batch=3) == 0.5


def test_a_batch_fits_into_the_positions_of_the_model(decoder):
    model, _ = decoder  # 40 positions
    long = {"input_ids": [5] * 38, "labels": [IGNORED] * 36 + [5] * 2}
    wide = {"input_ids": [5] * 38, "labels": [IGNORED] * 4 + [5] * 34}
    short = {"input_ids": [5] * 6, "labels": [IGNORED] * 4 + [5] * 2}
    parts = list(_batches(model, [long, wide, short, long], 8))
    assert sorted(map(len, parts)) == [2, 2]
    for part in parts:
        prompts, answers = zip(*((e["labels"].count(IGNORED), len(e["labels"]) - e["labels"].count(IGNORED)) for e in part), strict=True)  # fmt: skip  # noqa: E501
        assert max(prompts) + max(answers) <= 40
    assert [len(part) for part in _batches(model, [short] * 5, 2)] == [2, 2, 1]


# What is refused


def test_an_encoder_cannot_write(tmp_path, words):
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    vocabulary = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    (tmp_path / "vocab.txt").write_text(vocabulary)
    BertTokenizerFast(str(tmp_path / "vocab.txt"), eos_token="[SEP]").save_pretrained(tmp_path)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    settings = BertConfig(vocab_size=13, intermediate_size=8, initializer_range=0.3, **small)
    BertForMaskedLM(settings).save_pretrained(tmp_path)
    with pytest.raises(FormatError, match=r"reads a text from both ends .* such as GPT-2 or Llama"):
        load_model(find_model(str(tmp_path)), words)


def test_a_tokenizer_without_an_end_or_a_pad_is_refused(world, tmp_path, words):
    from shutil import copytree

    for name, tokens, data, message in (
        ("endless", {"pad_token": "<start>"}, words, r"of 'endless' has no token for the end"),
        (
            "bare", {}, build_labelled("x", ("a", "b"), thrice(("a", 0))),
            r"of 'bare' has no token for padding",
        ),
    ):  # fmt: skip
        copytree(world / "gpt2", tmp_path / name)
        write_tokenizer(tmp_path / name, **tokens)
        with pytest.raises(FormatError, match=message):
            load_model(find_model(str(tmp_path / name)), data)


def test_a_users_own_prompts(world, tmp_path):
    """A file of one's own and a model of one's own are two options."""
    path = tmp_path / "mine.jsonl"
    rows = [{"ask": a, "answer": b} for a, b in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    data = load_data(str(path), text_column="ask", completion_column="answer")
    assert name_task_type(data) == "CAUSAL_LM"
    own = config(
        world, "llama", data=str(path), text_column="ask", completion_column="answer",
        steps=20, eval_every=0, targets=("q_proj", "v_proj"),
    )  # fmt: skip
    run = train(own, tmp_path / "run")
    assert run.record["data"]["sha256"] == data.digest
    assert run.record["after"]["loss"] < run.record["before"]["loss"]


@pytest.mark.parametrize(
    ("name", "targets"), [("llama", ["q_proj", "v_proj"]), ("gpt2", ["c_attn"])]
)
def test_a_users_own_prompts_and_model_are_two_options(world, tmp_path, name, targets):
    """A file of prompts and completions says so itself; what is adapted follows from the model."""
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": a, "completion": b} for a, b in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    words = ["--data", str(path), "--model", str(world / name), "--steps", "2", "--warmup", "0"]
    done = run("train", *words, "--out", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["options"]["targets"] == targets
    heads = "train tokens  validation tokens  exact before  exact after  loss before  loss after"
    assert heads in done.output
    assert f"{record['after']['loss']:.3f}" in done.output
    assert "exact: test texts whose whole completion is written, among 3 of them" in done.output


@pytest.mark.parametrize(
    ("name", "said", "such_as"),
    [("llama", "down_proj, gate_proj", "q_proj,v_proj"), ("gpt2", "c_attn", "c_attn")],
)
def test_targets_that_are_not_there_are_answered_with_some_that_are(
    world, tmp_path, name, said, such_as
):
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": a, "completion": b} for a, b in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    words = ["--data", str(path), "--model", str(world / name), "--targets", "query"]
    done = run("train", *words, "--out", tmp_path / "run", code=2)
    assert f"its linear modules end in {said}" in done.output
    assert "lm_head" not in done.output
    assert f"such as --targets {such_as}, or all of them" in done.output


def test_an_own_classifier_is_two_options_too(world, tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"text": a, "label": str(k % 2)} for k, (a, _) in enumerate(ROWS * 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--data", str(path), "--model", str(world / "llama"), "--steps", "2", "--warmup", "0"]
    done = run("train", *words, "--out", tmp_path / "run")
    assert "loss" not in done.output
    bad = run("train", *words, "--label-column", "kind", code=2)
    assert "no column 'kind' (it has 'text', 'label'); --text-column" in bad.output
