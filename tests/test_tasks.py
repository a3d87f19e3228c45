"""Tasks: what a file may hold, what it gets when it does not, and what is in the bundled one."""

import json
import re
import sys
from collections import Counter
from importlib.metadata import version

import pytest
import simple_icd_10_cm as icd

from subspace.errors import FormatError, MissingExtraError, MissingFileError, install
from subspace.training import load_data
from subspace.training.tasks.icd10 import icd10_texts

DIGEST = "60ceaca6e63ebd5c47fa222eeb3058ea24d261f072beb3e24aae56fcc79dff0f"
SPLITS = ("train", "validation", "test")


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(count=30):
    return [{"text": f"text {k} of {k % 3}", "label": "abc"[k % 3]} for k in range(count)]


def key(text):
    return " ".join(text.casefold().split())


# The bundled task


@pytest.fixture(scope="module")
def chapters():
    return load_data("icd10")


@pytest.fixture(scope="module")
def categories():
    """Normalised text -> the three-character categories it stands in, read anew."""
    found = {}
    for code in icd.get_all_codes(with_dots=True):
        if icd.is_category(code) or icd.is_subcategory(code):
            for text in (icd.get_description(code), *icd.get_inclusion_term(code)):
                found.setdefault(key(text), set()).add(code[:3])
    return found


def test_chapters_are_balanced(chapters):
    assert len(chapters.labels) == 21
    assert chapters.labels[1] == "Neoplasms (C00-D49)"
    counts = Counter(chapters.train.labels)
    assert len(counts) == 21
    assert max(counts.values()) == 600
    assert min(counts.values()) > 400
    for split in (chapters.validation, chapters.test):
        assert Counter(split.labels) == dict.fromkeys(range(21), 60)


def test_no_category_is_in_two_splits(chapters, categories):
    held = [
        set().union(*(categories[key(text)] for text in getattr(chapters, split).texts))
        for split in SPLITS
    ]
    assert all(held)
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]


def test_no_text_is_there_twice(chapters):
    texts = [key(text) for split in SPLITS for text in getattr(chapters, split).texts]
    assert len(texts) == len(set(texts))


def test_every_text_has_the_chapter_of_its_category(chapters, categories):
    for split in SPLITS:
        part = getattr(chapters, split)
        for text, label in zip(part.texts, part.labels, strict=True):
            (category,) = categories[key(text)]
            assert icd.get_description(icd.get_ancestors(category)[-1]) == chapters.labels[label]


def test_seventh_characters_are_left_out(chapters):
    texts = [text for split in SPLITS for text in getattr(chapters, split).texts]
    assert not [text for text in texts if text.endswith((", initial encounter", ", sequela"))]


def test_the_task_is_the_same_everywhere(chapters):
    """data/README.md names the digest; it moves with the edition of the package."""
    icd10_texts.cache_clear()
    assert load_data("icd10").digest == chapters.digest
    if version("simple-icd-10-cm") == "1.5.0":
        assert chapters.digest == DIGEST


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    icd10_texts.cache_clear()
    with pytest.raises(MissingExtraError, match=re.escape(install("demo"))):
        load_data("icd10")


# A user's own files


def test_a_file_is_split_by_text(tmp_path):
    copies = [{"text": "text 4 of 1", "label": "c"}, {"text": "text 4 of 1", "label": "b"}]
    data = load_data(str(jsonl(tmp_path / "mine.jsonl", rows(60) + copies)))
    assert data.name == "mine.jsonl"
    assert data.labels == ("a", "b", "c")
    assert [len(getattr(data, split)) for split in SPLITS].count(6) >= 1
    assert sum(len(getattr(data, split)) for split in SPLITS) == 62
    homes = [split for split in SPLITS if "text 4 of 1" in getattr(data, split).texts]
    assert len(homes) == 1


def test_the_order_of_lines_does_not_move_a_text(tmp_path):
    one = load_data(str(jsonl(tmp_path / "one.jsonl", rows(60))))
    two = load_data(str(jsonl(tmp_path / "two.jsonl", rows(60)[::-1])))
    for split in SPLITS:
        assert sorted(getattr(one, split).texts) == sorted(getattr(two, split).texts)


