"""A sweep in a TOML file: every option by its name, and what is wrong told with the file's."""

import json

import click
import pytest

from subspace.cli import main
from subspace.errors import FormatError, MissingFileError
from subspace.training.sweep.file import NOT_OF_A_SWEEP, read_sweep
from tests.support.tiny_world import write_world
from tests.support.verbs import run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def test_a_file_that_is_no_sweep(tmp_path):
    path = tmp_path / "sweep.toml"
    with pytest.raises(MissingFileError, match="no sweep file"):
        read_sweep(path)
    path.write_text("ranks = [1,")
    with pytest.raises(FormatError, match="cannot be read as TOML"):
        read_sweep(path)


OPTIONS = {
    word.removeprefix("--"): parameter
    for parameter in main.get_command(None, "train").params
    for word in parameter.opts
    if isinstance(parameter, click.Option)
}


def value_of(parameter):
    """One that the option takes, as TOML."""
    if getattr(parameter, "is_flag", False):
        return "true"
    if parameter.name in ("ranks", "seeds", "lr") or parameter.type is click.INT:
        return "1"
    return '"1"'


@pytest.mark.parametrize("word", sorted(set(OPTIONS) - set(NOT_OF_A_SWEEP)))
def test_every_option_of_train_has_its_name_in_a_file(tmp_path, word):
    path = tmp_path / "sweep.toml"
    for key in (word, word.replace("-", "_")):
        path.write_text(f"{key} = {value_of(OPTIONS[word])}")
        assert list(read_sweep(path)) == [OPTIONS[word].name]


@pytest.mark.parametrize("word", NOT_OF_A_SWEEP)
def test_what_says_how_to_print_is_told_where_it_belongs(tmp_path, word):
    assert word in OPTIONS
    path = tmp_path / "sweep.toml"
    path.write_text(f"{word} = true")
    with pytest.raises(FormatError, match=rf"'{word}' is no part of a sweep; give --{word} as"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rnaks = [1]", r"no option 'rnaks'; did you mean 'ranks'\? There are accumulate, alpha, "),
        ("batch-size = 4", r"no option 'batch-size'; did you mean 'batch'\?"),
        ("learning_rates = 1e-3", r"no option 'learning_rates'; did you mean 'lr'\?"),
        ("zzzz = 1", r"no option 'zzzz'; there are accumulate"),
        ('steps = "300"', r"steps is '300'; it must be a whole number$"),
        ("steps = 300.0", r"steps is 300\.0; it must be a whole number$"),
        ("jobs = true", r"jobs is True; it must be a whole number$"),
        ("bf16 = 1", r"bf16 is 1; it must be true or false$"),
        ("model = 1", r"model is 1; it must be a text in quotes$"),
        ("ranks = [1, 'x']", r"ranks is \[1, 'x'\]; it must be a whole number, or a list of them"),
        ("seeds = []", r"seeds is \[\]; it must be a whole number, or a list"),
        ("targets = [[1]]", r"targets is \[\[1\]\]; it must be names in quotes, a list of them"),
        ("lr = { lora = 'x' }", r"lr is \{'lora': 'x'\}; it must be a number, a list of them, or"),
        ("alpha = [1]", r"alpha is \[1\]; it must be a number, or a multiple of the rank"),
        ("data = 1", r"data is 1; it must be a text in quotes, or a list of them"),
        ("rank = 1\nranks = [2]", r"'ranks' says again what another line says"),
        ("max-length = 8\nmax_length = 9", r"'max_length' says again what another line says"),
    ],
)
def test_a_file_that_says_something_else_is_told_what_and_where(tmp_path, line, said):
    path = tmp_path / "sweep.toml"
    path.write_text(line)
    with pytest.raises(FormatError, match=rf"sweep\.toml: {said}"):
        read_sweep(path)
    done = run("train", "--config", path, code=2)
    assert "sweep.toml: " in done.stderr


def test_a_file_of_single_words(world, tmp_path):
    """One rank, one seed and one target set need no lists, and a dash is as good as a line."""
    (tmp_path / "one.toml").write_text(
        f"""
        model = {json.dumps(str(world / "tiny-bert"))}
        data = {json.dumps(str(world / "texts.jsonl"))}
        rank = 2
        seed = 3
        targets = "query"
        reference = "head"
        steps = 2
        warmup = 0
        max-length = 9
        out = {json.dumps(str(tmp_path / "runs"))}
        """
    )
    done = run("train", "--config", tmp_path / "one.toml", "--json")
    lora, head = json.loads(done.stdout)["runs"]
    assert (lora["options"]["rank"], lora["options"]["seed"]) == (2, 3)
    assert lora["options"]["max_length"] == 9
    assert head["options"]["method"] == "head"
