"""The sample adapters of this repository: tests name them here alone.

`NAMES` are the folders: rank 8, rank 64 from another seed, and a second seed of rank 64. `SHUFFLED`
is of rank 64 too, trained on shuffled labels.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "adapters"
NAMES = ("r8-seed0", "r64-seed1", "r64-seed0")
R8, R64, SEED = (str(SAMPLES / name) for name in NAMES)
SHUFFLED = str(SAMPLES / "r64-seed1-shuffled")
