"""The words by which the lab starts ``mcrd supervisor``, and what is wrong with those of a scenario. Pure."""

import shlex
from collections.abc import Iterator, Sequence

from forwarder.config.arguments import parse
from forwarder.config.options import SupervisorOptions
from forwarder.problems import Problem, ProblemsError
from lab.results import Setting
from lab.scenario.layout import is_elastic

TAKEN = {
    **dict.fromkeys(("--control-socket-path", "--rules", "--json"), "left out: the lab sets it"),
    **dict.fromkeys(("--state-file", "--config"), "left out: the scenario says all"),
    **dict.fromkeys(
        ("--interface", "--interfaces", "--interface-group", "--workers-per-group"),
        "left out: inputs and groups say it",
    ),
    **dict.fromkeys(("--num-workers", "--max-workers-per-interface"), "left out: workers says it"),
    **dict.fromkeys(("--strategy", "--auto-scale", "--grouping", "--width"), "left out: strategy says it"),
    **{f"--{name}": f"left out: {name} says it" for name in ("groups", "placement", "steering", "hashing")},
}
"""Options that a scenario says otherwise, or cannot say: a record's setting is what was measured."""


def fixed_workers(setting: Setting) -> int | None:
    """Workers of each group; ``None`` where their number follows the load."""
    return None if is_elastic(setting) else setting.workers or 1


def strategy_options(setting: Setting) -> list[str]:
    """What a setting says of the strategy besides its name.

    The workers of an elastic strategy are the most that a group may have.
    """
    values = {
        "--max-workers-per-interface": setting.workers if is_elastic(setting) else None,
        "--groups": setting.groups,
        "--placement": setting.placement,
        "--steering": setting.steering,
        "--hashing": setting.hashing,
    }
    return [text for flag, value in values.items() if value is not None for text in (flag, str(value))]


def layout_words(
    interfaces: Sequence[str], strategy: str | None, workers: int | None, options: Sequence[str]
) -> list[str]:
    """Which workers there are to be, and where; ``None`` and no interfaces leave their options out."""
    flag = "--interface" if len(interfaces) == 1 else "--interfaces"
    return [
        *(("--strategy", strategy) if strategy else ()),
        *((flag, ",".join(interfaces)) if interfaces else ()),
        *(("--num-workers", str(workers)) if workers else ()),
        *options,
    ]


def option_problems(setting: Setting, interfaces: Sequence[str]) -> Iterator[Problem]:
    """What ``mcrd supervisor`` would refuse of the options that a scenario adds."""
    taken = [name for word in setting.options if (name := word.partition("=")[0]) in TAKEN]
    for name in taken:
        yield Problem("options", name, TAKEN[name])
    if taken:
        return
    options = [*strategy_options(setting), *setting.options]
    words = layout_words(interfaces, setting.strategy, fixed_workers(setting), options)
    try:
        parse(SupervisorOptions, words)
    except ProblemsError as error:
        for problem in error.problems:
            untold = problem.field == "options"  # the words are none that mcrd takes
            value = shlex.join(setting.options) if untold else f"{problem.field} {problem.value}"
            yield Problem("options", value, problem.allowed.replace("--help", "`mcrd supervisor --help`"))
