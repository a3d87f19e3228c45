"""Whatever config and tensors a stranger gives, PEFT's methods are read in full or refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import subspace
from tests.support.peft_adapters import PREFIX, safetensors_bytes
from tests.support.samples import ROOT
from tests.support.verbs import run

LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
ADALORA = ("lora_A", "lora_B", "lora_E", "ranknum")
VERA = ("vera_lambda_b", "vera_lambda_d")
CONFIGS = {
    "LOHA": (LOHA, {"alpha": 7, "r": 2}),
    "LOKR": (LOKR, {"alpha": 7, "r": 2}),
    "ADALORA": (ADALORA, {"lora_alpha": 7, "init_r": 2}),
    "VERA": (VERA, {"r": 2}),
    "LORA": (("lora_A.weight", "lora_B.weight"), {"lora_alpha": 7, "r": 1}),
}
EXPERTS = {"target_parameters": ["e.gate_up_proj", "e.down_proj"], "peft_version": "0.21.2"}

CONFIG_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text("a.0(+*[", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("a.0(", max_size=2), inner),
    max_leaves=4,
)
FIELDS = (
    *("alpha", "lora_alpha", "r", "init_r", "rank_pattern", "alpha_pattern", "modules_to_save"),
    *("bias", "layer_replication", "target_parameters", "peft_version", "save_projection"),
)
SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)
MODULES = st.sampled_from(["0", "h.1.query", "h.1.base_layer.query", "e", "e.base_layer"])


def stored(folder, config, shapes):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(header, bytes(at)))
    return folder


def read_or_refused(folder):
    """Every tensor is of an update or set aside, every update is as its header said."""
    try:
        adapter = subspace.load(folder)
    except subspace.SubspaceError:
        return
    for name, update in adapter.items():
        assert update.shape == adapter.updates[name].shape
        assert update.rank == adapter.updates[name].rank
        assert update.delta().shape == update.shape


def names(kind):
    slots = st.sampled_from([*CONFIGS[kind][0], "lora_bias", "weight", "bias"])
    tail = st.sampled_from(["", ".default"])
    shared = st.sampled_from(["base_model.vera_A", "base_model.vera_B"])
    mine = st.builds(lambda m, s, t: f"{PREFIX}{m}.{s}{t}", MODULES, slots, tail)
    return mine | shared if kind == "VERA" else mine


@pytest.mark.parametrize("kind", CONFIGS)
@given(data=st.data())
def test_any_tensors(kind, data, tmp_path_factory):
    config = {"peft_type": kind, **CONFIGS[kind][1]}
    if data.draw(st.booleans()):
        config |= EXPERTS
    shapes = data.draw(st.dictionaries(names(kind), SHAPES, max_size=7))
    read_or_refused(stored(tmp_path_factory.getbasetemp() / f"any_{kind}", config, shapes))


SOUND = {
    "LOHA": {
        f"{PREFIX}0.{s}": (5, 2) if s.endswith("a") else (2, 4) for s in LOHA if "_w" in s
    },
    "LOKR": {
        f"{PREFIX}0.lokr_w1": (2, 3), f"{PREFIX}0.lokr_w2_a": (4, 2), f"{PREFIX}0.lokr_w2_b": (2, 5)
    },
    "ADALORA": {
        f"{PREFIX}0.lora_A": (2, 4), f"{PREFIX}0.lora_B": (5, 2), f"{PREFIX}0.lora_E": (2, 1)
    },
    "VERA": {
        "base_model.vera_A": (2, 4), "base_model.vera_B": (5, 2),
        f"{PREFIX}h.0.query.vera_lambda_b": (5,), f"{PREFIX}h.0.query.vera_lambda_d": (2,),
    },
    "LORA": {f"{PREFIX}h.0.e.lora_A.weight": (4, 3), f"{PREFIX}h.0.e.lora_B.weight": (5, 4)},
}  # fmt: skip


@pytest.mark.parametrize("kind", SOUND)
@settings(max_examples=40)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), CONFIG_VALUES, max_size=4))
def test_any_config(kind, fields, tmp_path_factory):
    config = {"peft_type": kind, **CONFIGS[kind][1]} | fields
    folder = stored(tmp_path_factory.getbasetemp() / f"config_{kind}", config, SOUND[kind])
    read_or_refused(folder)
    result = run("inspect", "--json", folder, code={0, 2})
    assert len(result.stderr.splitlines()) <= 1


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_sound_is_read(kind, tmp_path):
    config = {"peft_type": kind, **CONFIGS[kind][1]}
    assert len(subspace.load(stored(tmp_path / "run", config, SOUND[kind]), strict=True)) == 1


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "ADALORA", "VERA"])
def test_a_config_of_another_file(kind, tmp_path):
    config = {"peft_type": kind, **CONFIGS[kind][1]}
    folder = stored(tmp_path / "run", config, {f"{PREFIX}0.lora_magnitude_vector": (2, 3)})
    with pytest.raises(subspace.SubspaceError, match=r"none of its 1 tensors is a factor \(.*says"):
        subspace.load(folder)


def test_looking_at_them_stays_light(tmp_path):
    """Headers tell all; the one number of an older AdaLoRA is read from its bytes."""
    folders = []
    for kind, shapes in SOUND.items():
        config = {"peft_type": kind, **CONFIGS[kind][1]}
        extra = {f"{PREFIX}0.ranknum": (1,)} if kind == "ADALORA" else {}
        folders.append(str(stored(tmp_path / kind, config, shapes | extra)))
    path = tmp_path / "ADALORA" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x40\x40")  # 3.0
    heavy = {"torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "safetensors", "peft"}
    code = (
        "import sys\nfrom subspace.cli import main\n"
        f"main(['inspect', *{folders!r}], standalone_mode=False)\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"
