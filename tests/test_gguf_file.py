"""A GGUF file gives what the `gguf` package wrote, and refuses what does not add up."""

from __future__ import annotations

import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import FormatError, MissingExtraError, MissingFileError
from subspace.pretrained import open_pretrained
from subspace.tensorfiles import QUANTISED, open_tensors
from subspace.tensorfiles.gguf_file import _TYPES

if TYPE_CHECKING:
    from pathlib import Path


def sound(path: Path, *, alignment: int | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {
        "float32": rng.standard_normal((3, 5)).astype("f4"),
        "float16": rng.standard_normal((2, 3, 5)).astype("f2"),
        "float64": rng.standard_normal(7),
        "int8": np.arange(-3, 4, dtype="i1"),
        "int16": np.arange(3, dtype="i2"),
        "int32": np.arange(3, dtype="i4"),
        "int64": np.arange(3, dtype="i8"),
    }
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_uint8("n.u8", 8)
    writer.add_int64("n.i64", -(2**40))
    writer.add_float32("n.f32", 0.5)
    writer.add_bool("n.bool", True)
    writer.add_string("n.string", "ζ")
    writer.add_array("n.numbers", [1, 2, 3])
    writer.add_array("n.strings", ["a", "", "bc"])
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.mark.parametrize("alignment", [None, 1, 8, 256])
def test_what_the_package_writes_is_read(tmp_path, alignment):
    path = tmp_path / "x.gguf"
    tensors = sound(path, alignment=alignment)
    file = open_tensors(path)
    assert list(file) == list(tensors)
    for name, tensor in tensors.items():
        assert file.headers[name].shape == tensor.shape
        assert file.headers[name].dtype == name
        assert torch.equal(file[name], torch.from_numpy(tensor))
    wanted = {
        "n.u8": "8",
        "n.i64": str(-(2**40)),
        "n.f32": "0.5",
        "n.bool": "True",
        "n.string": "ζ",
    }
    assert {k: v for k, v in file.metadata.items() if k.startswith("n.")} == wanted
    assert file.metadata["general.architecture"] == "llama"


def test_the_types_are_the_packages_own():
    own = {int(kind): (kind.name.lower(), *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    torch_names = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16"}
    torch_names |= {f"i{n}": f"int{n}" for n in (8, 16, 32, 64)}
    assert {
        kind: (torch_names.get(name, name), *sizes) for kind, (name, *sizes) in own.items()
    } == _TYPES


Q8 = gguf.GGMLQuantizationType.Q8_0
QUANTISABLE = ["Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "MXFP4", "TQ2_0", "BF16"]


def one_tensor(path, array, kind):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("q", gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_tensors(path)


@pytest.mark.parametrize("kind", QUANTISABLE)
@pytest.mark.parametrize("shape", [(3, 256), (2, 3, 512)])
def test_a_quantised_tensor_is_what_its_package_makes_of_it(tmp_path, kind, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    type_ = gguf.GGMLQuantizationType[kind]
    held = one_tensor(tmp_path / "x.gguf", array, type_)
    name = {"BF16": "bfloat16"}.get(kind, kind.lower())
    assert (held.headers["q"].shape, held.headers["q"].dtype) == (shape, name)
    wanted = gguf.dequantize(gguf.quantize(array, type_), type_)
    assert np.array_equal(held["q"].float().numpy(), wanted)
    if kind != "BF16":
        lost = np.linalg.norm(wanted - array) / np.linalg.norm(array)
        assert 0.2 * QUANTISED[name] < lost < QUANTISED[name]


def test_without_its_package_a_quantised_tensor_has_its_header_alone(tmp_path, monkeypatch):
    held = one_tensor(tmp_path / "x.gguf", np.ones((3, 64), np.float32), Q8)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert (held.headers["q"].shape, held.headers["q"].dtype) == ((3, 64), "q8_0")
    with pytest.raises(
        MissingExtraError, match=r"'q' is quantised \(q8_0\).*quantised\]', or conv"
    ):
        held["q"]


def test_a_type_that_its_package_only_names(tmp_path, monkeypatch):
    held = one_tensor(tmp_path / "x.gguf", np.ones((3, 64), np.float32), Q8)
    monkeypatch.setattr(gguf.quants, "_type_traits", {})
    with pytest.raises(FormatError, match=r"gguf does not dequantise; convert it again with"):
        held["q"]


def test_a_base_in_gguf_is_refused(tmp_path):
    sound(tmp_path / "x.gguf")
    with pytest.raises(FormatError, match="a GGUF base is not read"):
        open_pretrained(tmp_path / "x.gguf")
    with pytest.raises(MissingFileError, match="holds no"):
        open_pretrained(tmp_path)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str | bytes, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def made(
    pairs: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    data: int = 0,
    *,
    start: bytes = b"GGUF\x03\0\0\0",
    counts: tuple[int, int] | None = None,
) -> bytes:
    counts = counts or (len(infos), len(pairs))
    head = start + struct.pack("<QQ", *counts) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32 + data if infos else 0)


F = info("a", [8])  # 32 bytes
NUMBER = pair("a", 4, b"\0\0\0\0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF", "4 bytes are no GGUF file"),
        (made(start=b"ggla\x03\0\0\0"), "begins with b'ggla', not with GGUF"),
        (made(start=b"GGUF\x01\0\0\0"), "GGUF version 1; versions 2 and 3 are read"),
        (made(start=b"GGUF\0\0\0\x03"), "big-endian, which is not read"),
        (made(counts=(2**63, 0)), "claims 9223372036854775808 tensors, more than its 24 bytes"),
        (made(counts=(0, 2**40)), "claims 1099511627776 key-value pairs"),
        (made((NUMBER, NUMBER)), "the key 'a' is there twice"),
        (made((pair("a", 4, b"\0"),)), "its header ends within the value of 'a'"),
        (made((pair("a", 99, b"\0" * 8),)), "the value of 'a' is of the unknown type 99"),
        (made((pair("a", 8, struct.pack("<Q", 2**62)),)), "ends within the value of 'a'"),
        (made((pair("a", 8, text(b"\xff")),)), "the value of 'a' is not UTF-8"),
        (made((text("k" * 70_000) + bytes(20),)), "a key has 70000 bytes"),
        (made((pair("a", 9, struct.pack("<IQ", 4, 2**60)),)), "elements of 'a', more than its"),
        (made((pair("a", 9, struct.pack("<IQ", 9, 1)),)), "an array of the type 9, which is none"),
        (made((pair("a", 9, struct.pack("<IQQ", 8, 1, 2**63)),)), "ends within the value of 'a'"),
        (made((pair("a", 9, struct.pack("<IQQB", 8, 2, 1, 0) + b"\0" * 8 + b"\0" * 7),)), None),
        (made((pair("general.alignment", 4, struct.pack("<I", 24)),)), "= '24' is not a power of"),
        (made((pair("general.alignment", 4, b"\0\0\0\0"),)), "'0' is not a power of two"),
        (made(infos=(info("a", [1] * 5),), data=4), "5 dimensions, at most 4"),
        (made(infos=(info("a", [1] * 4, 77),), data=4), "tensor 'a': unknown type 77"),
        (made(infos=(info("a", [2**63]),), data=4), "is not a list of sizes"),
        (made(infos=(info("a", [2**62, 2**62, 2**62, 2]),), data=4), "ends at byte .* of"),
        (made(infos=(info("a", [2**40]),), data=32), "the file is truncated"),
        (made(infos=(info("a", [31], 8),), data=34), r"rows of 31 are not blocks of 32 \(q8_0\)"),
        (made(infos=(F, F), data=32), "tensor 'a' is there twice"),
        (made(infos=(F, info("b", [8])), data=64), "'b' begins at byte 0 of the data, expected 32"),
        (made(infos=(F, info("b", [8], 0, 64)), data=96), "begins at byte 64 of the data"),
        (made(infos=(F,), data=65), "33 bytes at the end belong to no tensor"),
        (made(infos=(info(b"\xff", [8]),), data=32), "a tensor's name is not UTF-8"),
    ],
)
def test_a_header_that_does_not_add_up(tmp_path, content, message):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    if message is None:
        with suppress(FormatError):
            open_tensors(path)
        return
    with pytest.raises(FormatError, match=message):
        open_tensors(path)


def test_an_empty_tensor_and_a_number(tmp_path):
    (tmp_path / "x.gguf").write_bytes(made(infos=(info("none", [0, 3]), info("one", [])), data=4))
    file = open_tensors(tmp_path / "x.gguf")
    assert file["none"].shape == (3, 0)
    assert file["one"].shape == ()


@pytest.fixture(scope="module")
def bytes_of_a_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    sound(path)
    return path.read_bytes()


@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_nothing_else(
    tmp_path_factory, bytes_of_a_file, data
):
    content = bytearray(bytes_of_a_file)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, 900))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.mktemp("damaged") / "x.gguf"
    path.write_bytes(content)
    with suppress(FormatError):
        file = open_tensors(path)
        for name in file:
            with suppress(FormatError):
                assert tuple(file[name].shape) == file.headers[name].shape


def test_every_truncation_is_refused(tmp_path, bytes_of_a_file):
    path = tmp_path / "x.gguf"
    for length in range(0, len(bytes_of_a_file) - 32, 7):
        path.write_bytes(bytes_of_a_file[:length])
        with pytest.raises(FormatError):
            open_tensors(path)
