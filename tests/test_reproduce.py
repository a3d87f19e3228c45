"""``subspace reproduce`` on a tiny model: every figure, the page, and nothing trained twice."""

import re

import pytest
import torch
from click.testing import CliRunner
from tiny_world import write_world

import subspace.cli.reproduce as verb
from subspace.cli import main

FIGURES = {
    "table6", "figure3", "figure4", "figure6", "figure7", "figure8", "amplification-map",
    "amplification-curve", "rank",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def run(world, out, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "QUICK", verb.Size((1, 8, 64), (0, 1), 6, 1, 3))
        return CliRunner().invoke(
            main,
            [
                "reproduce", "--quick", "--model", str(world / "tiny-bert"), "--data",
                str(world / "texts.jsonl"), "--out", str(out), "--lr", "2e-2", *more,
            ],
        )  # fmt: skip


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduced")
    done = run(world, out)
    assert done.exit_code == 0, done.output
    return out, done


def test_the_gallery_is_complete_and_the_page_names_it(made):
    out, _ = made
    page = (out / "README.md").read_text()
    assert {path.stem for path in out.glob("*.png")} == FIGURES
    assert set(re.findall(r"!\[(\S+)\.png\]", page)) == FIGURES
    for head in ("What was found", "Table 6", "Learned or inherited?", "Table 7"):
        assert head in page
    assert "`subspace reproduce --quick --model tiny-bert --data texts.jsonl`" in page
    assert str(out) not in page


def test_the_commands_under_the_figures_draw_them(made, world, monkeypatch, tmp_path):
    out, _ = made
    page = (out / "README.md").read_text()
    commands = re.findall(r"^    subspace (\S.*) --out (\S+)\.png$", page, flags=re.MULTILINE)
    assert {name for _, name in commands} == FIGURES - {"table6"}
    monkeypatch.chdir(out)
    for words, name in commands:
        given = words.replace("MODEL", str(world / "tiny-bert")).split()
        again = CliRunner().invoke(main, [*given, "--out", str(tmp_path / f"{name}.png")])
        assert again.exit_code == 0, (words, again.output)
        assert (tmp_path / f"{name}.png").read_bytes() == (out / f"{name}.png").read_bytes(), name


def test_a_control_has_another_seed_than_the_run_beside(made):
    page = (made[0] / "README.md").read_text()
    pairs = re.findall(r"similarity runs/r\d+-seed(\d) \S+ --control runs/r64-seed(\d)", page)
    assert len(pairs) == 2
    assert all(run != control for run, control in pairs)


def test_what_is_printed_is_on_the_page(made):
    out, done = made
    page = (out / "README.md").read_text()
    lines = done.stdout.splitlines()
    assert len(lines) >= 5
    assert all(f"- {line}" in page for line in lines)


def test_the_runs_are_a_sweep_with_its_control(made):
    out, _ = made
    names = {path.name for path in (out / "runs").iterdir()}
    lora = {f"r{r}-seed{s}" for r in (1, 8, 64) for s in (0, 1)}
    assert names == lora | {"head-seed0", "head-seed1"} | {
        "r64-seed0-shuffled",
        "r64-seed1-shuffled",
    }


def test_run_again_it_trains_nothing_and_writes_the_same(made, world):
    out, first = made
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("training.json")}
    again = run(world, out)
    assert again.stdout == first.stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("training.json")} == stamps
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before


def test_a_run_that_fails_is_named(world, tmp_path):
    done = run(world, tmp_path, "--targets", "nothing")
    assert done.exit_code == 2
    assert "runs failed" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "README.md").exists()
