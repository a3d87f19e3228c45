"""Which modules are adapted: by the ends of their names, by patterns, or by the model's kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError, FormatError
from subspace.modules.words import NAMINGS, list_words
from subspace.training.models import EMBEDDED, find_model, require_train, silence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.models import BaseModel

PATTERN = "re:"
"""What a target begins with that is a regular expression, of a module's whole name."""

# Query and value, or a projection that holds both, most telling names first.
_PAIRS = [pair for each in NAMINGS.values() for pair in zip(each.query, each.value, strict=False)]
_QUERY_AND_VALUE = (*dict.fromkeys(_PAIRS), *((word,) for word in list_words("fused")))


def default_targets(model: str) -> tuple[str, ...]:
    """Return what is adapted where nothing was asked for: query and value, by the model's names.

    peft's own table of architectures says them; of one that it lacks, the model's linear modules,
    if among them are names that the field has for query and value.

    >>> default_targets("minilm")
    ('query', 'value')

    Raises
    ------
    ArgumentError
        No linear module has such a name; the message has the names that there are.
    FormatError, MissingFileError, MissingExtraError
        As `find_model` does, or the model has no configuration.
    """
    if model == EMBEDDED and not Path(model).is_dir():
        return ("query", "value")
    base = find_model(model)
    require_train()
    with silence():  # peft's import is not silent everywhere
        from peft.utils import constants
        from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base.location)
    except (OSError, ValueError) as error:
        raise FormatError(f"model {base.name!r}: {str(error).splitlines()[0]}") from error
    table = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    from_peft = table.get(config.model_type)
    if from_peft is not None:  # a text is a pattern
        return (PATTERN + from_peft,) if isinstance(from_peft, str) else tuple(from_peft)
    names = linear_ends(_without_weights(base, config))
    targets = _query_and_value(names)
    if not targets:
        raise ArgumentError(
            f"model {base.name!r} is of the type {config.model_type!r}, of which peft does not say "
            f"what to adapt: {_some_of(names)}"
        )
    return targets


def _without_weights(base: BaseModel, config: Any) -> Any:  # noqa: ANN401 - transformers' own
    import torch
    from transformers import AutoModel

    try:
        with silence(), torch.device("meta"):
            return AutoModel.from_config(config)
    except Exception as error:  # of any kind, as where a model is loaded
        reason = (str(error).strip().splitlines() or [""])[0]
        raise FormatError(
            f"model {base.name!r}: its modules are not known ({type(error).__name__}: "
            f"{reason[:200]}); name some to adapt with --targets"
        ) from error


def _query_and_value(names: Sequence[str]) -> tuple[str, ...]:
    return next((pair for pair in _QUERY_AND_VALUE if set(pair) <= set(names)), ())


def linear_ends(model: Any) -> list[str]:  # noqa: ANN401 - transformers' own
    """Return the last parts of the names of linear modules, sorted, without the model's heads.

    Heads are what a task put on the model: they are trained as they are, or tied to an embedding.
    """
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear modules

    inside = model.base_model if model.base_model is not model else model
    head = model.get_output_embeddings()
    return sorted(
        {
            name.split(".")[-1]
            for name, module in inside.named_modules()
            if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
        }
    )


def for_peft(targets: tuple[str, ...] | str) -> str | list[str]:
    r"""Return targets as peft takes them: a list of names, or one regular expression.

    >>> for_peft(("query", "value")), for_peft("all-linear"), for_peft("re:.*query")
    (['query', 'value'], 'all-linear', '.*query')
    >>> for_peft(("query", "re:.*key", "re:.*[45].output.dense"))
    '(?:.*\\.)?(?:query)|(?:.*key)|(?:.*[45].output.dense)'
    """
    if isinstance(targets, str):
        return targets.removeprefix(PATTERN)
    if not any(target.startswith(PATTERN) for target in targets):
        return list(targets)
    names = "|".join(re.escape(t) for t in targets if not t.startswith(PATTERN))
    patterns = [t.removeprefix(PATTERN) for t in targets if t.startswith(PATTERN)]
    if not names and len(patterns) == 1:
        return patterns[0]
    parts = [f"(?:.*\\.)?(?:{names})"] if names else []
    return "|".join([*parts, *(f"(?:{pattern})" for pattern in patterns)])


