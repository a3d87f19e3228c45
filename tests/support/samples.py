"""The sample adapters of this repository: tests name them here alone.

`NAMES` are the folders: rank 8, rank 64, and another seed of rank 64.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "adapters"
NAMES = ("r8", "r64", "r64-seed1")
R8, R64, SEED = (str(SAMPLES / name) for name in NAMES)
