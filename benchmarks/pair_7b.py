"""A pair of adapters of real 7B shapes: phi on both sides and both spectra, against the rivals.

Every number comes from one run; rows are interleaved and the best of the repetitions is kept, by
wall clock and by processor seconds (which other programs on the machine disturb less).
"""

from __future__ import annotations

import platform
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import subspace
from benchmarks import rivals, synthetic
from subspace.chance import phi_pvalue
from subspace.spectra import equal_chunks, over_chunks, solve_sides, spectra

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.adapters import Adapter
    from subspace.results import ModuleSimilarity, Side

CHECKED = 4  # modules whose phi is held against float64 QR


def run(
    family: synthetic.Family, *, out_dir: Path | None = None, repeat: int = 3, dense: bool = True
) -> dict[str, Any]:
    """Time everything on one pair of adapters.

    Parameters
    ----------
    family
        Shapes, ranks, dtype.
    out_dir
        Where the two folders are kept; a temporary folder if None.
    repeat
        Repetitions of every row, interleaved; the best counts.
    dense
        Also the dense SVD, of one adapter's square module and one rectangular one.
    """
    with synthetic.folders(family, out_dir) as paths:
        a, b = (subspace.load(path) for path in paths)
        first, second = _factors(a), _factors(b)
        tensors = [t for pair in first + second for t in pair[:2]]
        both = sum(family.ranks)
        grams = [(d, both) for _, d_out, d_in in family.paths() for d in (d_out, d_in)]
        done = list(subspace.similarity(a, b, side="A").values())
        rows: dict[str, Callable[[], object]] = {
            "ours": lambda: _ours(paths, ("A", "B", "out")),
            "ours_with_in_out": lambda: _ours(paths, ("A", "B", "in", "out")),
            "ours_similarity_A": lambda: subspace.similarity(a, b, side="A"),
            "ours_similarity_B": lambda: subspace.similarity(a, b, side="B"),
            "ours_p_values": lambda: rivals.in_threads(
                lambda n: _p_values(done[n], family.ranks), len(done)
            ),
            "ours_spectra": lambda: (spectra(a), spectra(b)),
            "qr_float32": lambda: [
                rivals.qr_module(*pair) for pair in zip(first, second, strict=True)
            ],
            "qr_float32_one_thread_a_core": lambda: rivals.in_threads(
                lambda n: rivals.qr_module(first[n], second[n]), len(first)
            ),
            "floor_read": lambda: rivals.read_bytes(tensors),
            "floor_gram_rows": lambda: rivals.gram_gemms(grams, rows=True),
            "floor_gram_columns": lambda: rivals.gram_gemms(grams, rows=False),
        }
        times = {
            name: {"wall_s": wall, "cpu_s": cpu}
            for name, (wall, cpu) in timed(rows, repeat).items()
        }
        best = min("floor_gram_rows", "floor_gram_columns", key=lambda n: times[n]["cpu_s"])
        times["floor"] = {k: times["floor_read"][k] + times[best][k] for k in ("wall_s", "cpu_s")}
        out: dict[str, Any] = {
            "kind": "pair",
            "machine": machine(),
            "family": {
                "name": family.name,
                "modules": len(a),
                "ranks": list(family.ranks),
                "dtype": family.dtype,
                "bytes": sum(t.numel() * t.element_size() for t in tensors),
            },
            "repeat": repeat,
            "page_cache": "warm",
            "times": times,
            "accuracy": _accuracy(a, b, first, second),
        }
        if dense:
            out["dense_svd"] = _dense(family, second)
        out["ratios"] = _ratios(out)
    return out


def _factors(adapter: Adapter) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    return [(u.A, u.B, u.scale) for u in adapter.values()]


def _ours(paths: tuple[Path, Path], sides: tuple[Side, ...]) -> list[object]:
    """Load, then phi on A and B (in and out if asked) and both spectra, factors read once."""
    adapters = [subspace.load(path) for path in paths]

    def shape(name: str) -> tuple[int, ...]:
        infos = [x.updates[name] for x in adapters]
        return (*infos[0].shape, *(info.rank for info in infos))

    def work(names: list[str]) -> list[object]:
        solved = solve_sides([[x[name] for x in adapters] for name in names], sides)
        grids = [
            rivals.phi_grid(one.overlap(0, 1))
            for side in sides
            if side != "out" or "in" in sides
            for one in solved[side]
        ]
        return [grids, [[x.S for x in one.directions] for one in solved["out"]]]

    return over_chunks(equal_chunks(adapters[0], shape), work)


