"""A plan: the exact workers, sockets, fanout groups, CPUs, rings and rules of a strategy on a host.

* *group*: the workers that share a set of interfaces; each of them opens every interface of the group.
* *partition*: a rule table. Workers of one partition hold the same rules.
* *slot*: a worker's place among the sockets of an interface. In a fanout group it is the order of joining,
  which is what the kernel's choice refers to: the worker of slot i must be the i-th to join.

Nothing here decides anything; :func:`forwarder.plan.planner` does.
"""

from dataclasses import dataclass
from typing import Literal

from forwarder.plan.memory import DOCUMENT, Assumptions, Estimate
from forwarder.plan.resources import RING_BUDGET_BYTES, RingPlan
from forwarder.plan.strategy import Strategy
from forwarder.problems import ProblemsError

FanoutMode = Literal["cpu", "hash", "lb", "cbpf", "flow", "cpu-map"]
"""``cbpf``: a program computes the owner of the rule; ``flow``: one computes the flow's member; ``cpu-map``:
one looks up the receiving CPU, where its number modulo the members (``cpu``) would pass members over."""
MAX_FANOUT_MEMBERS = 65_535
"""The largest 16-bit number; the kernel allows one more (PACKET_FANOUT_MAX, ``net/packet/internal.h``)."""
MAX_INTERFACES = 256
"""Receive sockets, and so interfaces, of one worker."""
MAX_WORKERS = 65_536
"""Limit of a plan: 16 for each CPU of the largest machine that can be assumed."""
RINGS_FORESEEN = 32
"""Number of interfaces that rings are sized for when interfaces come with the rules."""


class PlanError(ProblemsError):
    """A strategy that cannot be applied to these interfaces in these numbers."""


@dataclass(frozen=True)
class InterfaceGroup:
    """A worker group given by ``--interface-group``."""

    group_id: int
    interfaces: tuple[str, ...]
    workers: int | None = None


@dataclass(frozen=True)
class Sizing:
    """Numbers for a strategy; ``None`` leaves the choice to the strategy."""

    groups: tuple[InterfaceGroup, ...] = ()
    """The exact groups, instead of those that the strategy would make."""
    group_count: int = 4
    """Number of groups to divide the interfaces into, for ``interface-groups`` without ``groups``."""
    workers: int | None = None
    """Per group."""
    min_workers: int = 1
    max_workers: int | None = None
    """Per elastic group; default: one per CPU, but at least ``min_workers``."""
    ring_frames: int | None = None
    ring_budget_bytes: int = RING_BUDGET_BYTES
    """Upper bound on all receive rings together, unless ``ring_frames`` is given."""
    assumptions: Assumptions = DOCUMENT
    follow_rules: bool = False
    """No interfaces are named: the inputs are the interfaces that have rules."""
    interface_nodes: tuple[tuple[str, int], ...] = ()
    """Memory nodes of interfaces, overriding the machine's."""
    straddle: bool = False
    """Whether a group's workers may be on several memory nodes."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Present workers of elastic groups, by group id; otherwise ``min_workers``."""
    homes: tuple[tuple[int, int], ...] = ()
    """Present memory nodes of groups, by group id."""


@dataclass(frozen=True)
class FanoutPlan:
    """Membership of one socket in the fanout group of its interface."""

    group_key: int
    """Tells the plan's fanout groups apart; the kernel assigns the id itself (UNIQUEID)."""
    mode: FanoutMode
    slot: int
    members: int
    max_members: int
    """``members``, or the maximum of an elastic group."""
    cpus: tuple[int, ...] = ()
    """With ``cpu-map``: the CPUs whose frames go to slots 0, 1, … in turn."""


@dataclass(frozen=True)
class FilterPlan:
    """The socket keeps only datagrams whose rule hashes to ``slot`` of ``members``."""

    slot: int
    members: int


@dataclass(frozen=True)
class SocketPlan:
    interface: str
    fanout: FanoutPlan | None
    filter: FilterPlan | None
    ring: RingPlan


@dataclass(frozen=True)
class WorkerPlan:
    worker_id: int
    group: int
    cpu: int
    node: int
    partition: int
    sockets: tuple[SocketPlan, ...]
    memory_node: int | None = None
    """The node for its rings, tables and counters: ``node``, or the nearest that has memory; ``None`` if the
    kernel has no nodes."""

    @property
    def ring_bytes(self) -> int:
        return sum(socket.ring.ring_bytes for socket in self.sockets)


@dataclass(frozen=True)
class GroupPlan:
    group_id: int
    interfaces: tuple[str, ...]
    workers: int
    max_workers: int
    """Equals ``workers`` if the group is not elastic."""
    rules: int
    """Rules whose input is one of the interfaces."""

    min_workers: int | None = None
    """Minimum of an elastic group; ``None`` if the group is not elastic."""
    node: int | None = None
    """Memory node of all its workers; ``None`` if they may be on several."""

    @property
    def elastic(self) -> bool:
        return self.min_workers is not None


@dataclass(frozen=True)
class Partition:
    partition_id: int
    rule_ids: tuple[str, ...]


@dataclass(frozen=True)
class Movement:
    """How many rules of a hashed group would change worker if the group had one worker more or less."""

    group_id: int
    rules: int
    members: int
    moved_rendezvous: int
    moved_modulo: int
    """Moved by one worker more."""
    moved_rendezvous_less: int | None
    moved_modulo_less: int | None
    """Moved by one worker less; ``None`` for a group of one."""
    imbalance: float
    """Most rules of a worker over the mean, as planned."""


@dataclass(frozen=True)
class Figures:
    """Estimates of a plan's memory, see :mod:`forwarder.plan.memory`."""

    modelled: Estimate
    projected: Estimate
    modelled_at_most: Estimate | None
    """``modelled`` with every elastic group at its largest; ``None`` if no group is elastic."""


@dataclass(frozen=True)
class NodePlan:
    """A memory node and what it has."""

    node: int
    cpus: int
    """CPUs for workers."""
    memory_bytes: int | None
    interfaces: tuple[str, ...]
    """Interfaces that the plan serves."""


@dataclass(frozen=True)
class Plan:
    strategy: Strategy
    cpus: int
    rules: int
    groups: tuple[GroupPlan, ...]
    workers: tuple[WorkerPlan, ...]
    partitions: tuple[Partition, ...]
    unplaced_rule_ids: tuple[str, ...]
    """Rules whose input interface is in no group, so that no worker matches them."""
    movements: tuple[Movement, ...]
    figures: Figures
    warnings: tuple[str, ...]
    follows_rules: bool = False
    """The input interfaces are those that have rules."""
    nodes: tuple[NodePlan, ...] = ()

    @property
    def interfaces(self) -> tuple[str, ...]:
        return tuple(name for group in self.groups for name in group.interfaces)
