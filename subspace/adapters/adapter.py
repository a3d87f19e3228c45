"""The two objects that everything else is about: `LowRankUpdate` and `Adapter`.

Importing this file never imports torch: headers alone fill `Adapter.updates`, and tensors are
read when a module is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatchcase
from shlex import quote
from types import MappingProxyType
from typing import TYPE_CHECKING

from subspace.adapters.layout import Layout
from subspace.adapters.method import Method
from subspace.errors import UnknownModuleError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from subspace.adapters.set_aside import SetAside

    Factors = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class LowRankUpdate:
    """One module's update, ``delta W = scale * B @ A`` with ``y = (W + delta W) x``.

    Eq. 3 of Hu et al. 2021, arXiv:2106.09685. The orientation is that of the map x -> y, never
    that of the storage: an embedding has d_in = vocabulary, a convolution d_in = in/groups*kh*kw.

    Attributes
    ----------
    name
        The base model's module path, without the writer's prefixes.
    A : (r, d_in) tensor
        In the stored dtype, on the CPU, a mapped view of the file where possible.
    B : (d_out, r) tensor
        Likewise.
    scale
        alpha / r or what the format says instead; everything a format means is in it.
    source
        File and tensor names, for error messages.
    error, beyond
        Where B A is the leading part of a larger matrix: a bound on the spectral norm of what it is
        off by, and the first singular value that it leaves out. Zero for a trained update.
    level
        Of that larger matrix: a singular value up to this may be nothing but the rounding of the
        two that it is the difference of, and is not counted as real. Zero for a trained update.
    rounding
        Where B and A are multiplied out of stored numbers, or quantised: what storing those rounded
        off, as a share of the factor's norm. Zero where their own dtype tells.
    magnitude : (d_out, 1) or (1, n) tensor, or None
        Of DoRA (arXiv:2402.09353), which sets the norms of the rows of W + delta W to these, or
        those of its n blocks of d_in / n columns: a low-rank update no more, whose whole takes the
        base (`subspace.diff`). What is said of B A leaves it aside.
    blocks : ((B_1, A_1), (B_2, A_2)) or None
        Of a Kronecker product, ``B = kron(B_1, B_2)`` and ``A = kron(A_1, A_2)``: its singular
        vectors are the products of these two small ones' (`subspace.spectra`).
    """

    name: str
    A: torch.Tensor
    B: torch.Tensor
    scale: float
    _: KW_ONLY
    source: str = ""
    error: float = 0.0
    beyond: float = 0.0
    rounding: float = 0.0
    level: float = 0.0
    magnitude: torch.Tensor | None = None
    blocks: tuple[Factors, Factors] | None = None

    def __post_init__(self) -> None:
        if self.blocks is not None:
            (B1, A1), (B2, A2) = self.blocks
            whole = (len(B1) * len(B2), A1.shape[1] * A2.shape[1])
            if whole != self.shape:  # whoever cuts rows of B must leave the blocks out
                raise ValueError(f"{self.name}: blocks of {whole} for an update of {self.shape}")

    @property
    def rank(self) -> int:
        """Number of columns of B and rows of A (the numerical rank may be smaller)."""
        return int(self.A.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the map."""
        return int(self.B.shape[0]), int(self.A.shape[1])

    def delta(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Form the dense (d_out, d_in) update, float64 by default: for small matrices and tests."""
        import torch

        dtype = dtype or torch.float64
        return self.scale * (self.B.to(dtype) @ self.A.to(dtype))

    def __repr__(self) -> str:
        d_out, d_in = self.shape
        return (
            f"LowRankUpdate({self.name!r}, {d_out}x{d_in}, rank={self.rank}, scale={self.scale:g})"
        )


@dataclass(frozen=True, kw_only=True)
class UpdateInfo:
    """What the header alone says of one update."""

    name: str
    shape: tuple[int, int]  # (d_out, d_in)
    rank: int
    scale: float
    dtype: str  # of A and B as stored, "float32", or "bfloat16/float32" if they differ
    kind: str = "linear"  # or "embedding", "conv2d", "expert", ...
    kernel: tuple[int, ...] = ()  # of a convolution, as its weight ends: (kh, kw)
    groups: int = 1  # of a convolution
    stored: int | None = None  # values, where B and A are multiplied out of fewer
    flat: bool = False  # a convolution's kernel may lie among the inputs, and nothing tells
    unknown: str = ""  # a tensor of the module that is not understood: the update may be another

    @property
    def parameters(self) -> int:
        """Number of stored values: those of A and B, or of what they are multiplied out of."""
        return self.rank * sum(self.shape) if self.stored is None else self.stored


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter(Mapping[str, LowRankUpdate]):
    """A trained adapter: a read-only mapping from module path to `LowRankUpdate`.

    Modules come in the model's own order (layer 2 before layer 10). Reading a module reads its
    two tensors; nothing else is touched.

    Attributes
    ----------
    name
        As results and figures show it.
    path
        As the user gave it; None in memory.
    format
        The format's name, as `inspect` shows it.
    method
        What its updates are.
    updates
        Module path -> what the headers tell.
    base_model
        What the files say that the base is.
    weights
        The file that was read; None in memory.
    layout
        How the files lay it out, for who writes it again.
    metadata
        What else the files say, for a person: nothing here acts on it.
    set_aside
        The tensors that are in no update.
    notes
        What a reader of the numbers ought to know.
    initial
        Module path -> A (r, d_in) before training, where the trainer stored it.
    partial
        Some modules of the file were left out: a writer must not name them again.
    resized
        The ranks are no longer those of training.
    reordered
        Modules whose rows are in the writer's own rotary order (`subspace.adapters.rotary`).
    sources
        Module -> the base's module that it is made on, where that is another: PEFT's copies of a
        layer.
    strict
        Opened so that nothing is left out of a comparison with a note alone.
    prefix
        What the writer puts before every path and is no part of it, such as ``diffusion_model.``;
        its own format is written with it again.
    """

    name: str
    path: Path | None
    format: str
    method: Method
    updates: Mapping[str, UpdateInfo]
    base_model: str | None = None
    weights: Path | None = None
    layout: Layout = field(default_factory=Layout)
    metadata: Mapping[str, object] = field(default_factory=dict)
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    initial: Mapping[str, torch.Tensor] = field(default_factory=dict)
    partial: bool = False
    resized: bool = False
    reordered: frozenset[str] = frozenset()
    prefix: str = ""
    strict: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)
    _read: Callable[[str], LowRankUpdate] = field(repr=False)
    _read_tensor: Callable[[str], torch.Tensor] | None = field(repr=False, default=None)

    @classmethod
    def from_updates(
        cls, updates: Mapping[str, LowRankUpdate], *, name: str = "adapter"
    ) -> Adapter:
        """Wrap updates that are already in memory, in the order given."""
        updates_by_name = dict(updates)
        infos = {
            key: UpdateInfo(
                name=key, shape=u.shape, rank=u.rank, scale=u.scale, dtype=_dtype_name(u.A, u.B)
            )
            for key, u in updates_by_name.items()
        }
        return cls(
            name=name,
            path=None,
            format="memory",
            method=Method.LORA,
            updates=MappingProxyType(infos),
            _read=updates_by_name.__getitem__,
        )

    def __getitem__(self, module: str) -> LowRankUpdate:
        if module not in self.updates:
            raise UnknownModuleError(
                f"adapter {self.name!r} has no module {module!r}; "
                f"list what it has with `subspace inspect {quote(str(self.path or self.name))}`"
            )
        return self._read(module)

    def __iter__(self) -> Iterator[str]:
        return iter(self.updates)

    def __len__(self) -> int:
        return len(self.updates)

    def __contains__(self, module: object) -> bool:
        return module in self.updates  # Mapping's own would read the tensors

    def select(self, glob: str | None) -> Adapter:
        """Keep the modules whose path matches a shell-style pattern, such as ``"*.q_proj"``.

        None keeps them all.

        Raises
        ------
        UnknownModuleError
            No module matches.
        """
        if glob is None:
            return self
        kept = {name: info for name, info in self.updates.items() if fnmatchcase(name, glob)}
        if not kept:
            have = ", ".join(list(self.updates)[:4])
            raise UnknownModuleError(
                f"no module of adapter {self.name!r} matches {glob!r}; it has {have}"
                + (f" and {len(self) - 4} more" if len(self) > 4 else "")
            )
        from dataclasses import replace

        partial = self.partial or len(kept) < len(self)
        return replace(self, updates=MappingProxyType(kept), partial=partial)

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor that was set aside (a DoRA magnitude, a saved head) by its stored name."""
        if self._read_tensor is None or name not in {t.name for t in self.set_aside}:
            raise UnknownModuleError(f"adapter {self.name!r} set no tensor {name!r} aside")
        return self._read_tensor(name)

    def __repr__(self) -> str:
        ranks = sorted({info.rank for info in self.updates.values()})
        return (
            f"Adapter({self.name!r}, {self.method}, {len(self)} modules, "
            f"rank {', '.join(map(str, ranks)) or '-'})"
        )


def _dtype_name(*tensors: torch.Tensor) -> str:
    return "/".join(dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors))
