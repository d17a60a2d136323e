"""The options of ``mcrd supervisor``, each declared once with its help and what it may be.

The command line (:mod:`forwarder.config.arguments`) is made from this model. :mod:`forwarder.config.files`
fills it from the command line, a TOML file, or both. Cross-checks are in :mod:`forwarder.config.conflicts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from forwarder.plan.engine import EarlyDrop, Engine, engine_warnings, no_early_drop
from forwarder.plan.host import Host
from forwarder.plan.model import InterfaceGroup, Plan, PlanError, Sizing
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS, Grouping, Hashing, RulePlacement, Steering, Strategy, Width
from forwarder.problems import Problem, flag
from forwarder.rules.model import ForwardingRule, InterfaceName, interface_name

DEFAULT_CONTROL_SOCKET = Path("/run/mcrd.sock")
MOST_WORKERS = 4096

SELECTION = ("interface", "interfaces", "interface_group", "interface_count")


def option(default: Any, metavar: str, allowed: str, help_text: str) -> Any:
    """A field of an options model: ``metavar`` and ``help_text`` for ``--help``, ``allowed`` for errors."""
    extra: dict[str, JsonValue] = {"metavar": metavar, "allowed": allowed}
    return Field(default=default, description=help_text, json_schema_extra=extra)


def switch(help_text: str) -> Any:
    """A field of an options model that is off unless it is given."""
    return option(False, "", "true or false", help_text)


def _choice(values: type[StrEnum], what: str) -> Any:
    """A field for an axis of the strategy: ``what`` it decides, for ``--help``."""
    names = ", ".join(values)
    return option(None, "HOW", f"one of {names}", f"{what}: {names}. Default: set by the strategy.")


def _whole(value: object) -> object:
    """Refuse booleans and floats; text with digits passes, because command lines have nothing else."""
    if isinstance(value, bool | float):
        raise ValueError("an integer")
    return value


def _listed(value: object) -> object:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _power_of_two(value: object) -> object:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if not isinstance(number, int) or isinstance(number, bool) or number.bit_count() != 1:
        raise ValueError("a power of two")
    return number


def _group(value: object) -> object:
    """A group from ``0:eth0,eth1``, or a table with ``id``, ``interfaces`` and optionally ``workers``."""
    if isinstance(value, InterfaceGroup):
        return value
    workers: object = None
    if isinstance(value, str):
        number, colon, names = value.partition(":")
        group_id: object = int(number) if colon and number.isascii() and number.isdigit() else None
        listed: object = [name.strip() for name in names.split(",")]
    elif isinstance(value, Mapping) and value.keys() <= {"id", "interfaces", "workers"}:
        group_id, listed, workers = value.get("id"), _listed(value.get("interfaces")), value.get("workers")
    else:
        raise ValueError("a group")
    if type(group_id) is not int or not 0 <= group_id <= 65535:
        raise ValueError("a group id")
    if not isinstance(listed, list) or not listed:
        raise ValueError("interfaces")
    if workers is not None and (type(workers) is not int or not 1 <= workers <= MOST_WORKERS):
        raise ValueError("workers")
    return InterfaceGroup(group_id, tuple(interface_name(name) for name in listed), workers)


def _bound(value: object) -> object:
    """An interface's memory node from ``eth0:1``, or from a table with ``interface`` and ``node``."""
    if isinstance(value, str):
        name, _, text = value.rpartition(":")
        found: tuple[object, object] = (name, int(text) if text.isascii() and text.isdigit() else None)
    elif isinstance(value, Mapping) and value.keys() == {"interface", "node"}:
        found = (value["interface"], value["node"])
    else:
        raise ValueError("an interface and a node")
    if type(found[1]) is not int or found[1] < 0:
        raise ValueError("a node")
    return (interface_name(found[0]), found[1])


_COUNT = f"an integer from 1 to {MOST_WORKERS:,}"
_NAMES = ", ".join(PRESETS)
_IF = "interface names of 1 to 15 bytes, without '/', ':' or white space"

Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_WORKERS)]
Whole = Annotated[int, BeforeValidator(_whole)]


