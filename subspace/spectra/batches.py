"""How modules are put together for speed: equal shapes in one batch, one thread a core."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Result = TypeVar("Result")

IN_CACHE = 1 << 20  # stored values of a chunk that one batched product takes
_IN_MEMORY = 1 << 23  # and of any chunk of more than one module: 64 MB in float64
_CORES = 8  # large modules whose cores are solved together; more gains nothing


def usable(device: str | torch.device) -> torch.device:
    """Return the device, once a float64 number has been there and back.

    Raises
    ------
    ArgumentError
        This machine has no such device, or it has no float64 (Apple's mps).
    """
    try:
        float(torch.zeros(1, dtype=torch.float64, device=device))
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"device {str(device)!r} cannot be used: {reason}; leave --device out for the CPU"
        ) from None
    return torch.device(device)


def equal_chunks(names: Iterable[str], shape: Callable[[str], tuple[int, ...]]) -> list[list[str]]:
    """Group names into chunks of equal shape (d_out, d_in, rank, …).

    Small modules win 3-5x from one batched product, as long as a chunk stays in the cache. Large
    ones are read one by one, but their r x r cores are still solved together: at r = 64 a call of
    torch costs as much as the arithmetic in it.

    >>> equal_chunks("abc", lambda name: (2048, 2048, 1024))
    [['a', 'b'], ['c']]
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        groups.setdefault(shape(name), []).append(name)
    chunks = []
    for (d_out, d_in, *ranks), members in groups.items():
        stored = max(1, (d_out + d_in) * sum(ranks))
        size = max(1, IN_CACHE // stored, min(_CORES, _IN_MEMORY // stored))
        chunks += [members[at : at + size] for at in range(0, len(members), size)]
    return chunks


def over_chunks(
    chunks: Sequence[list[str]],
    work: Callable[[list[str]], Result],
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Run `work` on every chunk, one Python thread a core and one BLAS thread each.

    Results come in the order of `chunks`. `progress` hears how many names each chunk had. The
    caller's number of torch threads is restored.
    """
    before = torch.get_num_threads()
    results = []
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max(1, min(before, len(chunks)))) as pool:
            for chunk, result in zip(chunks, pool.map(work, chunks), strict=True):
                results.append(result)
                if progress is not None:
                    progress(len(chunk))
    finally:
        torch.set_num_threads(before)
    return results
