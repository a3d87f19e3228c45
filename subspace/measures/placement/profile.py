"""Where does the update's energy lie? Over all of W's singular directions, beside its null.

Hu et al. 2021, arXiv:2106.09685, appendix H.3 compares W's top directions with delta W's
(Figure 8, `subspace.placement`). Here every direction of W counts, from the largest singular value
to its null space: delta W may also live where W does next to nothing.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from subspace import linalg
from subspace.errors import ArgumentError, NonFiniteError
from subspace.measures.bases import fit_modules, open_base
from subspace.measures.placement.energies import Energies, leave_undefined
from subspace.measures.shared import mark_unknown
from subspace.results import Profile
from subspace.spectra import is_zero, spectrum, usable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.pretrained import Pretrained
    from subspace.results import ModuleProfile

    Array = NDArray[np.float64]

_PROBE = 512  # dimensions of the decomposition that `estimate_seconds` times


def profile(
    adapter: Adapter,
    base: Pretrained | str | os.PathLike[str],
    *,
    side: Literal["in", "out"] = "in",
    modules: str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Profile:
    """Spread each update's energy over W's whole singular index, beside its null.

    With v_k the right singular vectors of W (side ``in``; the left ones for ``out``), in the order
    of descending singular values, ``energy_k = |delta W v_k|^2 / |delta W|_F^2``, which sums to 1
    over all d; ``cumulative`` is its running sum. A random update has k/d of its energy in any k
    directions: see `subspace.chance.energy_std`.

    Parameters
    ----------
    adapter, base
        An adapter and the checkpoint that it was trained on, open or as a path.
    side
        ``"in"``: input space, d = d_in; ``"out"``: output space, d = d_out.
    modules
        A shell-style pattern.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Profile`, a mapping from module to `ModuleProfile`.

    Raises
    ------
    ArgumentError
        A side other than in and out, or a device that this machine lacks.
    UnknownModuleError, ShapeError
        The base is not the adapter's.
    NonFiniteError
        W or a factor holds NaN or infinity.

    Notes
    -----
    The v_k are eigenvectors of the float64 Gram of W's smaller dimension n; on the larger side
    they follow as W x_k / sigma_k. Time grows as n^3 (`estimate_seconds`), memory is four n x n
    float64 and one module at a time. delta W itself is never formed.

    What is sure: eigenvalues sigma^2 are off by at most e = d eps sigma_1^2, d the larger
    dimension, so that sigma below sqrt(d eps) sigma_1 cannot be told from zero (`resolved`). A cut
    after index k is off by ``|error| <= 2 sin Theta_k``, ``sin Theta_k <= e / (gap_k - e)``,
    gap_k = sigma_k^2 - sigma_(k+1)^2 (Davis & Kahan 1970, SIAM J. Numerical Analysis 7). Where that
    says nothing, k cuts a cluster of equal singular values, whose directions are arbitrary: only
    its sum means something. `error` is infinite there, and energy is spread evenly over the
    cluster, the mean over all of its bases; likewise over W's null space.

    The null is a uniformly random direction. It is not yet the task: see `subspace.similarity`
    on controls.
    """
    if side not in ("in", "out"):
        raise ArgumentError(f"side is {side!r}; W and delta W are compared on in or out")
    device = usable(device)
    base = open_base(base, [adapter])
    chosen = fit_modules(adapter, base, modules)
    results = {}
    for name in chosen:
        results[name] = _module(name, chosen[name], base, side, device)
        if progress is not None:
            progress(1)
    marked = {row.module: row for row in mark_unknown(results.values(), [chosen])}
    return Profile(adapter.name, base.name, side, marked, chosen.notes)


def estimate_seconds(
    shapes: Iterable[tuple[int, int]], *, device: str | torch.device = "cpu"
) -> float:
    """Estimate how long `profile` takes for modules of these shapes (d_out, d_in).

    Times the Gram and the `eigh` of a 512 x 512 matrix here and now, and scales them as m n^2 and
    n^3, n the smaller dimension: the quickest of three, since other work only adds. From 1024 to
    4096 dimensions it was right to 16 % on a core of its own; beside other work that took the
    same cores, the run itself took up to 4 times as long.

    >>> estimate_seconds([])
    0.0
    """
    sizes = [(max(shape), min(shape)) for shape in shapes]
    if not sizes:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(_PROBE, _PROBE, generator=generator).to(usable(device))
    grams, eighs = [], []
    for _ in range(3):  # the first may still start threads
        start = time.perf_counter()
        G = linalg.gram([W])
        float(G[0, 0])  # a GPU answers when it is done
        between = time.perf_counter()
        float(torch.linalg.eigh(G).eigenvalues[0])
        grams.append(between - start)
        eighs.append(time.perf_counter() - between)
    gram = sum(m * n**2 for m, n in sizes) * min(grams)
    return (gram + sum(n**3 for _, n in sizes) * min(eighs)) / _PROBE**3


def _module(
    name: str,
    update: LowRankUpdate,
    base: Pretrained,
    side: Literal["in", "out"],
    device: torch.device,
) -> ModuleProfile:
    weight = base.get(name, shape=update.shape)
    spec = spectrum(update, device=device)
    if is_zero(update) or not spec.rank:
        note = "untrained: the update is exactly zero, so it has no energy"
        return leave_undefined(
            update, side, note if is_zero(update) else "the update is all rounding"
        )
    W = weight.W.to(device)
    largest = float(W.abs().amax())
    if not math.isfinite(largest):
        raise NonFiniteError(f"W of module {name!r} holds NaN or infinity ({weight.source})")
    if largest == 0:
        return leave_undefined(update, side, "W is exactly zero: it has no singular directions")
    unit = 1.0
    if W.dtype == torch.float64:  # the squares of every other dtype fit into float64
        W, scale = linalg.unit_scale(W)
        unit = float(scale)
    tall = W if W.shape[0] >= W.shape[1] else W.mT  # (m, n)
    m, n = tall.shape
    squares, X = torch.linalg.eigh(linalg.gram([tall]))
    squares, X = squares.flip(0).clamp(min=0), X.flip(1)  # X: right singular vectors of `tall`
    e = m * linalg.EPS * float(squares[0])
    resolved = int((squares > e).sum())
    # (d, r), but for an r above a dimension: the two sides then have unequal numbers of columns.
    directions = (spec.V if side == "in" else spec.U)[:, : len(spec.S)].to(device)
    d = update.shape[1 if side == "in" else 0]
    if (side == "in") == (tall is W):  # X is of this side's own space
        overlap = X.mT @ directions
    else:  # the other side's vectors are tall @ x_k / sigma_k
        image = torch.zeros(n, directions.shape[1], dtype=torch.float64, device=device)
        for at in range(0, m, 256):  # float64 throughout: sigma_k may be small
            image.addmm_(tall[at : at + 256].to(torch.float64).mT, directions[at : at + 256])
        overlap = X.mT @ image / squares.sqrt()[:, None]
        overlap[resolved:] = 0.0  # unknown, and in the sum of what is left
    p = (spec.S / spec.S[0]).square().to(device)  # tiny updates have squares too
    p = p / p.sum()
    raw = np.zeros(d)
    raw[:n] = (overlap.square() @ p).cpu().numpy()
    sigma = squares.sqrt().cpu().numpy()
    error = _errors(sigma**2, e, d)
    error[:-1] += 2 * math.sqrt(len(p)) * spec.error / float(torch.linalg.vector_norm(spec.S))
    measured = Energies(raw, error, unit * sigma, resolved, float(p.square().sum()))
    return measured.profile(update, side, numerical_rank=spec.rank)


def _errors(squares: Array, e: float, d: int) -> Array:
    """Bound |error| of the cumulative energy at every cut: 2 e / (gap - e), infinite from 1 on."""
    below = np.zeros(d + 1)
    below[: len(squares)] = squares
    gaps = below[:-1] - below[1:]
    error: Array = np.full(d, math.inf)
    np.divide(2 * e, gaps - e, out=error, where=gaps > 3 * e)
    error[-1] = 0.0  # all d directions hold everything
    return error
