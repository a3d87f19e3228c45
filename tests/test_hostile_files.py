"""What bad input gets: one line that names the file and the tensor, exit code 2, no traceback."""

from __future__ import annotations

import json
import os
import pickle
import time
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.peft import regex as patterns
from tests.support.peft_adapters import (
    PREFIX,
    edited,
    made,
    safetensors_bytes,
    two_linears,
    written,
)
from tests.support.verbs import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")

A0, B0 = f"{PREFIX}0.lora_A.weight", f"{PREFIX}0.lora_B.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    wrapped = made(two_linears(), target_modules=["0", "2"])
    return written(wrapped, tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound, tmp_path):
    """Copy a sound adapter, for a test to damage."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((sound / name).read_bytes())
    return tmp_path


def refused(*paths: Path, options: tuple[str, ...] = ()) -> str:
    """Run inspect; hold it to one line of error, exit code 2, and nothing on stdout."""
    result = run("inspect", *options, *paths, code=2)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if "is a torch pickle" not in line]
    (line,) = lines
    assert line.startswith("Error: ")
    assert "this is a bug" not in line
    assert line.isprintable()
    assert str(paths[0])[-20:] in line
    return line


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def stored(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path = folder / "adapter_model.safetensors"
    path.unlink()
    save_file(tensors, path)
    return folder


def test_a_sound_adapter_passes(folder):
    run("inspect", folder)


def test_a_missing_folder(tmp_path):
    assert "no such file or folder" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a" * 300, "x" * 5000])
def test_a_path_that_cannot_be(name):
    result = run("inspect", name, code=2)
    assert "cannot be looked at" in result.stderr or "no such file" in result.stderr
    with pytest.raises(subspace.SubspaceError, match=r"cannot be looked at|no such file"):
        subspace.load(f"{name}\0")


def test_a_folder_without_an_adapter(tmp_path):
    assert "no adapter here" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    line = refused(tmp_path)
    assert "it holds model.safetensors (a whole model is no adapter)" in line


def test_a_config_without_weights(folder):
    (folder / "adapter_model.safetensors").unlink()
    assert "has adapter_config.json but no weights" in refused(folder)


def test_weights_without_a_config(folder):
    (folder / "adapter_config.json").unlink()
    assert "adapter_model.safetensors has no adapter_config.json beside it" in refused(folder)


def test_a_file_that_holds_no_weights(folder):
    assert "not a weights file" in refused(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("IA3", r"no low-rank update \(it rescales activations\); merge it .* subspace diff"),
        ("OFT", r"no low-rank update \(it rotates weights\); merge it"),
        ("BOFT", r"no low-rank update \(it rotates weights\); merge it"),
        ("FOURIERFT", r"no low-rank update \(it adds a sparse spectrum\); merge it"),
        ("PROMPT_TUNING", r"no low-rank update \(it trains a prompt\); it leaves every weight"),
        ("PREFIX_TUNING", r"no low-rank update \(it trains a prompt\); it leaves every weight"),
        ("XLORA", r"several LoRA adapters .* give one of the adapters"),
        ("VBLORA", r"from a bank of vectors; write it as LoRA: peft\.save_as_lora"),
        ("SHINY", "unknown here"),
        (None, "unknown here"),
        (["LORA"], "unknown here"),
        ({"a": 1}, "unknown here"),
    ],
)
def test_an_unknown_peft_type(folder, kind, why):
    edited(folder, peft_type=kind)
    with pytest.raises(subspace.SubspaceError, match=why):
        subspace.load(folder)
    line = refused(folder)
    assert "adapter_config.json: peft_type" in line
    assert "what is read of PEFT's: ADALORA, LOHA, LOKR, LORA, VERA" in line


@pytest.mark.parametrize("alpha", ["16", True, [16], {}, float("nan"), float("inf"), 10**400])
def test_an_alpha_that_is_no_number(folder, alpha):
    line = refused(edited(folder, lora_alpha=alpha))
    assert "adapter_config.json: lora_alpha = " in line
    assert "is not a number" in line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": None}, "peft_type None is unknown here"),
        ({"lora_alpha": None}, "has no lora_alpha"),
        ({"r": 0}, "r = 0 is not a rank"),
        ({"r": "8"}, "r = '8' is not a rank"),
        ({"use_rslora": "false"}, "use_rslora = 'false' is neither true nor false"),
        ({"rank_pattern": [1]}, "rank_pattern = [1] is not a mapping"),
        ({"rank_pattern": {"0": 1.5}}, "rank_pattern['0'] = 1.5 is not a rank"),
        ({"alpha_pattern": {"0": "x"}}, "alpha_pattern['0'] = 'x' is not a number"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: the pattern '(' cannot be used"),
        ({"modules_to_save": 3}, "modules_to_save = 3 is not a list of names"),
        ({"target_parameters": [3]}, "target_parameters = [3] is not a list of names"),
    ],
)
def test_a_config_that_makes_no_sense(folder, fields, message):
    assert message in refused(edited(folder, **fields))


def test_fields_that_are_not_needed_may_hold_anything(folder):
    edited(folder, target_modules=3, bias=[1], base_model_name_or_path={"a": 1}, eva_config=[[]])
    run("inspect", folder)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"r": 1, "r": 2}', b'{"a":' * 100_000, b"\xff" * 9]
)
def test_a_config_that_is_not_sound(folder, content):
    (folder / "adapter_config.json").write_bytes(content)
    assert "adapter_config.json: " in refused(folder)


@pytest.mark.parametrize("keep", [0, 4, 8, 30, -1])
def test_a_truncated_file(folder, keep):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "adapter_model.safetensors: " in refused(folder)


def test_a_header_that_claims_petabytes(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "claims a header of 1152921504606846976 bytes in a file of 10" in refused(folder)
    entry = {"dtype": "F32", "shape": [2**50], "data_offsets": [0, 2**52]}
    path.write_bytes(safetensors_bytes({A0: entry}))
    assert f"tensor '{A0}' ends at byte 4503599627370496 of 0" in refused(folder)


def test_the_same_key_twice(folder):
    entry = '{"dtype":"F32","shape":[0,6],"data_offsets":[0,0]}'
    text = f'{{"{A0}":{entry},"{A0}":{entry}}}'.encode()
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(text))
    assert f"the key '{A0}' is there twice" in refused(folder)


def test_json_nested_deep(folder):
    text = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(text))
    assert "nested too deep" in refused(folder)


@pytest.mark.parametrize("missing", [A0, B0])
def test_a_factor_without_its_partner(folder, missing):
    tensors = tensors_of(folder)
    del tensors[missing]
    line = refused(stored(folder, tensors))
    assert "has no partner" in line
    assert A0 in line
    assert B0 in line


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((3, 6), (10, 4), "have different ranks, 3 and 4"),
        ((3, 6, 1), (10, 4, 1), "have different ranks, 3 and 4"),
        ((4, 6, 1), (10, 2, 2), "are not the two factors of one layer"),
        ((3, 6, 1), (10, 3), "are not the two factors of one layer"),
        ((), (10, 3), "has shape (), which is no factor"),
        ((0,), (10, 3), "has shape (0,), which is no factor"),
        ((3, 6), (0, 3), "has shape (0, 3), which is no factor"),
        ((3,) * 6, (10, 3), "has shape (3, 3, 3, 3, 3, 3), which is no factor"),
    ],
)
def test_factors_that_do_not_fit(folder, a, b, message):
    line = refused(stored(folder, tensors_of(folder) | {A0: torch.ones(a), B0: torch.ones(b)}))
    assert message in line
    assert A0 in line or B0 in line


def test_groups_that_would_multiply_the_bytes(folder):
    header, at = {}, 0
    for name, shape in ((A0, [2**15, 2**15, 1]), (B0, [2**15, 1, 1])):  # 2**15 groups
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    path = folder / "adapter_model.safetensors"
    with path.open("wb") as file:
        file.write(safetensors_bytes(header))
        file.truncate(file.tell() + at)  # a sparse file: no bytes are written
    assert "32768 groups of a convolution are too many to lay out" in refused(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e8m0fnu, torch.complex64])
def test_factors_of_a_dtype_that_is_not_read(folder, dtype):
    tensors = tensors_of(folder) | {A0: torch.ones(3, 6).to(dtype)}
    name = str(dtype).removeprefix("torch.")
    assert f"'{A0}' holds {name}; factors of float64, float32" in refused(stored(folder, tensors))


def test_two_names_for_one_factor(folder):
    tensors = tensors_of(folder)
    tensors[A0.removeprefix(PREFIX)] = torch.ones(3, 6)
    assert "are the same factor of module '0'" in refused(stored(folder, tensors))


class Evil:
    def __init__(self, folder: Path) -> None:
        self.mark = folder / "was_run"

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_a_pickle_that_wants_to_run_code(folder, name, how):
    (folder / "adapter_model.safetensors").unlink()
    evil = {A0: Evil(folder)}
    if how == "pickle":
        (folder / name).write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, folder / name, _use_new_zipfile_serialization=how == "torch")
    line = refused(folder)
    assert name in line
    assert not (folder / "was_run").exists()
    if name.endswith("safetensors"):
        assert "pickle" in line
    elif how == "torch":
        assert "mkdir" in line


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x(.*)*y"])
def test_a_pattern_that_never_ends(folder, field, pattern, monkeypatch):
    assert patterns._SECONDS <= 2
    monkeypatch.setattr(patterns, "_SECONDS", 0.5)
    name = "a" * 60 + "!"
    tensors = {k.replace("model.0.", f"model.{name}."): v for k, v in tensors_of(folder).items()}
    stored(folder, tensors)
    began = time.monotonic()
    line = refused(edited(folder, **{field: {"0": 5, pattern: 4}}))
    assert time.monotonic() - began < 5
    assert f"{field}: the pattern {pattern!r}" in line


def test_without_a_process_to_match_in(folder, monkeypatch):
    monkeypatch.setattr(patterns.sys, "executable", str(folder / "nowhere"))
    edited(folder, alpha_pattern={"[02]": 5})
    assert "alpha_pattern: no process to match patterns in" in refused(folder)


def test_many_plain_patterns_are_quick_or_refused(folder):
    tensors = {
        f"layer.{i}.{j}.lora_{f}.weight": torch.ones(1, 1)
        for i in range(40)
        for j in range(50)
        for f in "AB"
    }
    stored(folder, tensors)
    alphas = {f"layer.{i}.{j}": 2 + i for i in range(40) for j in range(50)}
    began = time.monotonic()
    adapter = subspace.load(edited(folder, alpha_pattern=alphas))
    assert time.monotonic() - began < 3
    assert adapter.updates["layer.7.3"].scale == 9
    dotted = {"".join("." if n >> k & 1 else "a" for k in range(11)): 2 for n in range(2**11)}
    names = {f"{'b' * 11}.{i}.{j}.{'b' * 11}" for i in range(20) for j in range(50)}
    stored(folder, {f"{n}.lora_{f}.weight": torch.ones(1, 1) for n in names for f in "AB"})
    assert "2048 patterns for 1000 modules are too many" in refused(
        edited(folder, alpha_pattern=dotted)
    )


def test_a_name_that_is_too_long(folder):
    tensors = {f"{'a.' * 2000}lora_{f}.weight": torch.ones(1, 1) for f in "AB"}
    assert "is too long" in refused(stored(folder, tensors))


def test_control_characters_never_reach_the_terminal(folder):
    red = "\x1b[31mred\x1b]0;title\x07\r\n\u202e\x9b2J[bold]x[/bold]"
    tensors = tensors_of(folder)
    tensors |= {f"{PREFIX}{red}.lora_{f}.weight": torch.ones(3, 3) for f in "AB"}
    tensors[f"{red}.unknown"] = torch.ones(1)
    stored(edited(folder, base_model_name_or_path=red, bias=red, **{red: 1}), tensors)
    for options in ([], ["--json"]):
        result = run("inspect", folder, *options)
        for line in (result.stdout + result.stderr).split("\n"):
            assert line.isprintable()
    assert "\\x1b[31mred" in run("inspect", folder).stdout
    del tensors[f"{PREFIX}{red}.lora_B.weight"]
    assert "\\x1b[31mred" in refused(stored(folder, tensors))


@pytest.mark.parametrize("name", ["../other", "..", "/etc", "a/b", "\0", ""])
def test_an_adapters_name_cannot_leave_the_folder(folder, name):
    with pytest.raises(subspace.SubspaceError, match="nothing outside"):
        subspace.load(folder, adapter_name=name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_pipe_or_a_folder_in_a_files_place(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "not a regular file" in refused(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert "not a regular file" in refused(folder)


def test_a_device_in_the_configs_place(folder):
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").symlink_to("/dev/zero")
    assert "not a regular file" in refused(folder)


@pytest.mark.parametrize(
    ("name", "names", "format"),
    [
        ("x.safetensors", ["a.some_lora.down.bias"], "diffusers wants"),
        ("x.safetensors", ["model.embed.weight"], "no LoRA factors among its 1 tensors"),
    ],
)
def test_what_no_format_reads_is_compared_with_the_nearest(tmp_path, name, names, format):
    save_file({n: torch.ones(2, 2) for n in names}, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        line = refused(path)
        assert format in line
        assert "what is read: " in line or "nearest: " in line


CONFIG_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text("a.0(+*[", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("a.0(", max_size=2), inner),
    max_leaves=4,
)
FIELDS = (
    *("peft_type", "lora_alpha", "r", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("modules_to_save", "target_parameters", "init_lora_weights", "use_bdlora", "eva_config"),
    *("fan_in_fan_out", "bias", "base_model_name_or_path", "unheard_of"),
)


@given(fields=st.dictionaries(st.sampled_from(FIELDS), CONFIG_VALUES, max_size=4))
def test_any_config_is_read_or_refused(sound, tmp_path_factory, fields):
    folder = tmp_path_factory.getbasetemp() / "any_config"
    folder.mkdir(exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        weights.write_bytes((sound / weights.name).read_bytes())
    config = json.loads((sound / "adapter_config.json").read_text()) | fields
    (folder / "adapter_config.json").write_text(json.dumps(config))
    result = run("inspect", "--json", folder, code={0, 2})
    assert len(result.stderr.splitlines()) <= 1


PARTS = (
    *("base_model", "model", "0", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"),
    *("weight", "bias", "default", "base_layer", "lora_magnitude_vector", "modules_to_save"),
    *("lora_diag", "trainable_tokens_delta"),
)
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(".".join)
SHAPES = st.lists(st.integers(0, 4), max_size=5).map(tuple)


@given(shapes=st.dictionaries(NAMES, SHAPES, max_size=5))
def test_any_tensors_are_read_or_refused(sound, tmp_path_factory, shapes):
    folder = tmp_path_factory.getbasetemp() / "any_tensors"
    folder.mkdir(exist_ok=True)
    config = (sound / "adapter_config.json").read_bytes()
    (folder / "adapter_config.json").write_bytes(config)
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    content = safetensors_bytes(header, bytes(at))
    (folder / "adapter_model.safetensors").write_bytes(content)
    try:
        adapter = subspace.load(folder)
    except subspace.SubspaceError:
        return
    used = sum(2 for _ in adapter) + len(adapter.set_aside)
    assert used <= len(shapes) <= used + len(adapter)  # a diagonal may go with a pair
    for name, update in adapter.items():
        assert update.shape == adapter.updates[name].shape
        assert update.delta().shape == update.shape
