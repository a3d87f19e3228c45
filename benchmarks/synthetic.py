"""Synthetic trained adapters of real shapes, written as PEFT folders."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHARED = 4  # directions that both adapters have, so that not every p-value is a chance one


@dataclass(frozen=True)
class Family:
    """A base model's adapted modules: path with ``{}`` for the layer, d_out, d_in."""

    name: str
    modules: tuple[tuple[str, int, int], ...]
    layers: int
    ranks: tuple[int, int] = (8, 64)
    dtype: str = "float32"

    def paths(self) -> Iterator[tuple[str, int, int]]:
        """Every module of every layer."""
        for layer in range(self.layers):
            for path, d_out, d_in in self.modules:
                yield path.format(layer), d_out, d_in


def llama_7b(
    layers: int = 32, hidden: int = 4096, inner: int = 11008, *, dtype: str = "float32"
) -> Family:
    """All seven linear modules of Llama 7B's layers (Touvron et al. 2023, arXiv:2302.13971)."""
    attention = tuple((f"model.layers.{{}}.self_attn.{n}_proj", hidden, hidden) for n in "qkvo")
    mlp = tuple(
        (f"model.layers.{{}}.mlp.{name}_proj", d_out, d_in)
        for name, d_out, d_in in (
            ("gate", inner, hidden),
            ("up", inner, hidden),
            ("down", hidden, inner),
        )
    )
    return Family("Llama 7B", attention + mlp, layers, dtype=dtype)


def minilm(layers: int = 6, hidden: int = 384, *, dtype: str = "float32") -> Family:
    """Many small square modules: 72 of 384 x 384, twelve a layer of a MiniLM."""
    modules = tuple((f"layer.{{}}.m{n}", hidden, hidden) for n in range(12))
    return Family("MiniLM", modules, layers, dtype=dtype)


@contextmanager
def folders(family: Family, out_dir: Path | None) -> Iterator[tuple[Path, Path]]:
    """Two PEFT folders of this family, in `out_dir` (kept, and used again) or a temporary one."""
    root = Path(tempfile.mkdtemp(prefix="subspace-benchmark-")) if out_dir is None else out_dir
    try:
        first, second = (_written(family, n, root) for n in range(2))
        yield first, second
    finally:
        if out_dir is None:
            shutil.rmtree(root)


def _written(family: Family, which: int, root: Path) -> Path:
    rank = family.ranks[which]
    folder = root / f"{family.name.lower().replace(' ', '-')}-r{rank}"
    made_of = json.loads(json.dumps(asdict(family)))
    note = folder / "made_of.json"  # written last, so a folder that has it is whole
    if note.exists() and json.loads(note.read_text()) == made_of:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    dtype = getattr(torch, family.dtype)
    tensors = {}
    for seed, (path, d_out, d_in) in enumerate(family.paths()):
        A, B = (_factor(d, rank, (seed, side, which)) for side, d in enumerate((d_in, d_out)))
        tensors[f"base_model.model.{path}.lora_A.weight"] = A.T.contiguous().to(dtype)
        tensors[f"base_model.model.{path}.lora_B.weight"] = B.contiguous().to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": sorted({path.rpartition(".")[2] for path, *_ in family.modules}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    note.write_text(json.dumps(made_of))
    return folder


def _factor(d: int, rank: int, key: Sequence[int]) -> torch.Tensor:
    """Draw (d, rank) with singular values near k^-1/2 in an arbitrary basis of the rank.

    The scaled condition number is then about that of trained adapters, and every gap is open:
    neither a Gaussian's (1.3, which flatters the Gram way) nor one that it has to refuse.
    """
    module, side, which = key
    shared = torch.Generator().manual_seed(2 * module + side)
    own = torch.Generator().manual_seed(1_000_003 + 4 * module + 2 * side + which)
    common = min(SHARED, rank)
    columns = torch.cat(
        [
            torch.randn(d, common, generator=shared),
            torch.randn(d, rank - common, generator=own),
        ],
        dim=1,
    )
    turn = torch.linalg.qr(torch.randn(rank, rank, generator=own)).Q
    sizes = torch.arange(1, rank + 1, dtype=torch.float32).rsqrt() / math.sqrt(d)
    return (columns * sizes) @ turn
