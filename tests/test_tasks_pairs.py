"""Tasks of pairs and of completions: the bundled ones, and a user's own files, packed or not."""

import gzip
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from types import ModuleType

import numpy as np
import pytest
import simple_icd_10_cm as icd

from subspace.errors import ArgumentError, FormatError, MissingExtraError, MissingFileError
from subspace.training import TASKS, load_data
from subspace.training.tasks import textfiles
from subspace.training.tasks.hub import hub_records
from subspace.training.tasks.icd10_pairs import _pairs
from subspace.training.tasks.load import strip_folder

DIGEST = "81b7bf75d4cafb6467023b98f8b31d0e4fd9b253cb0bc1efd55bb09368428a1b"
SPLITS = ("train", "validation", "test")


def splits(data):
    return [getattr(data, split) for split in SPLITS]


def jsonl(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# ICD-10-CM's hierarchy


@pytest.fixture(scope="module")
def hierarchy():
    return load_data("icd10-pairs")


@pytest.fixture(scope="module")
def code_of():
    """Title -> codes, read anew."""
    found = {}
    for code in icd.get_all_codes(with_dots=True):
        if icd.is_category(code) or icd.is_subcategory(code, False):
            found.setdefault(" ".join(icd.get_description(code).split()), []).append(code)
    return found


def test_pairs_are_balanced(hierarchy):
    for split, count in zip(splits(hierarchy), (1500, 150, 150), strict=True):
        assert Counter(split.labels) == dict.fromkeys(range(4), count)
        assert len(split.texts) == len(split.pairs) == len(split.labels) == 4 * count


def test_no_title_and_no_category_is_in_two_splits(hierarchy, code_of):
    titles = [{*split.texts, *split.pairs} for split in splits(hierarchy)]
    categories = [{code_of[title][0][:3] for title in held} for held in titles]
    for held in (titles, categories):
        assert not held[0] & held[1]
        assert not held[0] & held[2]
        assert not held[1] & held[2]


def test_every_label_is_what_the_hierarchy_says(hierarchy, code_of):
    block = Counter()
    for split in splits(hierarchy):
        for first, second, label in zip(split.texts, split.pairs, split.labels, strict=True):
            (a,), (b,) = code_of[first], code_of[second]
            if label == 0:
                assert icd.get_parent(b) == a
            elif label == 1:
                assert icd.get_parent(a) == b
            elif label == 2:
                assert icd.get_parent(a) == icd.get_parent(b)
                assert a[:3] == b[:3]
            else:
                assert a[:3] != b[:3]
                block[icd.get_ancestors(a[:3])[0] == icd.get_ancestors(b[:3])[0]] += 1
    assert 0.4 < block[True] / block.total() < 0.5  # hard ones; the rest of blocks with no more


def test_each_class_has_the_same_links_and_the_longer_text_does_not_tell(hierarchy):
    train = hierarchy.train
    rows = list(zip(train.texts, train.pairs, train.labels, strict=True))
    below = {(a, b) for a, b, label in rows if label == 0}
    assert below == {(b, a) for a, b, label in rows if label == 1}
    assert sum(len(b) > len(a) for a, b in below) == len(below) / 2
    ends = {text for pair in below for text in pair}
    assert all(a in ends or b in ends for a, b, label in rows if label > 1)


def test_one_text_alone_says_little(hierarchy):
    """Naive Bayes on the words of either side: chance is 0.25, general against special 0.5."""
    train = hierarchy.train
    for side in ("texts", "pairs"):
        counts = [Counter() for _ in range(4)]
        for text, label in zip(getattr(train, side), train.labels, strict=True):
            counts[label].update(set(re.findall(r"\w+", text.lower())))
        right = total = 0
        for split in (hierarchy.validation, hierarchy.test):
            for text, label in zip(getattr(split, side), split.labels, strict=True):
                words = set(re.findall(r"\w+", text.lower()))
                scores = [sum(np.log((c[w] + 1) / 1500) for w in words) for c in counts]
                right += int(np.argmax(scores)) == label
                total += 1
        assert 0.2 < right / total < 0.38


def test_the_pairs_are_the_same_everywhere(hierarchy):
    if version("simple-icd-10-cm") != "1.5.0":
        pytest.skip("another edition of ICD-10-CM has other pairs")
    assert hierarchy.digest == DIGEST


def test_the_package_of_the_pairs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    _pairs.cache_clear()
    with pytest.raises(MissingExtraError, match=r"'icd10-pairs' .* 'lora-subspace\[demo\]'"):
        load_data("icd10-pairs")


@pytest.mark.parametrize("task", ["icd10", "icd10-pairs"])
def test_a_task_with_texts_of_its_own_takes_no_file(task):
    with pytest.raises(ArgumentError, match=rf"'{task}' brings its texts along; leave out 'x.csv'"):
        load_data(f"{task}:some/x.csv")


# A user's own pairs and completions


def pair_rows(count=40):
    return [
        {"one": f"premise {k // 2}", "two": f"guess {k}", "is": "ab"[k % 2]} for k in range(count)
    ]


def test_pairs_of_a_file_stay_with_their_first_text(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", pair_rows())
    data = load_data(str(path), text_column="one", pair_column="two", label_column="is")
    assert data.kind == "classification"
    assert data.labels == ("a", "b")
    firsts = [set(split.texts) for split in splits(data)]
    assert sum(map(len, firsts)) == 20
    given = {(r["one"], r["two"]): r["is"] for r in pair_rows()}
    for split in splits(data):
        for one, two, label in zip(split.texts, split.pairs, split.labels, strict=True):
            assert given.pop((one, two)) == data.labels[label]
    assert not given


def test_prompts_of_a_file_have_completions_and_no_labels(tmp_path):
    rows = [{"ask": f"say {k}", "answer": f"It is {k}."} for k in range(30)]
    path = jsonl(tmp_path / "mine.jsonl.gz", rows)
    data = load_data(str(path), text_column="ask", completion_column="answer")
    assert (data.kind, data.labels, data.match) == ("completion", (), "text")
    assert [len(split) for split in splits(data)] == [24, 3, 3]
    for split in splits(data):
        assert split.labels == split.pairs == ()
        for prompt, completion in zip(split.texts, split.completions, strict=True):
            assert completion == prompt.replace("say", "It is") + "."


def test_what_belongs_to_a_text_is_part_of_the_digest(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", pair_rows())
    pairs = load_data(str(path), text_column="one", pair_column="two", label_column="is")
    singles = load_data(str(path), text_column="one", label_column="is")
    prompts = load_data(str(path), text_column="one", completion_column="two")
    digests = [pairs.digest, singles.digest, prompts.digest, replace(prompts, match="sql").digest]
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("line", "columns", "message"),
    [
        ({"text": "a", "label": 1}, {"pair_column": "two"}, r"line 1: no column 'two' \(it has"),
        ({"text": "a", "label": 1, "two": 3}, {"pair_column": "two"}, r"line 1: column 'two' must"),
        ({"text": "a"}, {"completion_column": "c"}, r"line 1: no column 'c' \(it has 'text'\)"),
        ({"text": "a", "c": " "}, {"completion_column": "c"}, r"line 1: column 'c' must be a text"),
        ({"text": "a", "c": "b"}, {"completion_column": "c"}, r"give at least 3 texts$"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, columns, message):
    path = jsonl(tmp_path / "x.jsonl", [line])
    with pytest.raises(FormatError, match=message):
        load_data(str(path), **columns)


def test_a_pair_and_a_completion_are_too_much():
    with pytest.raises(ArgumentError, match="one or the other"):
        load_data("x.jsonl", pair_column="a", completion_column="b")


# Archives


def test_a_packed_file_is_the_same_data(tmp_path):
    rows = [{"text": f"text {k}", "label": k % 2} for k in range(30)]
    plain = load_data(str(jsonl(tmp_path / "a.jsonl", rows)))
    assert load_data(str(jsonl(tmp_path / "b.jsonl.gz", rows))).digest == plain.digest
    for split, part in zip(SPLITS, splits(plain), strict=True):
        lines = [f"{t},{k}\n" for t, k in zip(part.texts, part.labels, strict=True)]
        packed = gzip.compress(("text,label\n" + "".join(lines)).encode())
        (tmp_path / f"{split}.csv.gz").write_bytes(packed)
    assert load_data(str(tmp_path)).digest == plain.digest


def test_a_bomb_is_left_packed(tmp_path):
    """40 MiB of short rows in 0.1: no line is long, and a file of its size may hold 21 MiB."""
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a", "label": "b"}\n' * 1_500_000))
    with pytest.raises(FormatError, match=r"bomb.jsonl.gz: unpacks to more than \d+ MiB"):
        load_data(str(path))


def test_a_file_that_is_large_however_packed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "_LARGEST_UNPACKED", 1000)
    path = jsonl(tmp_path / "x.jsonl.gz", [{"text": f"{k}", "label": "a"} for k in range(100)])
    with pytest.raises(FormatError, match="unpacks to more than 0 MiB"):
        load_data(str(path))


def test_damaged_archives_are_named(tmp_path):
    whole = gzip.compress(json.dumps({"text": "a" * 999, "label": "b"}).encode())
    for name, content, message in (
        ("long", gzip.compress(b"x" * (2 << 20)), r"line 1: longer than 1 MiB"),
        ("cut", whole[:-9], r"cut.jsonl.gz: damaged gzip after line 0"),
        ("other", b"PK\x03\x04", r"other.jsonl.gz: damaged gzip after line 0"),
        ("bits", whole[:20] + b"\xff" * 9 + whole[29:], r"bits.jsonl.gz: damaged gzip"),
        ("binary", gzip.compress(b"\xff\xfe"), r"binary.jsonl.gz: not UTF-8"),
    ):
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message):
            load_data(str(path))


# Published data sets from local files


def queries(tables=range(60), operators=("NONE", "NONE", "MAX", "MIN", "COUNT", "SUM", "AVG")):
    return [
        {
            "question": f"what is {k} of {t}?", "agg": operator, "table": f"1-{t}",
            "sql": f'SELECT {operator} C{k % 3}_FIELD FROM TABLE WHERE A.B_FIELD = "X_FIELD {k}"',
        }
        for t in tables for k, operator in enumerate(operators)
    ]  # fmt: skip


def pairs_of_premises(premises=range(60)):
    return [
        {"premise": f"premise {p}", "hypothesis": f"guess {label}", "label": label}
        for p in premises for label in ("entailment", "neutral", "contradiction", "-")
    ]  # fmt: skip


def table(question):
    return question.split(" of ")[1]


def test_operators_are_balanced_and_tables_held_out(tmp_path):
    path = jsonl(tmp_path / "some.jsonl.gz", queries())
    data = load_data(f"wikisql-agg:{path}")
    assert data.labels == ("NONE", "MAX", "MIN", "COUNT", "SUM", "AVG")
    tables = [{table(text) for text in split.texts} for split in splits(data)]
    assert all(tables)
    assert not tables[0] & tables[1]
    assert not tables[0] & tables[2]
    assert not tables[1] & tables[2]
    given = {row["question"]: row["agg"] for row in queries()}
    for split in splits(data):
        assert len(set(Counter(split.labels).values())) == 1
        assert all(
            given[t] == data.labels[k] for t, k in zip(split.texts, split.labels, strict=True)
        )
    reverse = jsonl(tmp_path / "reverse.jsonl", queries()[::-1])
    assert load_data(f"wikisql-agg:{reverse}").digest == data.digest


def test_a_folder_trains_on_train_and_halves_dev(tmp_path):
    jsonl(tmp_path / "wikisql_train_some.jsonl.gz", queries(range(30)))
    jsonl(tmp_path / "wikisql_dev.jsonl.gz", queries(range(25, 80)))
    jsonl(tmp_path / "other_train.jsonl", [{}])
    train, validation, test = (
        {int(table(text)[:-1]) for text in split.texts}
        for split in splits(load_data(f"wikisql-agg:{tmp_path}"))
    )
    assert train <= set(range(30))
    assert min(validation | test) >= 25
    assert not train & (validation | test)
    assert not validation & test


def test_a_query_is_written_from_its_question_and_the_columns_that_are_known(tmp_path):
    path = jsonl(tmp_path / "some.jsonl", queries())
    data = load_data(f"wikisql-sql:{path}")
    assert (data.kind, data.match) == ("completion", "sql")
    given = {row["question"]: row["sql"] for row in queries()}
    for split in splits(data):
        for prompt, sql in zip(split.texts, split.completions, strict=True):
            columns, question = prompt.split("\n")
            assert given.pop(question) == sql
            assert columns == "columns: A.B_FIELD, C0_FIELD, C1_FIELD, C2_FIELD"
    assert not given


def test_premises_are_held_out(tmp_path):
    jsonl(tmp_path / "snli_dev.jsonl.gz", pairs_of_premises(range(50)))
    jsonl(tmp_path / "snli_test.jsonl.gz", pairs_of_premises(range(45, 70)))
    data = load_data(f"snli:{tmp_path}")
    assert data.labels == ("entailment", "neutral", "contradiction")
    train, validation, test = (set(split.texts) for split in splits(data))
    assert test == {f"premise {k}" for k in range(45, 70)}
    assert train | validation == {f"premise {k}" for k in range(45)}
    assert not train & validation
    for split in splits(data):
        assert all(
            p == f"guess {data.labels[k]}" for p, k in zip(split.pairs, split.labels, strict=True)
        )


def test_the_publishers_own_names_of_snli_are_read(tmp_path):
    names = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
    renamed = [{names[k]: v for k, v in row.items()} for row in pairs_of_premises()]
    parts = {"train": renamed[:160], "dev": renamed[160:200], "test": renamed[200:]}
    for part, rows in parts.items():
        jsonl(tmp_path / f"snli_1.0_{part}.jsonl", rows)
    assert [len(split) for split in splits(load_data(f"snli:{tmp_path}"))] == [120, 30, 30]


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("wikisql-agg", {"agg": "MEDIAN"}, r"x.jsonl, line 2: agg 'MEDIAN' is none of NONE, MAX"),
        ("wikisql-agg", {"table": None}, r"x.jsonl, line 2: column 'table' must be a text"),
        ("wikisql-sql", {"sql": 3}, r"x.jsonl, line 2: column 'sql' must be a text"),
        ("wikisql-sql", {"sql": {"agg": 9}}, r"x.jsonl, line 2: not a record of WikiSQL"),
        ("snli", {"label": "maybe"}, r"x.jsonl, line 2: label 'maybe' is none of entailment"),
        ("snli", {"premise": ""}, r"x.jsonl, line 2: column 'premise' must be a text"),
    ],
)
def test_a_bad_record_of_a_published_set_is_named(tmp_path, task, row, message):
    rows = queries() if task.startswith("wikisql") else pairs_of_premises()
    rows[1] |= row
    path = jsonl(tmp_path / "x.jsonl", rows)
    with pytest.raises(FormatError, match=message):
        load_data(f"{task}:{path}")


