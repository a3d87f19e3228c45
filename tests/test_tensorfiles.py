"""A tensor file gives what is in it, lazily, and refuses what does not add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from subspace.errors import ArgumentError, FormatError, MissingExtraError, SubspaceError
from subspace.tensorfiles import join_inside, open_tensors, read_json
from tests.support.peft_adapters import safetensors_bytes
from tests.support.samples import ROOT

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(folder: Path, content: bytes, name: str = "x.safetensors") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.uint8, torch.bool),
        *(torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64),
        torch.complex64,
    ],
)
def test_headers_say_what_the_tensors_are(tmp_path, dtype):
    tensors = {"b": torch.ones(2, 3).to(dtype), "a": torch.zeros(()).to(dtype)}
    tensors["empty"] = torch.zeros(0, 4).to(dtype)
    save_file(tensors, tmp_path / "x.safetensors", metadata={"made": "here"})
    file = open_tensors(str(tmp_path / "x.safetensors"))
    assert set(file) == set(tensors)
    assert len(file) == 3
    assert file.metadata == {"made": "here"}
    for name, tensor in tensors.items():
        assert file.headers[name].shape == tuple(tensor.shape)
        assert file.headers[name].dtype == str(dtype).removeprefix("torch.")
        assert torch.equal(file[name], tensor)
    assert "c" not in file
    with pytest.raises(KeyError):
        file["c"]


NUMBERS = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("value", [3, 100])
def test_one_number_is_read_as_torch_reads_it(tmp_path, dtype, value):
    tensors = {"first": torch.ones(3).to(dtype), "alpha": torch.tensor(value / 3).to(dtype)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(tensors, tmp_path / "x.bin")
    for name in ("x.safetensors", "x.bin"):
        file = open_tensors(tmp_path / name)
        assert file.number("alpha") == float(tensors["alpha"].double())
        with pytest.raises(KeyError):
            file.number("c")


def test_one_number_of_safetensors_needs_no_torch(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"alpha": torch.tensor([2.5], dtype=torch.bfloat16)}, path)
    code = (
        "import sys; from subspace.tensorfiles import open_tensors\n"
        f"assert open_tensors({str(path)!r}).number('alpha') == 2.5\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_tensors_are_views_of_the_mapped_file(tmp_path):
    save_file({"x": torch.arange(1024.0)}, tmp_path / "mapped.safetensors")
    tensor = open_tensors(tmp_path / "mapped.safetensors")["x"]
    spans = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("mapped.safetensors")
    ]
    assert any(start <= tensor.data_ptr() < end for start, end in spans)


def test_a_tensor_that_is_not_aligned_is_read(tmp_path):
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    data = b"\0" + torch.tensor([1.0, 2.0]).numpy().tobytes()
    path = file_of(tmp_path, safetensors_bytes(header, data))
    assert open_tensors(path)["b"].tolist() == [1.0, 2.0]


def test_headers_need_no_torch(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    code = (
        "import sys; from subspace.tensorfiles import open_tensors; import subspace.adapters;"
        f"open_tensors({str(tmp_path / 'x.safetensors')!r});"
        "print(sorted({'torch', 'numpy', 'safetensors', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (F32 | {"dtype": "F33"}, "unknown dtype 'F33'"),
        (F32 | {"dtype": ["F32"]}, "unknown dtype"),
        (F32 | {"shape": [-2]}, r"shape \[-2\] is not a list of sizes"),
        (F32 | {"shape": [2.0]}, "not a list of sizes"),
        (F32 | {"shape": [True, 2]}, "not a list of sizes"),
        (F32 | {"shape": "2"}, "not a list of sizes"),
        (F32 | {"shape": None}, "not a list of sizes"),
        (F32 | {"shape": [2**64, 2**64]}, "not a list of sizes"),
        (F32 | {"shape": [2**62, 2**62]}, "takes .* bytes, data_offsets give 8"),
        (F32 | {"shape": [2**62, 0, 2**62]}, "takes 0 bytes, data_offsets give 8"),
        (F32 | {"shape": [3]}, "takes 12 bytes, data_offsets give 8"),
        (F32 | {"data_offsets": [0]}, "not two positions"),
        (F32 | {"data_offsets": [8, 0]}, "takes 8 bytes, data_offsets give -8"),
        (F32 | {"data_offsets": [-8, 0]}, "not two positions"),
        (F32 | {"data_offsets": [4, 12]}, "leaves a hole before it"),
        (F32 | {"shape": [4], "data_offsets": [0, 16]}, "ends at byte 16 of 8"),
        (
            F32 | {"shape": [10**15], "data_offsets": [0, 4 * 10**15]},
            "ends at byte 4000000000000000",
        ),
        (F32 | {"shape": [1], "data_offsets": [0, 4]}, "4 bytes at the end belong to no tensor"),
        (F32 | {"device": "cuda"}, "dtype, shape and data_offsets alone"),
        ({"dtype": "F32"}, "dtype, shape and data_offsets alone"),
        ([1, 2], "dtype, shape and data_offsets alone"),
        ({"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}, "F4 of shape"),
    ],
)
def test_an_entry_that_does_not_add_up_is_refused(tmp_path, entry, message):
    path = file_of(tmp_path, safetensors_bytes({"the.tensor": entry}, bytes(8)))
    with pytest.raises(FormatError, match=message) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are no safetensors file"),
        (b"\x08\0\0", "3 bytes are no safetensors file"),
        ((10**15).to_bytes(8, "little") + b"{}", "claims a header of 1000000000000000 bytes"),
        (b"\xff" * 20, "claims a header of 18446744073709551615 bytes"),
        (safetensors_bytes(b"[]"), "not a JSON object"),
        (safetensors_bytes(b"{"), "not valid JSON"),
        (safetensors_bytes(b'{"a": \xff}'), "not valid JSON"),
        (safetensors_bytes(b"{" + b'"a":{' * 100_000), "nested too deep"),
        (safetensors_bytes(b'{"a":' + b"[" * 100_000), "nested too deep"),
        (safetensors_bytes(b'{"a": {}, "a": {}}'), "the key 'a' is there twice"),
        (safetensors_bytes(b'{"a": {"dtype": "F32", "dtype": "F64"}}'), "'dtype' is there twice"),
        (safetensors_bytes(b'{"__metadata__": {"a": 1}}'), "__metadata__ is not a mapping"),
        (safetensors_bytes({"\ud800": F32}, bytes(8)), "its name is not valid Unicode"),
        (safetensors_bytes({"a": F32, "b": F32}, bytes(8)), "overlaps another"),
        (safetensors_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "x.safetensors: "),
        (b"PK\x03\x04" + bytes(26) + b"\xff" * 9, "claims a header|torch pickle"),
        (b"\x80\x02}q\x00X\x01\x00\x00", "torch pickle that calls itself .safetensors"),
        (b"GGUF\x03\0\0\0" + bytes(30), "GGUF file that calls itself|claims a header"),
    ],
)
def test_a_header_that_is_not_sound_is_refused(tmp_path, content, message):
    with pytest.raises(FormatError, match=message):
        open_tensors(file_of(tmp_path, content))


def test_a_real_torch_file_that_calls_itself_safetensors_is_named(tmp_path):
    for name, new in (("zip", True), ("legacy", False)):
        path = tmp_path / f"{name}.safetensors"
        torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=new)
        with pytest.raises(FormatError, match=r"torch pickle that calls itself \.safetensors"):
            open_tensors(path)


@pytest.mark.parametrize("length", [640, 0x304, 1024 + 128])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, length):
    text = json.dumps({"a": F32}).encode().ljust(length)
    path = file_of(tmp_path, safetensors_bytes(text, bytes(8)))
    assert open_tensors(path)["a"].tolist() == [0.0, 0.0]


SOUND = safetensors_bytes({"a": F32, "b": F32 | {"data_offsets": [8, 16]}}, bytes(16))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(at=st.integers(0, len(SOUND) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(SOUND)))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, at, byte, cut):
    damaged = bytearray(SOUND)
    damaged[at] = byte
    path = file_of(tmp_path_factory.getbasetemp(), bytes(damaged[:cut]), "fuzz.safetensors")
    with suppress(SubspaceError):
        tensors = open_tensors(path)
        for name in tensors:
            assert tensors[name].shape == tensors.headers[name].shape


@given(entry=JSON, other=JSON, data=st.binary(max_size=16))
def test_any_json_for_a_header_is_read_or_refused(tmp_path_factory, entry, other, data):
    field = {"dtype": "F32", "shape": other, "data_offsets": [0, len(data)]}
    for header in ({"a": entry}, {"a": field}, {"__metadata__": other}, entry):
        content = safetensors_bytes(header, data)
        path = file_of(tmp_path_factory.getbasetemp(), content, "json.safetensors")
        with suppress(SubspaceError):
            tensors = open_tensors(path)
            assert all(tensors[name] is not None for name in tensors)


@given(content=st.binary(max_size=200))
def test_any_bytes_for_a_torch_file_are_refused(tmp_path_factory, content):
    path = file_of(tmp_path_factory.getbasetemp(), content, "any.bin")
    with pytest.raises(FormatError):
        open_tensors(path)


def rezipped(source: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """Write a torch file again with its pickle changed."""
    out = source.with_name("changed.bin")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            data = old.read(entry)
            is_pickle = entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, change(data) if is_pickle else data)
    return out


@pytest.fixture
def torch_file(tmp_path):
    path = tmp_path / "plain.bin"
    torch.save({"w": torch.zeros(4)}, path)
    return path


def test_torch_files_of_plain_tensors_are_read(tmp_path):
    both = {"w": torch.randn(3, 4), "p": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    for name in ("a.bin", "a.pt", "a.pth", "a.ckpt"):
        torch.save(both, tmp_path / name)
        file = open_tensors(tmp_path / name)
        assert torch.equal(file["w"], both["w"])
        assert file.headers["p"].dtype == "bfloat16"
        assert not file["p"].requires_grad


def test_a_tensor_that_claims_more_than_its_bytes_is_refused(torch_file):
    four, many = b"K\x04\x85", b"J\xff\xff\xff\x7f\x85"  # the shape (4,) and (2**31 - 1,)
    path = rezipped(torch_file, lambda program: program.replace(four, many))
    with pytest.raises(FormatError, match=r"torch refuses to read it|more than the bytes"):
        open_tensors(path)


def test_a_stride_of_zero_is_no_way_to_claim_more(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**9)}, tmp_path / "w.bin")
    with pytest.raises(FormatError, match=r"entry 'w' claims shape .* more than the bytes"):
        open_tensors(tmp_path / "w.bin")


def test_compressed_entries_are_refused(torch_file):
    path = rezipped(torch_file, lambda program: program, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="is compressed"):
        open_tensors(path)


def test_legacy_pickles_are_refused_with_the_way_out(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"not a zip .* re-save it with"):
        open_tensors(tmp_path / "w.bin")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "entry 'w' is a list, not a tensor"),
        (torch.zeros(3).to_sparse(), "names torch._utils._rebuild_sparse_tensor"),
        (torch.zeros(3, device="meta"), "names torch.float32|not a plain dense"),
        (bytearray(3), "names (builtins|__builtin__).bytearray"),
        (Path("x"), "names pathlib"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(tmp_path, value, message):
    torch.save({"w": value}, tmp_path / "w.bin")
    with pytest.raises(FormatError, match=message):
        open_tensors(tmp_path / "w.bin")


def test_a_torch_file_that_is_no_dict_is_refused(tmp_path):
    torch.save(torch.ones(2), tmp_path / "w.bin")
    with pytest.raises(FormatError, match="holds a Tensor, not a dict"):
        open_tensors(tmp_path / "w.bin")


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"w": Evil()}, tmp_path / "w.bin")
    with pytest.raises(FormatError, match=r"names (posix|nt).mkdir, .* nothing of it was run"):
        open_tensors(tmp_path / "w.bin")
    assert not (tmp_path / "was_run").exists()


def test_an_old_torch_is_refused(torch_file, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(MissingExtraError, match=r"torch 2.9.1\+cpu has known holes"):
        open_tensors(torch_file)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "..\\x", "c:x", "a\0b"])
def test_a_name_cannot_leave_its_folder(name):
    with pytest.raises(ArgumentError, match="nothing outside run is read"):
        join_inside(Path("run"), name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(SubspaceError, match="not a regular file"):
        open_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "a JSON object is wanted, found list"),
        (b'{"r": 1, "r": 2}', "the key 'r' is there twice"),
        (b'{"r": ' + b"[" * 100_000, "nested too deep"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_a_config_that_is_not_sound_is_refused(tmp_path, content, message):
    with pytest.raises(FormatError, match=message):
        read_json(file_of(tmp_path, content, "adapter_config.json"))


def test_other_files_are_refused_by_their_suffix(tmp_path):
    with pytest.raises(FormatError, match=r"give one that ends in \.safetensors"):
        open_tensors(file_of(tmp_path, b"hello", "x.txt"))
    with pytest.raises(SubspaceError, match="no such file"):
        open_tensors(tmp_path / "none.safetensors")


def test_a_long_name_does_not_hide_the_message(tmp_path):
    header = {"x" * 10_000: F32 | {"dtype": "F" * 10_000}}
    with pytest.raises(FormatError, match=r"…x+': unknown dtype 'F+…F+'$"):
        open_tensors(file_of(tmp_path, safetensors_bytes(header, bytes(8))))


def test_without_torch_a_torch_file_says_what_is_missing(torch_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"reading a torch file needs torch >= 2\.10"):
        open_tensors(torch_file)


def test_a_config_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "adapter_config.json"
    with path.open("wb") as file:
        file.truncate(2**33)  # sparse: takes no room
    with pytest.raises(FormatError, match="which no config is"):
        read_json(path)


def test_two_pickles_in_a_torch_file_are_refused(torch_file):
    with zipfile.ZipFile(torch_file, "a") as archive:
        archive.writestr("other/data.pkl", b"N.")
    with pytest.raises(FormatError, match=r"holds 2 entries data\.pkl"):
        open_tensors(torch_file)


def test_a_damaged_pickle_is_refused(torch_file):
    with pytest.raises(FormatError, match="its pickle is damaged"):
        open_tensors(rezipped(torch_file, lambda program: program[:-3]))
