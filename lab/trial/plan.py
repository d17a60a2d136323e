"""What a bench is built from, and on which CPUs it works."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lab.load.flows import Request, receiver_job, sender_job, standing
from lab.load.jobs import ReceiverJob, SenderJob
from lab.load.topology import Topology
from lab.results import NONE, Role, Setting

WARM_UP_DPS, WARM_UP_S = 1000, 0.05


@dataclass(frozen=True)
class Cpus:
    """Who works where: everything of a subject on ``forwarder``, generator and receivers on ``bench``.

    Both are the same on a machine with one CPU.
    """

    bench: tuple[int, ...]
    forwarder: tuple[int, ...]

    @property
    def apart(self) -> bool:
        return not set(self.bench) & set(self.forwarder)

    @property
    def shared(self) -> Cpus:
        """All for both."""
        every = tuple(sorted({*self.bench, *self.forwarder}))
        return Cpus(every, every)

    @property
    def one(self) -> Cpus:
        """A single one for the forwarder."""
        return Cpus(self.bench, self.forwarder[-1:])

    @property
    def each(self) -> tuple[Cpus, ...]:
        """One for everything, each CPU in turn."""
        return tuple(Cpus((cpu,), (cpu,)) for cpu in self.shared.bench)

    def role(self, cpu: int) -> Role:
        if not self.apart:
            return "both"
        return "forwarder" if cpu in self.forwarder else "bench"

    @property
    def sender(self) -> int:
        return self.bench[0]

    @property
    def receivers(self) -> tuple[int, ...]:
        """Not the sender's, where there is another."""
        return self.bench[1:] or self.bench


def divide(available: Collection[int], forwarder: Collection[int] | None = None) -> Cpus:
    """Divide CPUs: ``forwarder`` as asked for, else the upper half, one of three.

    Raises:
        ValueError: a CPU that is not available, or none left for the bench.
    """
    cpus = sorted(available)
    if forwarder is None:
        chosen = cpus[-(len(cpus) // 2) :] if len(cpus) > 1 else cpus
        return Cpus(tuple(cpus[: -len(chosen)] or cpus), tuple(chosen))
    bench = [cpu for cpu in cpus if cpu not in forwarder]
    allowed = f"CPUs of {', '.join(map(str, cpus))}, at least one and not all"
    if len(cpus) == 1:
        allowed = f"none, as the one CPU here, {cpus[0]}, is shared"
    if absent := sorted(set(forwarder) - set(cpus)):
        raise ValueError(f"there is no CPU {', '.join(map(str, absent))} here; allowed: {allowed}")
    if not forwarder:
        raise ValueError(f"no CPU is named; allowed: {allowed}")
    if not bench:
        raise ValueError(f"no CPU is left for generator and receivers; allowed: {allowed}")
    return Cpus(tuple(bench), tuple(sorted(set(forwarder))))


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is built from; equal plans share one bench.

    ``setting``: each trial has its own payload, flows, bursts and skew; see :func:`lab.load.flows.standing`.
    ``workers``: those of mcrd in this setting, or those that it would have where another subject works.
    """

    subject: str
    setting: Setting
    mtu: int
    cpus: Cpus
    workers: int = 1

    @property
    def worker_cpus(self) -> tuple[int, ...]:
        return self.cpus.forwarder[: self.workers]

    @property
    def topology(self) -> Topology:
        setting, forwarder = self.setting, self.cpus.forwarder
        direct = self.subject == NONE
        threads = setting.receive in ("first", "in turn") and not direct
        # Threads are dealt from the last CPU on, workers from the first. Where there are CPUs without a
        # thread, or several workers of each interface, flows are spread over the workers' behind them.
        several = setting.inputs < len(forwarder) or (len(forwarder) > 1 and (setting.workers or 1) > 1)
        spread = setting.receive == "softirq" or (threads and several)
        whole = setting.egress == "offload"  # GSO frames cross a veth without NAPI only
        return Topology(
            inputs=setting.inputs,
            outputs=setting.inputs if direct else setting.outputs,
            mtu=self.mtu,
            egress=setting.egress,
            direct=direct,
            rps_cpus=self.worker_cpus if spread and not direct else (),
            thread_cpus=forwarder[::-1] if threads else (),
            threads_first=setting.receive == "first",
            capture_cpus=() if whole else self.cpus.receivers,
            napi=setting.generator == "xdp",
        )

    @property
    def copies(self) -> int:
        """Copies due for each datagram."""
        return 1 if self.subject == NONE else self.setting.outputs

    @property
    def warm_up(self) -> Request:
        """The first transfer of a bench: it loads compiled code and touches memory, and is not recorded."""
        return Request("warm-up", "", "", standing(self.setting), "fixed", WARM_UP_DPS, WARM_UP_S)

    def sender_job(self, request: Request) -> SenderJob:
        return sender_job(request, self.cpus.sender)

    def receiver_job(self, request: Request) -> ReceiverJob:
        topology = self.topology
        outputs = [link.receiver.interface for link in topology.output_links]
        return receiver_job(request, outputs, self.mtu, direct=topology.direct)