def read_targets(text: str) -> tuple[str, ...] | str:
    """Read one target set as it is typed: names with commas between, then perhaps a pattern.

    A pattern goes on to the end, for a comma is a character of its own there.

    >>> read_targets("q_proj, v_proj"), read_targets("all-linear"), read_targets("re:.*[qv]_proj")
    (('q_proj', 'v_proj'), 'all-linear', 're:.*[qv]_proj')
    >>> read_targets("out,re:.*q{1,2}")
    ('out', 're:.*q{1,2}')
    """
    if text.startswith(PATTERN) or text == "all-linear":
        return text
    names, comma, pattern = f",{text}".partition(f",{PATTERN}")
    parts = [part.strip() for part in names.removeprefix(",").split(",")]
    parts = [] if comma and parts == [""] else parts
    return (*parts, *([PATTERN + pattern] if comma else []))


def typed(targets: Sequence[str]) -> str:
    """Return one target set as `read_targets` reads it.

    >>> typed(["q_proj", "v_proj"]), typed(["re:.*a", "out", "re:.*b"])
    ('q_proj,v_proj', 'out,re:(?:.*a)|(?:.*b)')
    """
    names = [target for target in targets if not target.startswith(PATTERN)]
    patterns = [t.removeprefix(PATTERN) for t in targets if t.startswith(PATTERN)]
    joined = patterns if len(patterns) < 2 else ["|".join(f"(?:{each})" for each in patterns)]
    return ",".join([*names, *(PATTERN + each for each in joined)])


def check_patterns(targets: tuple[str, ...] | str) -> None:
    """Refuse a pattern that is no regular expression.

    Raises
    ------
    ArgumentError
        It says which, and where it goes wrong.
    """
    for target in [targets] if isinstance(targets, str) else targets:
        if target.startswith(PATTERN):
            try:
                re.compile(target.removeprefix(PATTERN))
            except re.error as error:
                raise ArgumentError(
                    f"target {target!r} is no regular expression: {error}; a pattern is matched "
                    "with the whole name of a module, as in 're:.*attention.*(query|value)'"
                ) from error


def check_found(targets: tuple[str, ...] | str, model: Any) -> None:  # noqa: ANN401 - transformers' own
    """Refuse a target that no module of the model has: peft would leave it out in silence.

    Raises
    ------
    ArgumentError
        It has the names that there are.
    """
    if targets == "all-linear":
        return
    names = [name for name, _ in model.named_modules()]
    for target in [targets] if isinstance(targets, str) else targets:
        if not any(_matches(target, name) for name in names):
            how = "has a name like" if target.startswith(PATTERN) else "ends in"
            raise ArgumentError(
                f"no module of {type(model).__name__} {how} {target!r}: {suggestion(model)}"
            )


def _matches(target: str, name: str) -> bool:
    if target.startswith(PATTERN):
        return re.fullmatch(target.removeprefix(PATTERN), name) is not None
    return name == target or name.endswith(f".{target}")


def suggestion(model: Any) -> str:  # noqa: ANN401 - transformers' own
    """Say what could be adapted in a model, for a message on what cannot."""
    return _some_of(linear_ends(model))


def _some_of(names: Sequence[str]) -> str:
    if not names:
        return "it has no linear modules; name others with --targets, such as an embedding's"
    some = ",".join(_query_and_value(names) or names[:2])
    return (
        f"its linear modules end in {', '.join(names)}; name some of them, such as --targets "
        f"{some}, or all of them: --targets all-linear"
    )