def test_too_little_of_a_published_set_is_said(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", queries(range(1)))
    with pytest.raises(FormatError, match=r"is left without a text for test; give more"):
        load_data(f"wikisql-sql:{path}")
    jsonl(path, queries(operators=("NONE", "MAX")))
    with pytest.raises(FormatError, match=r"no query with MIN, COUNT, SUM, AVG for train"):
        load_data(f"wikisql-agg:{path}")


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"no file or folder 'nowhere' for the task 'snli'"):
        load_data("snli:nowhere")
    with pytest.raises(MissingFileError, match=r"has no file of the task 'snli', such as snli_tr"):
        load_data(f"snli:{tmp_path}")
    for name in ("snli_dev.jsonl", "snli_dev_2.jsonl"):
        jsonl(tmp_path / name, [])
    with pytest.raises(MissingFileError, match=r"two files for dev, .*name the one"):
        load_data(f"snli:{tmp_path}")


def test_a_record_names_no_folder(tmp_path):
    path = jsonl(tmp_path / "snli_dev.jsonl", [])
    assert strip_folder(f"snli:{path}") == "snli:snli_dev.jsonl"
    assert strip_folder(f"snli:{tmp_path}") == f"snli:{tmp_path.name}"
    assert strip_folder(str(path)) == "snli_dev.jsonl"
    for plain in (*TASKS, "owner/name:subset"):
        assert strip_folder(plain) == plain


