"""What a bench is built from, and on which CPUs it works."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lab.load.flows import Request, receiver_job, sender_job, standing
from lab.load.jobs import ReceiverJob, SenderJob
from lab.load.topology import Topology
from lab.results import NONE, Setting

WARM_UP_DPS, WARM_UP_S = 1000, 0.05


@dataclass(frozen=True)
class BenchPlan:
    """What a bench is built from; equal plans share one bench.

    ``setting``: each trial has its own payload, flows, bursts and skew; see :func:`lab.load.flows.standing`.
    """

    subject: str
    setting: Setting
    mtu: int
    sender_cpu: int
    worker_cpus: tuple[int, ...]

    @property
    def topology(self) -> Topology:
        setting = self.setting
        direct = self.subject == NONE
        return Topology(
            inputs=setting.inputs,
            outputs=setting.inputs if direct else setting.outputs,
            mtu=self.mtu,
            rps=setting.rps and not direct,
            egress=setting.egress,
            direct=direct,
            rps_cpus=self.worker_cpus,
            napi=setting.generator == "xdp",
        )

    @property
    def copies(self) -> int:
        """Copies due for each datagram."""
        return 1 if self.subject == NONE else self.setting.outputs

    @property
    def spinning_cpu(self) -> int | None:
        """The CPU that only the generator's busy loop works on; ``None`` where a worker shares it.

        Such a worker's time is user time, so none may be left out.
        """
        return None if self.sender_cpu in self.worker_cpus else self.sender_cpu

    @property
    def warm_up(self) -> Request:
        """The first transfer of a bench: it loads compiled code and touches memory, and is not recorded."""
        return Request("warm-up", "", "", standing(self.setting), "fixed", WARM_UP_DPS, WARM_UP_S)

    def sender_job(self, request: Request) -> SenderJob:
        return sender_job(request, self.sender_cpu)

    def receiver_job(self, request: Request) -> ReceiverJob:
        topology = self.topology
        outputs = [link.receiver.interface for link in topology.output_links]
        return receiver_job(request, outputs, self.mtu, direct=topology.direct)


def place(workers: int, *, apart: bool = False) -> tuple[int, tuple[int, ...]]:
    """CPUs of the sender and of the workers: the sender takes the first, workers the others when they fit.

    As many workers as CPUs, or more, take them all. The sender then shares its CPU, which the report says.
    ``apart``: the sender never shares where there is another CPU, but workers that do not fit share theirs.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    if workers < len(cpus) or (apart and len(cpus) > 1):
        return cpus[0], cpus[1 : 1 + workers]
    return cpus[0], cpus
