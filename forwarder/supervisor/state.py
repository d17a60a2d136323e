"""What the parts of a running supervisor share: the plan in force, its rules, workers and interfaces."""

import asyncio
from dataclasses import dataclass, field, replace

from forwarder.engines.xdp.early_drop import EarlyFilter
from forwarder.net.links import LinkView
from forwarder.net.memberships import Memberships
from forwarder.plan.engine import EarlyDrop
from forwarder.plan.model import Plan
from forwarder.rules.book import RuleBook
from forwarder.supervisor.kernel_path import KernelPath
from forwarder.workers.pool import WorkerPool
from forwarder.workers.rule_counts import PastCounts


@dataclass
class ForwarderState:
    """Plan, rules and workers as they are now."""

    plan: Plan
    book: RuleBook
    pool: WorkerPool
    links: LinkView
    memberships: Memberships
    kernel: KernelPath
    early: EarlyFilter = field(default_factory=lambda: EarlyFilter(EarlyDrop.OFF, print))
    past: PastCounts = field(default_factory=PastCounts)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    sockets_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while receive sockets are opened or closed, which takes several requests to workers."""

    def adopt(self, plan: Plan) -> None:
        """Take a plan of the same workers with other sockets."""
        self.plan = plan
        for handle, planned in zip(self.pool.in_plan, plan.workers, strict=True):
            handle.plan = replace(planned, worker_id=handle.plan.worker_id)