def test_csv_and_jsonl_are_the_same_data(tmp_path):
    path = tmp_path / "mine.csv"
    lines = ["kind,what", *(f'{r["label"]},"{r["text"]}"' for r in rows())]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    data = load_data(str(path), text_column="what", label_column="kind")
    other = load_data(str(jsonl(tmp_path / "mine.jsonl", rows())))
    assert data.digest == other.digest


def test_whole_numbers_are_labels(tmp_path):
    path = jsonl(tmp_path / "n.jsonl", [{"text": f"t{k}", "label": k % 2} for k in range(12)])
    assert load_data(str(path)).labels == ("0", "1")


def test_a_folder_is_taken_as_it_is(tmp_path):
    for split, count in zip(SPLITS, (9, 3, 6), strict=True):
        jsonl(tmp_path / f"{split}.jsonl", rows(count))
    data = load_data(str(tmp_path))
    assert [len(getattr(data, split)) for split in SPLITS] == [9, 3, 6]


def test_a_folder_needs_each_file_once(tmp_path):
    jsonl(tmp_path / "train.jsonl", rows())
    with pytest.raises(
        MissingFileError, match=r"exactly one of validation.jsonl or validation.csv"
    ):
        load_data(str(tmp_path))


def test_a_label_of_test_must_be_in_train(tmp_path):
    for split in SPLITS:
        jsonl(tmp_path / f"{split}.jsonl", rows(6))
    jsonl(tmp_path / "test.jsonl", [{"text": "x", "label": "new"}])
    with pytest.raises(FormatError, match=r"test.jsonl, line 1: label 'new' is never seen"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a", "label": 1}\n{"text": ', r"x.jsonl, line 2: not a JSON object"),
        ("x.jsonl", b"[1]\n", r"x.jsonl, line 1: a list, where an object is expected"),
        ("x.jsonl", b"[" * 100_000, r"x.jsonl, line 1: not a JSON object"),
        ("x.jsonl", b'{"text": "a"}\n', r"x.jsonl, line 1: no column 'label' \(it has 'text'\)"),
        ("x.jsonl", b'{"text": 3, "label": "a"}\n', r"line 1: column 'text' must be a text"),
        ("x.jsonl", b'{"text": " ", "label": "a"}\n', r"line 1: column 'text' must be a text"),
        ("x.jsonl", b'{"text": "a", "label": null}\n', r"line 1: label must be a string"),
        ("x.jsonl", b'{"text": "a", "label": true}\n', r"line 1: label must be a string"),
        ("x.jsonl", b'{"text": "a", "label": NaN}\n', r"line 1: label must be a string"),
        (
            "x.jsonl",
            b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n",
            r"line 1: not a JSON object",
        ),
        ("x.jsonl", b"\xff\xfe\x00", r"x.jsonl: not UTF-8 text after line 0"),
        ("x.jsonl", b"x" * (2 << 20), r"x.jsonl, line 1: longer than 1 MiB"),
        ("x.jsonl", b"", r"x.jsonl: no text for train"),
        ("x.jsonl", b'{"text": "a", "label": "a"}\n', r"x.jsonl: no text for validation"),
        ("x.csv", b"", r"x.csv: empty; the first line must name the columns"),
        ("x.csv", b"text,label\na,b,c\n", r"x.csv, line 2: 3 fields, where the header has 2"),
        ("x.csv", b'text,label\n"a,b\n', r"x.csv, line 2: unexpected end of data"),
        ("x.csv", b"text,label\na,\n", r"x.csv, line 2: label must be a string"),
        ("x.csv", b"text,label\n" + b"y" * 200_000 + b",a\n", r"line 2: field larger than"),
        ("x.parquet", b"PAR1", r"x.parquet: cannot read '.parquet'; give .jsonl or .csv"),
    ],
)
def test_what_a_bad_file_gets(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        load_data(str(path))
    assert str(caught.value).isprintable()


def test_one_label_is_nothing_to_learn(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"text": f"t{k}", "label": "a"} for k in range(9)])
    with pytest.raises(FormatError, match=r"only the label 'a'; there must be two or more"):
        load_data(str(path))


def test_a_name_that_is_nothing_lists_what_there_is():
    with pytest.raises(MissingFileError, match=r"no bundled task \(there is icd10, .*snli\)"):
        load_data("icd11")