# The hub, without the hub


class Part(list):
    """A split as `datasets` gives it: records, and a feature for each column."""

    def __init__(self, rows, **classes):
        super().__init__(rows)
        columns = rows[0] if rows else {}
        self.features = {c: type("F", (), {})() for c in columns}
        for column, names in classes.items():
            self.features[column].names = names


@pytest.fixture
def hub(monkeypatch):
    """A `datasets` that gives what the test put there, and remembers what it was asked for."""
    module = ModuleType("datasets")
    module.__version__ = "4.1.0"
    module.asked, module.found = [], {}

    def load_dataset(*args, **options):
        module.asked.append((args, options))
        if isinstance(module.found, Exception):
            raise module.found
        return module.found

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_a_name_on_the_hub_with_its_classes(hub):
    rows = [{"text": f"text {k}", "label": k % 3 - 1} for k in range(90)]
    part = Part(rows, label=["no", "yes"])
    hub.found = {"train": part, "validation": part, "test": part, "unsupervised": part}
    data = load_data("owner/reviews:plain")
    assert hub.asked == [(("owner/reviews", "plain"), {"revision": None})]
    assert (data.name, data.labels) == ("reviews:plain", ("no", "yes"))
    assert [len(split) for split in splits(data)] == [60, 60, 60]  # -1 is no class
    hidden = Part([{"text": "x", "label": -1}], label=["no", "yes"])
    hub.found = {"train": part, "validation": part, "test": hidden}
    assert [len(split) for split in splits(load_data("owner/reviews"))] == [54, 60, 6]
    hub.found = {"train": part}
    assert [len(split) for split in splits(load_data("owner/reviews"))] == [48, 6, 6]


