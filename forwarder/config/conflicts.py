"""Cross-checks of options that are valid one by one. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from forwarder.config.options import SELECTION, SupervisorOptions
from forwarder.plan.model import InterfaceGroup
from forwarder.plan.strategy import Grouping, RulePlacement, Strategy, Width
from forwarder.plan.validate import plan_problems
from forwarder.problems import Problem, flag

_ELASTIC = ("min_workers_per_interface", "max_workers_per_interface", "scale_threshold_pps")


def conflicts(options: SupervisorOptions, names: Mapping[str, str], wrong: set[str]) -> list[Problem]:
    """All conflicts, under the names that the user wrote.

    Args:
        names: what the user wrote, by field; otherwise the command line's option.
        wrong: fields whose values are refused already; conflicts that follow from them are not reported.
    """
    given = options.model_fields_set
    strategy = options.chosen_strategy
    problems = []

    def refuse(name: str, allowed: str) -> None:
        value = getattr(options, name)
        text = ",".join(map(_as_written, value)) if isinstance(value, tuple) else str(value)
        problems.append(Problem(names.get(name, flag(name)), text, allowed))

    for names_of_one in options.exclusive:
        first, *others = [name for name in names_of_one if name in given] or [""]
        for name in others:
            refuse(name, f"left out, as {names[first]} is there")
    chosen = [name for name in SELECTION if name in given]
    if options.workers_per_group and "interface_group" not in wrong:
        groups = len(options.interface_group)
        if len(options.workers_per_group) != groups:
            refuse("workers_per_group", f"as many as there are interface groups: {groups}")
    elastic = strategy.width is Width.ELASTIC
    for name in _ELASTIC:
        if name in given and not elastic and "strategy" not in wrong:
            refuse(name, f"nothing: strategy {strategy.name} does not scale (only --auto-scale does)")
    if options.auto_scale and strategy.name != "dynamic":
        refuse("auto_scale", f"strategy dynamic, not {strategy.name}")
    if elastic:
        for name in ("num_workers", "workers_per_group"):
            if name in given and name not in wrong:
                refuse(name, "least and most workers instead, as strategy dynamic scales")
        if any(group.workers for group in options.interface_group):
            allowed = "no number of workers in a group: least and most instead, as strategy dynamic scales"
            refuse("interface_group", allowed)
    if options.complete and not wrong & {"strategy", "grouping", "placement"}:
        for name, allowed in _pointless(options, strategy):
            if name in given and not _overridden(name, names):
                refuse(name, allowed)
    for name, allowed in options.own_problems:
        refuse(name, allowed)
    bound = Counter(name for name, _ in options.interface_node if options.complete)
    if twice := [name for name, count in bound.items() if count > 1]:
        refuse("interface_node", f"each interface once: not {', '.join(twice)}")
    if known := options.input_interfaces:
        if strange := [name for name in bound if name not in known]:
            refuse("interface_node", f"input interfaces: not {', '.join(strange)}")
    elif bound and not wrong & {*SELECTION, "interface_node"}:
        refuse("interface_node", "nothing where interfaces come with the rules: --interfaces names them")
    if len(chosen) < 2 and not wrong & {*SELECTION, "strategy"}:
        problems += _of_plan(options, strategy, names, chosen[0] if chosen else "interfaces")
    return problems


def _pointless(options: SupervisorOptions, strategy: Strategy) -> Iterator[tuple[str, str]]:
    """Options without effect, or with less effect than they ask for."""
    if options.interface_group or strategy.grouping is not Grouping.INTERFACE_GROUPS:
        yield "groups", "left out, unless a strategy makes groups of --interfaces"
    elif 0 < (most := len(options.input_interfaces)) < options.groups:
        yield "groups", f"at most {most}, as many as there are interfaces"
    if strategy.placement is not RulePlacement.HASH:
        yield "hashing", f"left out: rules are placed {strategy.placement.value}, not hashed"


def _overridden(name: str, names: Mapping[str, str]) -> bool:
    """Whether an option is from a file whose strategy or interfaces the command line replaces."""
    chosen = (*SELECTION, "strategy", "grouping", "placement")
    of_command_line = [one for one in chosen if names.get(one) == flag(one)]
    return names.get(name) != flag(name) and bool(of_command_line)


def _as_written(item: object) -> str:
    """An item of a list, as on the command line."""
    if isinstance(item, InterfaceGroup):
        return f"{item.group_id}:{','.join(item.interfaces)}"
    return ":".join(map(str, item)) if isinstance(item, tuple) else str(item)


def _of_plan(
    options: SupervisorOptions, strategy: Strategy, names: Mapping[str, str], selection: str
) -> list[Problem]:
    """What planning would refuse, under the options' names."""
    problems = plan_problems(strategy, options.input_interfaces, options.sizing)
    option_of = {"interfaces": selection, "interface_group": selection}
    option_of["max_workers"] = "max_workers_per_interface"

    def written(field: str) -> str:
        name = option_of.get(field, field)
        return names.get(name, flag(name))

    distinct = dict.fromkeys(problems)  # a plan may say the same of several groups
    return [replace(problem, field=written(problem.field)) for problem in distinct]
