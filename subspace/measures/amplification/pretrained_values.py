"""W's own leading singular values: they depend on W alone, so they are found once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from subspace import linalg
from subspace.pretrained import Pretrained
from subspace.pretrained.fingerprint import Fingerprints, digest

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from subspace.cache import Cache
    from subspace.pretrained import Weight

    Array = NDArray[np.float64]

KEPT_FROM = 1024  # dimensions: below, finding the values costs less than keeping them
STEP = 64  # values are found in such numbers, so that adapters of like ranks find theirs there
_ROUGH = 16
_VERSION = 2  # of what is computed: another one makes old entries useless


@dataclass(frozen=True, eq=False)
class PretrainedValues:
    """W's leading singular values; see `subspace.linalg.Leading` for `error` and `method`."""

    S: Array  # (k,) descending
    error: Array  # (k,)
    fourth: float  # sum of the fourth powers of all singular values over the squared sum of squares
    method: Literal["gram", "krylov", "rough"]


class ValuesOf:
    """W's own values, module by module of one base, from the cache where it has them.

    Parameters
    ----------
    base
        A base in memory has no files to tell it by, and is not cached.
    cache
        None keeps nothing.
    verify_cache
        Hash all of W before an entry is believed, beside the files' sizes, times and spaced rows.
    """

    def __init__(
        self, base: Pretrained, cache: Cache | None, *, verify_cache: bool = False
    ) -> None:
        self._base, self._verify = base, verify_cache
        self._cache = cache if isinstance(base, Pretrained) else None

    @cached_property
    def _prints(self) -> Fingerprints:
        return Fingerprints(self._base.tensors)

    def rough(self, W: torch.Tensor, norm: float, device: torch.device) -> PretrainedValues:
        """Return W's leading values at a glance: the last of a large W may be a third too low."""
        result = linalg.leading(W, _ROUGH, norm=norm, rough=True, device=device)
        return _plain(result, STEP)

    def __call__(
        self, weight: Weight, W: torch.Tensor, norm: float, k: int, device: torch.device
    ) -> PretrainedValues:
        """Return at least k values, or as many as W has: the same ones whatever is in the cache.

        Parameters
        ----------
        weight, W, norm
            A module's weight, its tensor, and the finite norm of that.
        k
            How many are needed.
        device
            Where to compute what is not known.
        """
        wanted = min(-(-k // STEP) * STEP, *W.shape)
        if self._cache is None or min(W.shape) < KEPT_FROM:
            return _plain(linalg.leading(W, wanted, norm=norm, device=device), wanted)
        key = f"values {_VERSION} {wanted} {self._prints.key(weight, W)}"
        entry = self._cache.get(key)
        whole = digest(W) if self._verify or entry is None else ""
        if entry is not None and (not whole or entry.get("digest") == whole):
            result = _from_entry(entry)
            if result is not None and len(result.S) == wanted:
                return result
        result = _plain(linalg.leading(W, wanted, norm=norm, device=device), wanted)
        self._cache.put(
            key,
            {
                "S": result.S.tolist(),
                "error": result.error.tolist(),
                "fourth": result.fourth,
                "method": result.method,
                "digest": whole or digest(W),
            },
        )
        return result


def _plain(result: linalg.Leading, most: int) -> PretrainedValues:
    S, error = result.S[:most].numpy(), result.error[:most].numpy()
    return PretrainedValues(S, error, result.fourth, result.method)


def _from_entry(entry: dict[str, Any]) -> PretrainedValues | None:
    """Read an entry; None where it is not what this version writes."""
    try:
        S, error = (np.asarray(entry[name], dtype=np.float64) for name in ("S", "error"))
        fourth, method = float(entry["fourth"]), entry["method"]
    except (KeyError, TypeError, ValueError):
        return None
    sound = S.ndim == 1 and S.shape == error.shape and method in ("gram", "krylov")
    if not sound or not np.isfinite([*S, *error, fourth]).all() or (np.diff(S) > 0).any():
        return None
    return PretrainedValues(S, error, fourth, cast("Any", method))