def test_published_sets_by_their_hub_names(hub):
    tables = {"header": ["Name", "Goals for"], "id": "t"}
    names = ["entailment", "neutral", "contradiction"]
    hub.found = {
        part: Part([
            {
                "question": f"who {part} {k}", "table": {**tables, "id": f"{part}{k}"},
                "sql": {"human_readable": f"SELECT Name FROM table WHERE A = {k}", "agg": k % 6},
            }
            for k in range(12)
        ])
        for part in SPLITS
    }  # fmt: skip
    data = load_data("wikisql-sql")
    assert hub.asked[0][0][0] == "Salesforce/wikisql"
    assert [len(split) for split in splits(data)] == [12, 12, 12]
    assert all(text.startswith("columns: Name, Goals for\nwho test") for text in data.test.texts)
    agg = load_data("wikisql-agg")
    assert Counter(agg.test.labels) == dict.fromkeys(range(6), 2)
    hub.found = {
        part: Part(
            [{"premise": f"{part} {k}", "hypothesis": "h", "label": k % 4 - 1} for k in range(8)],
            label=names,
        )
        for part in SPLITS
    }
    assert [len(split) for split in splits(load_data("snli"))] == [6, 6, 6]
    assert hub.asked[-1][0][0] == "stanfordnlp/snli"


