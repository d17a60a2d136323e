"""``mcrd supervisor``: the supervisor with its control socket and signals, from start to final statistics."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from forwarder.abi import mempolicy
from forwarder.config.options import SupervisorOptions, resolve
from forwarder.control import server as control
from forwarder.control import statistics as stats
from forwarder.plan.host import Host
from forwarder.plan.model import Plan, PlanError
from forwarder.problems import Problem
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.reconfigure import Reconfiguration, spec
from forwarder.supervisor.rule_store import RuleStore
from forwarder.supervisor.supervisor import StoppedError, Supervisor


async def run(
    options: SupervisorOptions, host: Callable[[], Host], rules: Sequence[ForwardingRule]
) -> dict[str, Any]:
    """Run until a signal or a shutdown request; return the final statistics.

    Raises PlanError: the plan cannot be run; OSError: a resource is missing, and everything is cleaned up.
    """
    store = RuleStore(options.state_file) if options.state_file else None
    if store:
        store.claim()
        if (kept := store.read()) is not None:
            print(f"resumed with {len(kept):,} rules of {options.state_file}", file=sys.stderr)
            rules = kept
    plan = resolve(options, host(), rules)
    inputs = {rule.rule_id: f"{rule.input_interface!r} of rule {rule.rule_id!r}" for rule in rules}
    allowed = f"an interface that the workers serve: {', '.join(plan.interfaces)}"
    if plan.unplaced_rule_ids:
        raise PlanError(
            Problem("input_interface", inputs[rule_id], allowed) for rule_id in plan.unplaced_rule_ids
        )
    for warning in (*plan.warnings, *_refused_memory(plan)):
        print(f"warning: {warning}", file=sys.stderr)
    supervisor = Supervisor(
        spec(options, host, plan),
        rules,
        host=host,
        store=store,
        skip_host_stack=options.skip_host_stack,
        engine=options.engine,
        early_drop=options.early_drop,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.state.stopping.set)
    path = options.control_socket_path
    server = await control.serve(supervisor, path, Reconfiguration(supervisor, options, host))
    try:
        with suppress(StoppedError):
            await supervisor.start()
            await supervisor.state.stopping.wait()
            await supervisor.stop()
        return stats.collect(supervisor)
    finally:
        server.close()
        path.unlink(missing_ok=True)
        supervisor.close()


def _refused_memory(plan: Plan) -> Iterator[str]:
    """A warning for each memory node that memory cannot be bound to."""
    for node in sorted({worker.memory_node for worker in plan.workers if worker.memory_node is not None}):
        if reason := mempolicy.refusal(node):
            yield f"Memory node {node} takes no wishes ({reason}): its workers' memory is wherever it falls."
