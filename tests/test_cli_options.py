"""Options have one name in shell and library, and a verb's function has few parameters."""

import inspect
from importlib import import_module

import pytest

import subspace
from subspace.cli import VERBS, main

MOST = 10  # parameters of a verb's function

# verb -> the functions and classes that its options are handed to, where that is not the public
# function of the verb's name alone, or there is none
CALLS = {
    "similarity": (
        "measures.similarity.measure:similarity",
        "measures.similarity.matrix:similarities",
        "plots.figure3:figure3",
    ),
    "amplification": ("measures.amplification.measure:amplifications",),
    "placement": (
        "measures.placement.measure:placement",
        "measures.placement.profile:profile",
        "plots.figure3:figure3",
    ),
    "diff": ("measures.diff.measure:diff", "adapters.save:save"),
    "report": ("reports:report",),
    "resize": ("measures.resize.measure:resize", "adapters.save:save"),
    "convert": ("adapters.save:save",),
    "train": (
        "training.config:TrainConfig",
        "training.sweep.grid:Sweep",
        "training.sweep.train:run_sweep",
    ),
    "reproduce": ("training.config:TrainConfig", "training.sweep.grid:Sweep"),
}
READING = (subspace.load, subspace.align)

# What no function takes: where a result goes, and how a figure looks.
OUTPUT = {"json", "csv", "markdown", "latex", "out", "draw", "figure", "style", "width", "dpi"}
EXCEPTIONS = {
    "inspect": {"explain": "asks `explain`, a function of its own"},
    "similarity": {"order": "of what is shown: the result holds both orders"},
    "interference": {"all": "of what is shown: the result holds every pair"},
    "amplification": {
        "directions": "of what is shown: the result holds them",
        "no_cache": "a shell has no None: it is `cache=None`",
    },
    "placement": {"profile": "chooses the function"},
    "diff": {},
    "report": {"runs": "a folder, of which `sweep` is the table"},
    "convert": {
        "modules": "is `adapter.select(modules)`",
        "base": "whose names are handed to `align`",
    },
    "train": {"config": "a file of these options"},
    "reproduce": {
        "config": "a file of a sweep",
        "quick": "a smaller sweep",
        "base": "of the measures that follow the training",
        "compare": "which of the target sets is measured",
        "jobs": "as in `train`",
    },
}
# What a function takes and its verb does not hand over.
OWN = {
    "progress": "a bar",
    "command": "what was typed",
    "factors": "follows from --out",
    "cache": "of a report the user's own folder",
    "sweep": "of a report the table of --runs",
    "title": "of a figure in a notebook",
    "method": "of a run LoRA, and what --references adds",
}


def options(verb):
    """Yield every name of each option of a verb, as it would be a parameter's."""
    for parameter in main.get_command(None, verb).params:
        if parameter.param_type_name == "option":
            names = {name.lstrip("-").replace("-", "_") for name in parameter.opts}
            if names & {"help", "h"}:
                continue
            yield names


def calls(verb):
    """Return the functions and classes that a verb's options are handed to."""
    if verb not in CALLS:
        return [getattr(subspace, verb)] if verb in subspace.__all__ else []
    paths = [path.split(":") for path in CALLS[verb]]
    return [getattr(import_module(f"subspace.{module}"), name) for module, name in paths]


def parameters(function):
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_has_the_name_of_the_parameter_that_it_is(verb):
    taken = OUTPUT.union(*map(parameters, (*calls(verb), *READING)))
    excepted = EXCEPTIONS.get(verb, {})
    unknown = [names for names in options(verb) if not names & taken]
    assert all(names & excepted.keys() for names in unknown), f"rename, or say why: {unknown}"
    assert excepted.keys() <= set().union(*unknown), "an exception that is none"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_function_has_few_parameters(verb):
    command = import_module(f"subspace.cli.{verb}").command
    assert len(inspect.signature(command.callback).parameters) <= MOST


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in {"demo", "reproduce"}])
def test_a_parameter_of_a_measure_is_an_option(verb):
    given = set().union(*options(verb))
    for function in calls(verb)[:1]:
        keywords = {
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        assert keywords - given <= OWN.keys(), verb
