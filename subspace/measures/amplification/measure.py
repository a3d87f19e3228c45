"""What does an adapter amplify? Table 7 of the LoRA paper, per module, rank and direction.

Hu et al. 2021, arXiv:2106.09685, section 7.3 and appendix H.4. With U, V the singular vectors of
delta W, the factor is ``|delta W|_F / |U^T W V|_F``. A large factor alone proves nothing: a random
delta W of the paper's norm would have 342 (r = 4) and 11.1 (r = 64) where the paper found 21.5 and
1.9, so that learned updates meet *more* of W than random ones do. Every factor stands beside its
null.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subspace.cache import Cache
from subspace.errors import ArgumentError
from subspace.measures.amplification.pretrained_values import ValuesOf
from subspace.measures.amplification.table7 import AmplificationOptions, module_rows
from subspace.measures.bases import fit_modules, open_base
from subspace.measures.shared import mark_unknown
from subspace.results import Amplification
from subspace.spectra import usable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import torch

    from subspace.adapters import Adapter
    from subspace.measures.bases import Base
    from subspace.results import ModuleAmplification


def amplification(
    adapter: Adapter,
    base: Base,
    *,
    ranks: Sequence[int] | None = None,
    modules: str | None = None,
    scaled: bool = True,
    top: bool = True,
    cache: str | os.PathLike[str] | None = None,
    verify_cache: bool = False,
    draws: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Amplification:
    """Table 7: how much of W lies in the directions of delta W, beside its null.

    Parameters
    ----------
    adapter, base
        An adapter and the checkpoint that it was trained on, open or as a path.
    ranks
        Without it, each module at the adapter's own rank: the paper's definition, whose r = 4 and
        r = 64 are two adapters. With it, the update truncated to its leading k directions, on
        both sides, for every k given that the module has.
    modules
        A shell-style pattern.
    scaled
        Whether delta W includes the adapter's scale, alpha / r: what the model really adds. The
        factor depends on it, phi does not.
    top
        Also project W onto its own leading directions. Of a large W that takes many passes where
        the rest takes one; without it `w_in_w` is NaN.
    cache
        A folder in which W's own singular values are kept for the next call. The verb uses
        `subspace.cache.default_folder`; here None keeps nothing.
    verify_cache
        Hash every byte of W before an entry of the cache is believed.
    draws, seed
        Haar draws behind the range of the null, at least 200. None: 2000 where W's spectrum or
        a small rank calls for them, and the Gamma of two moments elsewhere.
    device
        Where to compute: any torch device with float64.
    progress
        Called with the number of modules that were finished.

    Returns
    -------
    `Amplification`, a sequence of rows: a module, and a rank within it.

    Raises
    ------
    UnknownModuleError
        The base lacks a module, or none matches `modules`.
    ShapeError
        A module of the base has another shape.
    NonFiniteError
        W or a factor holds NaN or infinity.
    ArgumentError
        A rank below 1, no module of a rank asked for, fewer than 200 draws, a seed below 0, or a
        device that this machine lacks.

    Notes
    -----
    W is read once for the norm and the projections, in panels: memory is one panel and the
    directions, beside W as it lies in the file. Its own singular values are a second stage, see
    `subspace.linalg.leading`. A large W is multiplied in float32 and summed in float64; where that
    leaves less than six digits of a projection, which only the smallest ranks meet, in float64.
    """
    return amplifications(
        [adapter],
        base,
        ranks=ranks,
        modules=modules,
        scaled=scaled,
        top=top,
        cache=cache,
        verify_cache=verify_cache,
        draws=draws,
        seed=seed,
        device=device,
        progress=progress,
    )[0]


def amplifications(
    adapters: Sequence[Adapter],
    base: Base,
    *,
    ranks: Sequence[int] | None = None,
    modules: str | None = None,
    scaled: bool = True,
    top: bool = True,
    cache: str | os.PathLike[str] | None = None,
    verify_cache: bool = False,
    draws: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[Amplification, ...]:
    """Table 7 of several adapters of one base, in one pass over it.

    The directions of all are set side by side, so that W is read, converted and multiplied once.
    Options and errors are those of `amplification`; a module that only some adapters have is in
    their results alone.
    """
    options = AmplificationOptions(
        ranks=ranks, scaled=scaled, top=top, draws=draws, seed=seed, device=usable(device)
    )
    base = open_base(base, adapters)
    chosen = [fit_modules(adapter, base, modules) for adapter in adapters]
    for adapter in chosen:
        _check_ranks(adapter, ranks)
    values_of = ValuesOf(
        base, None if cache is None else Cache(Path(cache)), verify_cache=verify_cache
    )
    rows: list[list[ModuleAmplification]] = [[] for _ in chosen]
    for name in dict.fromkeys(name for adapter in chosen for name in adapter):
        having = [n for n, adapter in enumerate(chosen) if name in adapter]
        done = module_rows([chosen[n][name] for n in having], base, values_of, options)
        for n, made in zip(having, done, strict=True):
            rows[n] += made
        if progress is not None:
            progress(1)
    return tuple(
        Amplification(
            adapter=adapter.name,
            base=base.name,
            scaled=scaled,
            seed=seed,
            rows=tuple(mark_unknown(made, [adapter])),
            notes=adapter.notes,
        )
        for adapter, made in zip(chosen, rows, strict=True)
    )


def _check_ranks(adapter: Adapter, ranks: Sequence[int] | None) -> None:
    highest = max((info.rank for info in adapter.updates.values()), default=0)
    if ranks is not None and min(ranks) > highest:
        raise ArgumentError(
            f"adapter {adapter.name!r} has no module of a rank asked for: its ranks go to {highest}"
        )
