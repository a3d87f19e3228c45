"""Table 7 of two adapters against a sharded bfloat16 base of 7B shapes: time and peak memory.

Times come from one run, rows interleaved, the best of the repetitions kept. Memory is measured in a
process of its own: anonymous pages above what importing takes, sampled while the call runs. The
mapped file's pages are the page cache's, given back when anybody needs them; they are printed too.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

import subspace
from benchmarks import synthetic
from benchmarks.pair_7b import machine, timed
from subspace import linalg
from subspace.pretrained import open_pretrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained

SPIKES = 256  # directions above the Gaussian bulk, falling as k^-1/2, as trained weights have them


def run(
    family: synthetic.Family, *, out_dir: Path | None = None, repeat: int = 3
) -> dict[str, Any]:
    """Time and weigh everything for two adapters of one base."""
    with tempfile.TemporaryDirectory(prefix="subspace-benchmark-") as scratch:
        root = out_dir or Path(scratch)
        model = written_base(family, root)
        with synthetic.folders(family, root) as paths:
            adapters = [subspace.load(path) for path in paths]
            base = open_pretrained(model)
            directions = _directions(adapters)
            cache = Path(scratch) / "cache"
            floor = {shape: _floor(shape, sum(family.ranks)) for shape in _shapes(family)}
            rows: dict[str, Callable[[], object]] = {
                "sweep": lambda: [
                    linalg.sweep(base[name].W, pairs) for name, pairs in directions.items()
                ],
                "floor": lambda: [floor[d_out, d_in]() for _, d_out, d_in in family.paths()],
                "no_top": lambda: subspace.amplifications(adapters, base, top=False),
            }
            times = {k: {"wall_s": w, "cpu_s": c} for k, (w, c) in timed(rows, repeat).items()}
            # Once each: the second finds what the first has kept.
            for name in ("top_cold", "top_kept"):
                once = timed(
                    {name: lambda: subspace.amplifications(adapters, base, cache=cache)}, 1
                )
                times[name] = dict(zip(("wall_s", "cpu_s"), once[name], strict=True))
            out: dict[str, Any] = {
                "kind": "base",
                "machine": machine(),
                "family": {
                    "name": family.name,
                    "modules": len(directions),
                    "ranks": list(family.ranks),
                    "shards": family.layers,
                    "bytes": sum(f.stat().st_size for f in model.glob("*.safetensors")),
                    "largest_float32": 4 * max(math.prod(shape) for shape in _shapes(family)),
                },
                "repeat": repeat,
                "times": times,
                "gram": _gram_way(base, family),
                "memory": {way: _peak(model, paths, way) for way in ("sweep", "no_top", "top")},
                "accuracy": _accuracy(base, directions),
            }
    out["ratios"] = {
        "sweep_over_floor_wall": times["sweep"]["wall_s"] / times["floor"]["wall_s"],
        "sweep_over_floor_cpu": times["sweep"]["cpu_s"] / times["floor"]["cpu_s"],
        "gram_over_top_wall": out["gram"]["wall_s"]
        / (times["top_cold"]["wall_s"] - times["top_kept"]["wall_s"]),
    } | {
        f"{way}_over_largest": memory["anonymous"] / out["family"]["largest_float32"]
        for way, memory in out["memory"].items()
    }
    return out


def _shapes(family: synthetic.Family) -> list[tuple[int, int]]:
    return list(dict.fromkeys((d_out, d_in) for _, d_out, d_in in family.paths()))


def written_base(family: synthetic.Family, root: Path) -> Path:
    """A base in bfloat16 with one shard a layer and an index; what is there whole is used again."""
    folder = root / f"{family.name.lower().replace(' ', '-')}-base"
    note = folder / "made_of.json"
    wanted = {"modules": [list(path) for path in family.paths()], "spikes": SPIKES}
    if note.exists() and json.loads(note.read_text()) == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    index = {}
    for layer in range(family.layers):
        shard = f"model-{layer + 1:05d}-of-{family.layers:05d}.safetensors"
        tensors = {}
        for n, (path, d_out, d_in) in enumerate(family.modules):
            name = f"{path.format(layer)}.weight"
            tensors[name] = _weight(d_out, d_in, seed=1000 * layer + n)
            index[name] = shard
        save_file(tensors, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    note.write_text(json.dumps(wanted))
    return folder


def _weight(d_out: int, d_in: int, seed: int) -> torch.Tensor:
    """Gaussian of norm 1 a row, and directions that stand out of its edge, the first eightfold."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(d_out, d_in, generator=generator) / math.sqrt(d_in)
    k = min(SPIKES, d_out, d_in)
    left = torch.randn(d_out, k, generator=generator) / math.sqrt(d_out)
    right = torch.randn(k, d_in, generator=generator) / math.sqrt(d_in)
    edge = 1 + math.sqrt(d_out / d_in)
    sizes = 8 * edge * torch.arange(1, k + 1).rsqrt()
    return W.addmm_(left * sizes, right).to(torch.bfloat16)


def _directions(adapters: list[Adapter]) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    found: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for name in adapters[0]:
        spectra = [subspace.spectrum(adapter[name]) for adapter in adapters]
        found[name] = [(s.U, s.V) for s in spectra]
    return found


def _floor(shape: tuple[int, int], columns: int) -> Callable[[], object]:
    """One float32 product of the same size, of a W that is float32 in memory already."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(*shape, generator=generator)
    V = torch.randn(shape[1], columns, generator=generator)
    out = torch.empty(shape[0], columns)
    return lambda: torch.mm(W, V, out=out)


def _gram_way(base: Pretrained, family: synthetic.Family) -> dict[str, Any]:
    """W's own values by the float64 Gram: one module a shape measured, the rest extrapolated."""
    measured, worst = {}, 0.0
    for name, d_out, d_in in family.paths():
        if (d_out, d_in) in measured:
            continue
        W = base[name].W
        tall = W if d_out >= d_in else W.mT
        start = time.perf_counter()
        exact = torch.linalg.eigvalsh(linalg.gram([tall])).flip(0).clamp(min=0).sqrt()
        measured[d_out, d_in] = time.perf_counter() - start
        found = linalg.leading(W, 64, norm=linalg.sweep(W, [])[0])
        worst = max(worst, float(((found.S - exact[: len(found.S)]) / found.S)[:64].abs().max()))
    return {
        "extrapolated": True,
        "measured": [{"shape": list(s), "wall_s": t} for s, t in measured.items()],
        "wall_s": sum(measured[d_out, d_in] for _, d_out, d_in in family.paths()),
        "krylov_off_by": worst,
    }


def _accuracy(base: Pretrained, directions: dict[str, Any]) -> dict[str, float]:
    """Largest relative difference from float64, over the first and the last module."""
    norm = inside = 0.0
    for name in (next(iter(directions)), list(directions)[-1]):
        W = base[name].W
        found_norm, found = linalg.sweep(W, directions[name])
        exact = W.double()
        size = float(torch.linalg.norm(exact))
        norm = max(norm, abs(found_norm - size) / size)
        for (U, V), P in zip(directions[name], found, strict=True):
            dense = torch.linalg.norm(U.T @ (exact @ V))
            inside = max(inside, float(abs(torch.linalg.norm(P) - dense) / dense))
    return {"norm": norm, "projection": inside}


def _peak(model: Path, adapters: tuple[Path, Path], way: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peak", way, str(model), *map(str, adapters)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    peak: dict[str, int] = json.loads(done.stdout)
    return peak
