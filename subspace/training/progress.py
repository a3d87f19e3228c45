"""Where a run stands, and where each run of a sweep stands: for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """Where a run stands: shown by whoever passed `progress` to `train`."""

    phase: Literal["loading", "testing before", "training", "testing after"]
    step: int
    steps: int
    loss: float | None = None  # mean training loss of the last steps
    accuracy: float | None = None  # on validation texts, where it was just measured


@dataclass(frozen=True)
class SweepProgress:
    """Where one run of a sweep stands, for one display of all."""

    run: str  # its folder within the sweep's
    phase: str
    step: int
    steps: int
    loss: float | None = None
