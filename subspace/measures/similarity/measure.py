"""Do two adapters point the same way? phi(i, j) of Eq. 4, its null, what agrees.

Hu et al. 2021, arXiv:2106.09685, section 7.2 and appendix G.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from subspace import chance, linalg
from subspace.adapters import Adapter, Aligned, LowRankUpdate, align
from subspace.errors import ArgumentError
from subspace.measures.agreement import LEVEL, Overlaps, fill_agreeing
from subspace.measures.initial import note_same_rows, require_initial_a, wrap_initial_a
from subspace.measures.labels import label_adapters
from subspace.measures.phi import phi_cells
from subspace.measures.shared import check_shapes, find_shared, mark_unknown
from subspace.results import Distances, ModuleSimilarity, Side, Similarity
from subspace.spectra import (
    Solved,
    equal_chunks,
    is_zero,
    over_chunks,
    require_finite,
    solve,
    usable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from subspace.measures.initial import InitialA

    Grid = NDArray[np.float64]


def similarity(
    a: Adapter,
    b: Adapter,
    *,
    side: Side = "A",
    modules: str | None = None,
    control: Adapter | None = None,
    angles: bool = False,
    level: float = LEVEL,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Similarity:
    """Compare the leading directions of two adapters, module by module.

    For every i <= r_a and j <= r_b, ``phi(i, j) = |U_a[:, :i].T @ U_b[:, :j]|_F^2 / min(i, j)``:
    Eq. 4 of Hu et al. 2021, arXiv:2106.09685, 1 for the same subspace, 0 for orthogonal ones.
    (Appendix G prints phi = (1/p)(1 - d^2); its own definitions give 1 - d^2/p, which is this.)

    Parameters
    ----------
    a, b
        Two adapters of one base model; ranks may differ.
    side
        Whose directions, see `subspace.spectra`: ``"A"`` (the paper's choice), ``"B"``, ``"in"``,
        ``"out"``, or ``"delta-A"`` (what training added to A). A and B alone depend on the gauge
        (A -> GA, B -> BG^-1), ``in`` and ``out`` do not.
    modules
        A shell-style pattern; without it, all modules that both have.
    control
        A third adapter, such as one trained on shuffled labels: `a` is compared with it too, in
        the result's ``.control``. The null of random subspaces is not yet that of the task:
        any A picks up the few huge directions of a transformer's inputs.
    angles
        Also the principal angles between all real directions of a and b, and distances.
    level
        Family-wise level within a module, and false discovery rate over modules, at which
        directions count as agreeing.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Similarity`: a mapping from module path to `ModuleSimilarity`, and where both adapters hold
    their initial A and the side is A or in, ``.initial``: the same of the two initial A.

    Raises
    ------
    UnknownModuleError
        The adapters share no module, or none matches `modules`.
    ArgumentError
        An unknown side, a level that is no probability, a device that this machine lacks.
    ShapeError
        A shared module has different dimensions.
    NonFiniteError
        A factor holds NaN or infinity.

    >>> B = torch.ones(2, 2)
    >>> p = LowRankUpdate("q", torch.tensor([[2.0, 0, 0], [0, 1, 0]]), B, 1.0)
    >>> q = LowRankUpdate("q", torch.tensor([[1.0, 0, 0], [0, 2, 0]]), B, 1.0)
    >>> result = similarity(Adapter.from_updates({"q": p}), Adapter.from_updates({"q": q}))
    >>> result["q"].phi.round(2).tolist()  # one plane, opposite order of strength
    [[0.0, 1.0], [1.0, 1.0]]
    """
    return compare(
        align([a, b] if control is None else [a, b, control]),
        side=side,
        modules=modules,
        angles=angles,
        level=level,
        device=device,
        progress=progress,
    )


def compare(
    adapters: Aligned,
    *,
    side: Side = "A",
    modules: str | None = None,
    angles: bool = False,
    level: float = LEVEL,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    trained: bool = True,
) -> Similarity:
    """`similarity` of two adapters that are aligned; a third one is the control.

    Only of `trained` ones is it said that they began from one initial A.
    """
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level!r}; it is a probability between 0 and 1")
    device = usable(device)
    a, b, *controls = adapters
    adapters = Aligned([a, b])
    names = find_shared(adapters, modules)
    for name in names:
        check_shapes(adapters, name, side)
    label_a, label_b = label_adapters(adapters)
    labels = (label_a, label_b)
    initial_a = require_initial_a(adapters, names, side)

    def shape(name: str) -> tuple[int, ...]:
        infos = [x.updates[name] for x in adapters]
        return (*infos[0].shape, *(info.rank for info in infos))

    def work(chunk: list[str]) -> list[ModuleSimilarity]:
        rows = [[x[name] for x in adapters] for name in chunk]
        if side not in ("in", "out"):  # the factor that this side does not read
            for update in itertools.chain(*rows):
                require_finite(update, "A" if side == "B" else "B")
        before = None if side != "delta-A" or initial_a is None else [initial_a[n] for n in chunk]
        solved = solve(rows, side, device, before)
        return [
            _build_module(name, side, one, labels, [is_zero(u) for u in row], angles=angles)
            for name, one, row in zip(chunk, solved, rows, strict=True)
        ]

    parts = over_chunks(equal_chunks(names, shape), work, progress=progress)
    by_name = {m.module: m for part in parts for m in part}
    counted = fill_agreeing(mark_unknown((by_name[name] for name in names), adapters), level)
    result = Similarity(
        adapters=labels,
        side=side,
        modules={m.module: m for m in counted},
        level=level,
        unmatched=(tuple(n for n in a if n not in b), tuple(n for n in b if n not in a)),
        notes=(
            *(
                f"{label}: {note}"
                for label, x in zip(labels, adapters, strict=True)
                for note in x.notes
            ),
            *(note_same_rows(adapters, labels) if trained else ()),
        ),
    )
    if initial_a is not None and side in ("A", "in"):
        result = replace(result, initial=_compare_initial(adapters, initial_a, level))
    if controls:
        against = compare(
            Aligned([a, controls[0]]),
            side=side,
            modules=modules,
            angles=angles,
            level=level,
            device=device,
        )
        result = replace(result, control=against)
    return result


def _compare_initial(adapters: Aligned, initial_a: InitialA, level: float) -> Similarity:
    """Phi of the two initial A: the same seed and rank give the same one, phi = 1."""
    initial = Aligned(
        Adapter.from_updates(
            {name: wrap_initial_a(name, A0[n], x.name) for name, A0 in initial_a.items()},
            name=f"{x.name} (initial)",
        )
        for n, x in enumerate(adapters)
    )
    return compare(initial, side="A", level=level, trained=False)


def _build_module(
    name: str,
    side: Side,
    solved: Solved,
    labels: tuple[str, str],
    untrained: Sequence[bool],
    *,
    angles: bool,
) -> ModuleSimilarity:
    first, second = solved.directions
    d = first.dimension
    r_a, r_b = len(first.S), len(second.S)
    rank_a, rank_b = (0 if u else x.rank for x, u in zip(solved.directions, untrained, strict=True))
    i, j = np.ogrid[1 : r_a + 1, 1 : r_b + 1]
    phi, error, masked = phi_cells(solved, (0, 1), (rank_a, rank_b))
    squares = np.square(solved.overlap(0, 1).numpy())
    bounds = [x.angle_errors().numpy() for x in solved.directions]
    within = Overlaps.of(squares, bounds, (rank_a, rank_b), d)
    i_grid, j_grid = np.minimum(i, d), np.minimum(j, d)

    result = ModuleSimilarity(
        module=name,
        side=side,
        d=d,
        rank_a=r_a,
        rank_b=r_b,
        numerical_rank_a=rank_a,
        numerical_rank_b=rank_b,
        phi=phi,
        error=error,
        masked=masked,
        null_mean=chance.phi_mean(i_grid, j_grid, d),
        null_std=chance.phi_std(i_grid, j_grid, d),
        pvalue=chance.phi_pvalue(phi, i_grid, j_grid, d),
        agreeing=None,
        overlap_a=np.minimum(within.a, 1.0),  # a sum of squares may round to a little more
        overlap_b=np.minimum(within.b, 1.0),
        method_a=first.method,
        method_b=second.method,
        note=_note(labels, untrained, ((rank_a, r_a), (rank_b, r_b)), masked),
    )
    if angles and rank_a and rank_b:
        U, V = first.form()[:, :rank_a], second.form()[:, :rank_b]
        theta = linalg.principal_angles(U, V).numpy()
        result = replace(
            result,
            angles=theta,
            angle_edge=chance.smallest_angle(rank_a, rank_b, d),
            distances=distances(theta),
        )
    return result


def distances(theta: Grid) -> Distances:
    """Distances between two subspaces from their p principal angles (radians).

    `projection` (chordal; Ham & Lee 2008, and appendix G of the LoRA paper) (sum sin^2)^1/2,
    `geodesic` (sum theta^2)^1/2, `procrustes` 2 (sum sin^2(theta/2))^1/2. For subspaces of
    unequal dimensions p is the smaller: the distance from the smaller one to the nearest subspace
    of the larger, zero where one contains the other (Ye & Lim 2016, SIAM J. Matrix Anal. 37).

    >>> distances(np.array([0.0, np.pi / 2])).projection
    1.0
    """
    return Distances(
        projection=float(np.sqrt(np.square(np.sin(theta)).sum())),
        geodesic=float(np.sqrt(np.square(theta).sum())),
        procrustes=float(2 * np.sqrt(np.square(np.sin(theta / 2)).sum())),
    )


def _note(
    labels: tuple[str, str],
    untrained: Sequence[bool],
    ranks: tuple[tuple[int, int], tuple[int, int]],
    masked: NDArray[np.bool_],
) -> str:
    if any(untrained):
        which = " and ".join(x for x, zero in zip(labels, untrained, strict=True) if zero)
        return f"untrained: the update of {which} is exactly zero, so it has no directions"
    notes = [
        f"numerical rank {rank} of {r} in {label}, undefined beyond"
        for label, (rank, r) in zip(labels, ranks, strict=True)
        if rank < r
    ]
    if masked.any():
        notes.append(f"{int(masked.sum())} cells cut a cluster of equal singular values, undefined")
    return "; ".join(notes)


def random_pair(rank_a: int, rank_b: int, d: int, *, seed: int = 0) -> ModuleSimilarity:
    """Phi of two independent Gaussian matrices, (rank_a, d) and (rank_b, d): Figure 4's last panel.

    Parameters
    ----------
    rank_a, rank_b, d
        Shapes, such as those of the two A that the panel stands beside.
    seed
        The same seed gives the same two matrices.

    >>> random_pair(4, 8, 100, seed=1).agreeing
    0
    """
    generator = torch.Generator().manual_seed(seed)
    pair = Aligned(
        Adapter.from_updates(
            {
                "random": LowRankUpdate(
                    "random", torch.randn(r, d, generator=generator), torch.ones(1, r), 1.0
                )
            },
            name="Gaussian",
        )
        for r in (rank_a, rank_b)
    )
    return compare(pair, trained=False)["random"]