def _p_values(module: ModuleSimilarity, ranks: tuple[int, int]) -> object:
    i, j = np.ogrid[1 : ranks[0] + 1, 1 : ranks[1] + 1]
    return phi_pvalue(module.phi, i, j, module.d)


def timed(rows: dict[str, Callable[[], object]], repeat: int) -> dict[str, tuple[float, float]]:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(repeat):
        for name, row in rows.items():
            wall, cpu = time.perf_counter(), time.process_time()
            row()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            old = best.get(name, (wall, cpu))
            best[name] = (min(wall, old[0]), min(cpu, old[1]))
    return best


def _accuracy(a: Adapter, b: Adapter, first: list[Any], second: list[Any]) -> dict[str, Any]:
    """Largest difference from float64 Householder QR over a few modules, and the stated bound."""
    names = list(a)
    step = max(1, len(names) // CHECKED)
    chosen = range(0, len(names), step)
    out: dict[str, Any] = {"modules": len(chosen), "ours": {}, "stated_bound": {}}
    exact = {n: rivals.qr_exact(first[n], second[n]) for n in chosen}
    for side in ("A", "B", "in", "out"):
        differences, bounds = [], []
        for n in chosen:
            result = subspace.similarity(a, b, side=side, modules=names[n])[names[n]]
            known = ~torch.from_numpy(result.masked) & ~torch.from_numpy(result.phi).isnan()
            apart = (torch.from_numpy(result.phi) - exact[n][side]).abs()
            differences.append(float(apart[known].max()))
            bounds.append(float(torch.from_numpy(result.error)[known].max()))
        out["ours"][side], out["stated_bound"][side] = max(differences), max(bounds)
    loose = {n: rivals.qr_module(first[n], second[n]) for n in chosen}
    out["qr_float32"] = {
        side: max(float((loose[n][side] - exact[n][side]).abs().max()) for n in chosen)
        for side in "AB"
    }
    return out


def _dense(family: synthetic.Family, factors: list[Any]) -> dict[str, Any]:
    """Time the dense SVD of one module a shape; what all would take if every core helped fully.

    Measured once, in processor seconds on one thread: a busy machine would flatter us by minutes.
    """
    shapes = [tuple(sorted((d_out, d_in))) for _, d_out, d_in in family.paths()]
    threads = torch.get_num_threads()
    measured = {}
    torch.set_num_threads(1)
    for shape in dict.fromkeys(shapes):
        start = time.process_time()
        rivals.dense_svd(factors[shapes.index(shape)])
        measured[shape] = time.process_time() - start
    torch.set_num_threads(threads)
    total = 2 * sum(measured[shape] for shape in shapes)  # two adapters
    return {
        "extrapolated": True,
        "measured_modules": [
            {"shape": list(shape), "cpu_s": cpu} for shape, cpu in measured.items()
        ],
        "cpu_s": total,
        "wall_s": total / threads,
    }


def _ratios(out: dict[str, Any]) -> dict[str, float]:
    times = out["times"]
    qr = ("qr_float32", "qr_float32_one_thread_a_core")
    ratios = {}
    for clock in ("wall_s", "cpu_s"):
        ours, kind = times["ours"][clock], clock.removesuffix("_s")
        ratios[f"ours_over_floor_{kind}"] = ours / times["floor"][clock]
        ratios[f"qr_over_ours_{kind}"] = times[qr[0]][clock] / ours
        ratios[f"best_qr_over_ours_{kind}"] = min(times[name][clock] for name in qr) / ours
    if "dense_svd" in out:
        ratios["dense_over_ours_cpu"] = out["dense_svd"]["cpu_s"] / times["ours"]["cpu_s"]
    return ratios


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    load = Path("/proc/loadavg")
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "load_average_before": float(load.read_text().split()[0]) if load.exists() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "subspace": subspace.__version__,
        "date": date.today().isoformat(),
    }
