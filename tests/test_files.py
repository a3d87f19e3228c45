"""A file or a folder is written whole or not at all, and nothing of the user's is replaced."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from subspace import files
from subspace.errors import ArgumentError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    files.write_file(b"new", tmp_path / "a" / "b" / "x.bin")
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"new"
    assert names(tmp_path / "a" / "b") == ["x.bin"]


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    place = tmp_path / "x"
    place.write_bytes(b"old")
    with pytest.raises(ArgumentError, match="is there already; choose another name, or replace"):
        files.write_file(b"new", place)
    assert place.read_bytes() == b"old"
    files.write_file(b"new", place, overwrite=True)
    assert place.read_bytes() == b"new"


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    place = tmp_path / "run"
    files.write_folder({"a": b"1", "b": b"2"}, place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"holds other files \(notes.txt\)"):
        files.write_folder({"a": b"3", "b": b"4"}, place, overwrite=True)
    assert ((place / "a").read_bytes(), names(tmp_path)) == (b"1", ["run"])
    (place / "notes.txt").unlink()
    with pytest.raises(ArgumentError, match="is there already"):
        files.write_folder({"a": b"3", "b": b"4"}, place)
    files.write_folder({"a": b"3", "b": b"4"}, place, overwrite=True)
    assert ((place / "a").read_bytes(), names(tmp_path)) == (b"3", ["run"])


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, kind):
    place = tmp_path / "x"
    place.symlink_to(tmp_path / "elsewhere") if kind == "link" else place.mkdir()
    with pytest.raises(ArgumentError, match="is no file"):
        files.write_file(b"new", place, overwrite=True)


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    for write in (lambda p: files.write_file(b"", p), lambda p: files.write_folder({}, p)):
        with pytest.raises(ArgumentError, match="is no folder"):
            write(tmp_path / "x" / "y")


@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, call):
    files.write_file(b"old", tmp_path / "x")
    files.write_folder({"a": b"old"}, tmp_path / "run")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    if call != "rename":
        with pytest.raises(ArgumentError, match=r"cannot write .*x': No space left"):
            files.write_file(b"new", tmp_path / "x", overwrite=True)
    if call != "replace":
        with pytest.raises(ArgumentError, match=r"cannot write .*run': No space left"):
            files.write_folder({"a": b"new"}, tmp_path / "run", overwrite=True)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "run" / "a").read_bytes() == b"old"
    assert (names(tmp_path), names(tmp_path / "run")) == (["run", "x"], ["a"])


def test_where_the_new_folder_cannot_take_its_place_the_old_one_returns(tmp_path, monkeypatch):
    files.write_folder({"a": b"old"}, tmp_path / "run")
    rename = Path.rename

    def fail_once(source, target):
        if target.name == "run":
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError(5, "Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(ArgumentError, match="Input/output error"):
        files.write_folder({"a": b"new"}, tmp_path / "run", overwrite=True)
    assert ((tmp_path / "run" / "a").read_bytes(), names(tmp_path)) == (b"old", ["run"])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path):
    """The process is killed between the writing and the renaming."""
    place = tmp_path / "x"
    place.write_bytes(b"old")
    code = (
        "import os, time, pathlib, sys; from subspace import files; "
        "os.fsync = lambda _: (print('here', flush=True), time.sleep(60)); "
        "files.replace_file(b'new' * 1000, pathlib.Path(sys.argv[1]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert place.read_bytes() == b"old"


def test_a_file_has_the_users_own_permissions(tmp_path):
    """tempfile's 0600 would outlive the rename."""
    (tmp_path / "plain").write_bytes(b"")
    files.replace_file(b"", tmp_path / "ours")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_hash_is_that_of_all_bytes(tmp_path):
    data = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "x").write_bytes(data)
    assert files.hash_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()
