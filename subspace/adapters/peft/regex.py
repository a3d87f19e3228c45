r"""Which pattern of a config a module falls under, by PEFT's rule and bounded in time.

PEFT takes the first key of ``rank_pattern`` or ``alpha_pattern`` for which
``re.match(rf"(.*\.)?({key})$", module)`` holds (peft 0.21.2, ``get_pattern_key``). A key comes
from a stranger and Python's ``re`` can take for ever, so only keys of plain characters, where
``.`` alone is special, are matched here; all others go to one child process with a time limit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.tensorfiles import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SECONDS = 2.0
_PLAIN = re.compile(r"[\w.\-/: ]*")
_MOST_LOOKS = 5_000_000

# Prints one line a pattern, so that the parent knows which one did not end.
_CHILD = r"""
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except Exception:
    pass
job = json.load(sys.stdin)
for key in job["keys"]:
    try:
        found = re.compile(r"(.*\.)?(%s)$" % key)
        line = [i for i, name in enumerate(job["names"]) if found.match(name)]
    except BaseException as error:
        line = "%s: %s" % (type(error).__name__, error)
    print(json.dumps(line), flush=True)
"""


def match_patterns(
    keys: Sequence[str], names: Iterable[str], *, where: str
) -> dict[str, list[str]]:
    r"""Map each name to the keys that it falls under, in the order of `keys`: PEFT takes the first.

    Parameters
    ----------
    keys
        Regular expressions in the config's order.
    names
        Module paths.
    where
        File and field, for the error.

    Raises
    ------
    FormatError
        A key is no regular expression, or does not end within 2 seconds; it is named.

    >>> match_patterns(["0.q", "q", "k.*"], ["h.0.q", "h.1.q", "kk"], where="config")
    {'h.0.q': ['0.q', 'q'], 'h.1.q': ['q'], 'kk': ['k.*']}
    """
    names = list(dict.fromkeys(names))
    # A line break changes what "." and "$" mean: leave those to re itself.
    broken = any("\n" in name for name in names)
    plain = [i for i, key in enumerate(keys) if not broken and _PLAIN.fullmatch(key)]
    rest = sorted(set(range(len(keys))) - set(plain))
    matched: dict[str, set[int]] = {name: set() for name in names}
    for name, i in (*_plain(keys, plain, names, where), *_child(keys, rest, names, where)):
        matched[name].add(i)
    return {name: [keys[i] for i in sorted(hits)] for name, hits in matched.items()}


def _plain(
    keys: Sequence[str], chosen: list[int], names: list[str], where: str
) -> list[tuple[str, int]]:
    """Match by table: a key agrees with a dotted tail of its own length, but for its dots."""
    if not chosen:
        return []
    layouts: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
    for i in chosen:
        dots = tuple(at for at, c in enumerate(keys[i]) if c == ".")
        layouts.setdefault(len(keys[i]), {}).setdefault(dots, {}).setdefault(keys[i], i)
    out, lookups = [], 0
    for name in names:
        tails = [name, *(name[at + 1 :] for at, c in enumerate(name) if c == ".")]
        for tail in tails:
            for dots, table in layouts.get(len(tail), {}).items():
                lookups += 1 + len(dots)
                masked = list(tail)
                for at in dots:
                    masked[at] = "."
                entries = table.get("".join(masked))
                if entries is not None:
                    out.append((name, entries))
        if lookups > _MOST_LOOKS:
            raise FormatError(
                f"{where}: {len(keys)} patterns for {len(names)} modules are too many"
            )
    return out


def _child(
    keys: Sequence[str], chosen: list[int], names: list[str], where: str
) -> list[tuple[str, int]]:
    if not chosen or not names:
        return []
    job = json.dumps({"keys": [keys[i] for i in chosen], "names": names})
    try:
        done = subprocess.run(
            [sys.executable or "python3", "-I", "-S", "-c", _CHILD],
            input=job.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as expired:
        key = keys[chosen[min((expired.stdout or b"").count(b"\n"), len(chosen) - 1)]]
        raise FormatError(
            f"{where}: the pattern {short(key)} takes more than {_SECONDS:g} s to match; "
            "write it without nested repeats, or name the modules plainly"
        ) from None
    except OSError as error:
        raise FormatError(f"{where}: no process to match patterns in ({error})") from None
    out = []
    for place, i in enumerate(chosen):
        result = json.loads(lines[place]) if place < len(lines) else "its process died"
        if isinstance(result, str):
            raise FormatError(f"{where}: the pattern {short(keys[i])} cannot be used ({result})")
        out += [(names[at], i) for at in result]
    return out
