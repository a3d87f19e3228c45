"""Tasks and runs that produce the adapters this package analyses.

One run is `train(TrainConfig(...), out)`: low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)
of a transformers model for text classification, by peft and transformers' Trainer. A task is a
function in `tasks.TASKS`; a grid of runs is `run_sweep(Sweep(...), out)`. Importing this room
imports neither torch nor transformers. Start reading with `run`.
"""

from __future__ import annotations

from subspace.training.config import DEMO, TrainConfig
from subspace.training.progress import Progress
from subspace.training.run import TrainResult, train
from subspace.training.sweep.grid import Sweep
from subspace.training.sweep.train import run_sweep
from subspace.training.tasks.dataset import Dataset, TextSplit
from subspace.training.tasks.load import TASKS, load_data

__all__ = [
    "DEMO",
    "TASKS",
    "Dataset",
    "Progress",
    "Sweep",
    "TextSplit",
    "TrainConfig",
    "TrainResult",
    "load_data",
    "run_sweep",
    "train",
]
