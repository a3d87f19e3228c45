"""Whether two runs began from one A is told from their weights, with no initial A stored."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

import subspace
from subspace.adapters import Adapter, LowRankUpdate
from subspace.measures.initial import SAME_ROWS, align_rows, note_same_rows
from tests.support.samples import SAMPLES
from tests.support.verbs import run

NAMES = ("r64-seed0", "r64-seed1", "r64-seed1-shuffled")
R, D = 8, 120


def bare(name):
    """A run as people share them: without the initial A."""
    return replace(subspace.load(SAMPLES / name), initial={})


def trained(seed, start, moved=1.0, r=R):
    generator = torch.Generator().manual_seed(seed)
    A0 = torch.randn(r, D, generator=torch.Generator().manual_seed(start))
    A = A0 + moved * torch.randn(r, D, generator=generator)
    return LowRankUpdate("q", A, torch.randn(30, r, generator=generator), 1.0)


def test_the_samples_of_one_seed_and_no_others():
    adapters = [bare(name) for name in NAMES]
    for (a, x), (b, y) in combinations(zip(NAMES, adapters, strict=True), 2):
        z = [align_rows(x[name].A, y[name].A) for name in x]
        if "seed0" in a or "seed0" in b:
            assert max(map(abs, z)) < SAME_ROWS / 2
        else:
            assert min(z) > 2 * SAME_ROWS
    assert len(note_same_rows(adapters, NAMES)) == 1


@pytest.mark.parametrize("moved", [0.1, 1.0])
def test_training_that_moves_every_row_leaves_it_to_be_seen(moved):
    runs = [trained(seed, 3, moved) for seed in (1, 2)]
    assert align_rows(runs[0].A, runs[1].A) > SAME_ROWS
    assert abs(align_rows(runs[0].A, trained(11, 4, moved).A)) < SAME_ROWS


def test_what_was_learned_alike_is_no_common_start():
    """One direction that all rows of both learned, in any mixture, is not row by row."""
    direction = torch.randn(1, D, generator=torch.Generator().manual_seed(9))
    first, second = (trained(seed, seed) for seed in (5, 6))
    weights = [torch.randn(R, 1, generator=torch.Generator().manual_seed(n)) for n in (7, 8)]
    learned = [u.A + 3 * w * direction for u, w in zip((first, second), weights, strict=True)]
    assert abs(align_rows(*learned)) < SAME_ROWS


def test_rows_of_a_decomposition_have_no_start():
    """A resized adapter's rows are singular directions: those of two runs do meet one by one."""
    A = torch.linalg.qr(torch.randn(D, R, generator=torch.Generator().manual_seed(1)))[0].T
    assert math.isnan(align_rows(A, A + 0.01))
    assert math.isnan(align_rows(A[:1], A[:1]))
    assert math.isnan(align_rows(A, A[:4]))


@pytest.mark.parametrize("verb", ["similarity", "rank", "interference"])
def test_every_verb_that_compares_warns(verb):
    said = " ".join(run(verb, *(SAMPLES / name for name in NAMES[1:])).stdout.split())
    assert "caution: the rows of A of r64-seed1 and of r64-seed1-shuffled lie along" in said
    quiet = " ".join(run(verb, *(SAMPLES / name for name in NAMES[:2])).stdout.split())
    assert "the rows of A" not in quiet


def test_a_matrix_and_a_report_warn(tmp_path):
    paths = [SAMPLES / name for name in NAMES]
    assert "the rows of A of" in " ".join(run("similarity", *paths).stdout.split())
    run("report", *paths, "--out", tmp_path / "x.html")
    assert "the rows of A of" in (tmp_path / "x.html").read_text()


def test_a_run_beside_itself_is_no_pair():
    one = Adapter.from_updates({"q": trained(1, 1)})
    assert note_same_rows([one, one], ("a", "b")) == ()