def test_the_real_library_gives_classes_by_name(tmp_path, monkeypatch):
    """What `datasets` itself writes and reads, from a folder that is named like a hub's set."""
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    folder = tmp_path / "owner" / "reviews"
    for split, rows in (("train", 3), ("test", 2)):
        part = datasets.Dataset.from_dict(
            {
                "text": [f"{split} {k}" for k in range(rows)],
                "label": [k % 3 - 1 for k in range(rows)],
            },
            features=features,
        )
        (folder / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = {split: list(records) for split, records in hub_records("owner/reviews").items()}
    assert found == {
        "train": [
            ("owner/reviews, train, row 2", {"text": "train 1", "label": "no"}),
            ("owner/reviews, train, row 3", {"text": "train 2", "label": "yes"}),
        ],
        "test": [("owner/reviews, test, row 2", {"text": "test 1", "label": "no"})],
    }


def test_without_datasets_both_ways_out_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"'owner/name' is no file .*\[hub\]'; or gi"):
        load_data("owner/name")
    for task in ("snli", "wikisql-agg", "wikisql-sql"):
        with pytest.raises(MissingExtraError, match=rf"{task}:PATH .*'lora-subspace\[hub\]'"):
            load_data(task)


def test_what_the_hub_cannot_give(hub):
    hub.found = ConnectionError("no route\nto host")
    with pytest.raises(FormatError, match=r"cannot load data set 'owner/name' .*Error: no route$"):
        load_data("owner/name")
    hub.__version__ = "3.6.0"
    with pytest.raises(ArgumentError, match=r"datasets is 3.6.0, which runs code"):
        load_data("owner/name")


@pytest.mark.parametrize("name", ["./x/y", "x/y.jsonl", "a/b/c", "x\\y", "nothing.csv"])
def test_a_path_is_no_name_on_the_hub(hub, name):
    with pytest.raises(MissingFileError, match="no file or folder"):
        load_data(name)
    assert not hub.asked