class SupervisorOptions(BaseModel):
    """The options of ``mcrd supervisor``, each valid by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (
        SELECTION,
        ("workers_per_group", "num_workers"),
        ("interface_node", "numa_straddle"),
    )
    """Sets of options of which only one may be given."""

    strategy: Literal[tuple(PRESETS)] | None = option(  # type: ignore[valid-type]
        None, "NAME", f"one of {_NAMES}", f"One of {_NAMES}. Default: chosen from the interface options."
    )
    interface: InterfaceName | None = option(None, "IF", _IF, "The only input interface.")
    interfaces: Annotated[tuple[InterfaceName, ...], BeforeValidator(_listed)] = option(
        (), "IF,IF,…", f"a list of {_IF}", "Several input interfaces, assigned to workers by the strategy."
    )
    interface_group: tuple[Annotated[InterfaceGroup, BeforeValidator(_group)], ...] = option(
        (),
        "ID:IF[,IF…]",
        f"ID:IF[,IF…], ID from 0 to 65535, {_IF}",
        "A group of input interfaces that have their own workers. Repeat for each group.",
    )
    workers_per_group: tuple[Count, ...] = option(
        (), "N", _COUNT, "Workers of an interface group. Repeat for each --interface-group, in order."
    )
    num_workers: Count | None = option(
        None, "N", _COUNT, "Workers in each worker group. Default: set by the strategy."
    )
    groups: Count = option(
        4, "K", _COUNT, "Number of groups that a hybrid strategy divides --interfaces into."
    )
    grouping: Grouping | None = _choice(Grouping, "Which interfaces share workers")
    placement: RulePlacement | None = _choice(RulePlacement, "Which rules each worker holds")
    width: Literal["per-cpu", "share"] | None = option(
        None,
        "WIDTH",
        "per-cpu or share",
        "Workers in each group: per-cpu (one per CPU) or share (the CPUs divided among the groups). "
        "Default: set by the strategy.",
    )
    steering: Steering | None = _choice(Steering, "How a datagram finds its worker")
    hashing: Hashing | None = option(
        None,
        "HOW",
        f"one of {', '.join(Hashing)}",
        "How rules are hashed to workers: rendezvous (few rules move when the number of workers changes) or "
        "modulo. Default: rendezvous.",
    )
    auto_scale: bool = switch("Adjust the number of workers to each interface's load (dynamic).")
    min_workers_per_interface: Count = option(1, "N", _COUNT, "With --auto-scale: minimum number of workers.")
    max_workers_per_interface: Count | None = option(
        None,
        "N",
        _COUNT,
        "With --auto-scale: maximum number of workers. Default: one per CPU, or the minimum if larger.",
    )
    scale_threshold_pps: Annotated[Whole, Field(ge=1)] = option(
        100_000,
        "DPS",
        "an integer from 1",
        "With --auto-scale: load of a worker, in datagrams/s, above which one more is added.",
    )
    interface_node: tuple[Annotated[tuple[str, int], BeforeValidator(_bound)], ...] = option(
        (),
        "IF:NODE",
        f"IF:NODE, NODE an integer from 0, {_IF}",
        "NUMA node of an interface, overriding what the kernel reports. Repeat for each interface.",
    )
    numa_straddle: bool = switch(
        "Let a group's workers use the CPUs of every memory node. By default they stay on the node of their "
        "interfaces, and share its CPUs if there are too few.",
    )
    control_socket_path: Path = option(
        DEFAULT_CONTROL_SOCKET, "PATH", "a path", "Path of the control socket."
    )
    engine: Engine = option(
        Engine.PACKET,
        "NAME",
        f"one of {', '.join(Engine)}",
        "How packets are moved: packet (AF_PACKET and io_uring), or xdp (in the kernel; rules and interfaces "
        "that XDP cannot serve are served by packet).",
    )
    rules: Path | tuple[ForwardingRule, ...] | None = option(
        None, "FILE", "a JSON or TOML file of rules", "Rules to start with, as JSON or TOML."
    )
    state_file: Path | None = option(
        None,
        "FILE",
        "a path in a directory that can be written",
        "Save the rules in force in FILE. If FILE exists at start, its rules are used instead of --rules.",
    )
    ring_frames: Annotated[int, BeforeValidator(_power_of_two), Field(ge=64, le=1 << 18)] | None = option(
        None,
        "N",
        "a power of two from 64 to 262,144",
        "Frames in each receive ring. Default: depends on the number of sockets.",
    )
    busy_poll_us: Annotated[Whole, Field(ge=0, le=1_000_000)] = option(
        0, "US", "an integer from 0 to 1,000,000", "Microseconds that a worker polls before it sleeps."
    )
    realtime_priority: Annotated[Whole, Field(ge=0, le=99)] = option(
        0,
        "N",
        "an integer from 0 to 99",
        "Real-time priority (SCHED_RR) of workers, for low latency; 0: none.",
    )
    zero_checksum: Literal["fill", "keep"] = option(
        "fill",
        "HOW",
        "fill or keep",
        "Copies of datagrams without a UDP checksum (zero): fill (they get one, and leave together like "
        "others) or keep (they have none either, and each leaves by itself).",
    )
    no_coalesce: bool = switch(
        "Send every copy by itself. By default, datagrams of a flow that are queued together leave as one "
        "frame (GSO)."
    )
    skip_host_stack: bool = switch(
        "Drop multicast datagrams on input interfaces after workers have received them. Faster, but other "
        "programs on this machine receive none from these interfaces.",
    )
    early_drop: EarlyDrop = option(
        EarlyDrop.AUTO,
        "WHEN",
        f"one of {', '.join(EarlyDrop)}",
        "Drop multicast in the driver (XDP) while the ring of the only worker that reads an interface is "
        "nearly full: on, off, or auto (on network cards without other interfaces on top). Other programs on "
        "this machine miss these datagrams, too.",
    )

    @property
    def complete(self) -> bool:
        """Whether these options determine the workers; not if a proposal is still to be made."""
        return True

    @property
    def own_problems(self) -> Sequence[tuple[str, str]]:
        """Further conflicts of a subclass: the option, and what is allowed."""
        return ()

    @property
    def input_interfaces(self) -> tuple[str, ...]:
        if self.interface is not None:
            return (self.interface,)
        return self.interfaces or tuple(name for group in self.interface_group for name in group.interfaces)

    @property
    def chosen_strategy(self) -> Strategy:
        """The preset that is named or implied, with the axes that were given."""
        if self.strategy is not None:
            name = self.strategy
        elif self.auto_scale:
            name = "dynamic"
        elif self.interface_group:
            several = any(len(group.interfaces) > 1 for group in self.interface_group)
            name = "hybrid" if several else "fanout-per-interface"
        elif self.interface is not None:
            name = "fanout"
        else:
            name = "pool"
        axes = {axis: getattr(self, axis) for axis in ("grouping", "placement", "steering", "hashing")}
        return PRESETS[name].customised(width=Width(self.width) if self.width else None, **axes)

    @property
    def sizing(self) -> Sizing:
        groups = self.interface_group
        if groups and len(self.workers_per_group) == len(groups):
            pairs = zip(groups, self.workers_per_group, strict=True)
            groups = tuple(replace(group, workers=workers) for group, workers in pairs)
        return Sizing(
            groups=groups,
            group_count=self.groups,
            workers=self.num_workers,
            min_workers=self.min_workers_per_interface,
            max_workers=self.max_workers_per_interface,
            ring_frames=self.ring_frames,
            follow_rules=not self.input_interfaces,
            interface_nodes=self.interface_node,
            straddle=self.numa_straddle,
        )


def resolve(
    options: SupervisorOptions,
    host: Host,
    rules: Sequence[ForwardingRule],
    sizes: Mapping[int, int] = MappingProxyType({}),
    homes: Mapping[int, int] = MappingProxyType({}),
) -> Plan:
    """The plan that ``options`` ask for; raises :class:`~forwarder.plan.model.PlanError`.

    ``sizes``, ``homes``: present workers of elastic groups, and memory nodes of groups, by group.
    """
    sizing = replace(options.sizing, sizes=tuple(sizes.items()), homes=tuple(homes.items()))
    made = plan(host, options.input_interfaces, rules, options.chosen_strategy, sizing)
    if options.early_drop is EarlyDrop.ON and (without := no_early_drop(made, options.engine)):
        name, why = next(iter(without.items()))
        raise PlanError([Problem(flag("early_drop"), "on", f"auto or off: on {name}, {why}")])
    return replace(made, warnings=(*made.warnings, *engine_warnings(options.engine, rules)))
