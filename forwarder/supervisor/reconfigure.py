"""A running forwarder made what a configuration says: what would change, and the change itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from forwarder.config.files import OptionsError, read_options
from forwarder.config.options import SupervisorOptions, resolve
from forwarder.plan.host import Host
from forwarder.plan.model import Plan
from forwarder.problems import Problem, ProblemsError, shown
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor import changes
from forwarder.supervisor.changes import Changes, State
from forwarder.supervisor.supervisor import Supervisor
from forwarder.supervisor.switchover import exchange
from forwarder.workers import limits
from forwarder.workers.pool import tables_for
from forwarder.workers.spec import Setup

_AT_START: Final = ("control_socket_path", "skip_host_stack", "state_file")
"""Options that a running supervisor does not change."""
_WORKERS: Final = ("strategy", "auto_scale", "interface", "interfaces", "interface_group")
"""One of them at least is to be in a configuration that is applied, if what runs was started with one."""
_OF_WORKERS: Final = ("scale_threshold_pps", "busy_poll_us", "realtime_priority")


class Reconfiguration:
    """Makes one supervisor run what it is asked to.

    Args:
        options: those that it runs now.
        host: the machine as it is when asked.
    """

    def __init__(self, supervisor: Supervisor, options: SupervisorOptions, host: Callable[[], Host]) -> None:
        self._supervisor = supervisor
        self._options = options
        self._host = host
        self._busy = False

    async def apply(self, config: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Carry out the changes to a configuration, or only say what they are.

        Args:
            config: as in a file for ``--config``, ``rules`` being a list; without them, the rules stay.

        Raises:
            ProblemsError: all that is wrong with it, or why it could not be; everything is as it was.
        """
        if self._busy:
            raise ProblemsError(
                [Problem("apply", "another one is at work", "one at a time: ask again when it has finished")]
            )
        self._busy = True
        try:
            return await self._apply(config, dry_run)
        finally:
            self._busy = False

    async def _apply(self, config: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
        supervisor, began_ns = self._supervisor, time.monotonic_ns()
        await supervisor.started.wait()
        options, rules = read_options(SupervisorOptions, config)
        if not any(name in config for name in _WORKERS) and self._options.model_fields_set & {*_WORKERS}:
            # Or a file of rules alone, or the first lines of one, would make a pool of what runs.
            allowed = f"what says which workers there shall be: {', '.join(_WORKERS)}"
            raise OptionsError([Problem("config", ", ".join(config) or "nothing", allowed)])
        problems = [
            Problem(name, _shown(getattr(options, name)), f"{_shown(present)}, or a new start")
            for name in _AT_START
            if name in config and getattr(options, name) != (present := getattr(self._options, name))
        ]
        if problems:
            raise OptionsError(problems)
        async with supervisor.rule_changes.closed(), AsyncExitStack() as still:
            await still.enter_async_context(supervisor.interfaces.changing)
            wanted_rules = rules if "rules" in config else list(supervisor.book)
            plan = resolve(options, self._host(), wanted_rules)
            present = supervisor.crew.setup.replan(wanted_rules, {})
            now = State(
                changes.shape(present, _settings(self._options)),
                {rule.rule_id: rule for rule in supervisor.book},
            )
            wanted = State(
                changes.shape(plan, _settings(options)), {rule.rule_id: rule for rule in wanted_rules}
            )
            found = changes.changes(now, wanted)
            if not found.relieve and supervisor.crew.tables.problems(found.add):
                # There may be room for them in new workers, without what is to go.
                found = replace(found, relieve=True)
            stay = [rule for rule in wanted_rules if now.rules.get(rule.rule_id) == rule]
            moved = changes.moved_rules(present, plan, stay) if found.shape else 0
            answer = {**changes.as_dict(found, now, moved), "warnings": plan.warnings, "applied": not dry_run}
            if found.relieve:
                plan = resolve(options, self._host(), wanted_rules, self._sizes(plan))
                tables = tables_for(plan)
                if wrong := tables.problems(wanted_rules):
                    raise ProblemsError(wrong)
                try:
                    limits.check_memory(plan.workers, supervisor.view)
                except OSError as error:
                    raise self._refused(error) from error
            if dry_run:
                return {**answer, "took_ns": time.monotonic_ns() - began_ns}
            if found.relieve:
                try:
                    await exchange(supervisor, setup(options, self._host, plan), tables, wanted_rules)
                except OSError as error:
                    raise self._refused(error) from error
            else:
                await still.aclose()  # interfaces may come with rules
                await self._change_rules(found, wanted_rules)
                supervisor.crew.setup = setup(options, self._host, plan)
            self._options = options.model_copy(
                update={name: getattr(self._options, name) for name in _AT_START}
            )
        return {**answer, "took_ns": time.monotonic_ns() - began_ns}

    def _refused(self, error: OSError) -> ProblemsError:
        limit = (
            "a running forwarder" if self._supervisor.stopping.is_set() else "what this machine has room for"
        )
        allowed = f"{limit}; everything is as it was: {error.strerror or error}"
        return ProblemsError([Problem("apply", "a plan of other workers", allowed)])

    async def _change_rules(self, found: Changes, wanted_rules: Sequence[ForwardingRule]) -> None:
        """Rules come before others go, so that what is wrong with them is known before anything changed.

        So is whether the state file takes them: they are written beside it first, all of them.
        """
        supervisor = self._supervisor
        if not found:
            return
        if supervisor.journal:
            try:
                supervisor.journal.prepare(wanted_rules)
            except OSError as error:
                allowed = f"a state file that can be written; everything is as it was: {error}"
                raise ProblemsError([Problem("apply", "other rules", allowed)]) from error
        if found.add and (problems := await supervisor.add_rules_alone(found.add, noted=False)):
            raise ProblemsError(problems)
        for rule_id in found.remove:
            await supervisor.remove_rule_alone(rule_id, noted=False)
        supervisor.keep_rules()

    def _sizes(self, plan: Plan) -> dict[int, int]:
        """Workers of elastic groups to begin with: as many as their interfaces have now, if allowed."""
        groups, sizes = self._supervisor.scaler.groups, self._supervisor.scaler.sizes()
        present = {groups[number].interfaces: size for number, size in sizes.items()}
        return {
            group.group_id: min(max(present[group.interfaces], group.min_workers), group.max_workers)
            for group in plan.groups
            if group.min_workers is not None and group.interfaces in present
        }


def setup(options: SupervisorOptions, host: Callable[[], Host], plan: Plan) -> Setup:
    """What the workers of ``options`` are made of."""
    homes = {group.group_id: group.node for group in plan.groups if group.node is not None}
    return Setup(
        plan,
        lambda in_force, sizes: resolve(options, host(), in_force, sizes, homes),
        scale_threshold_dps=options.scale_threshold_pps,
        busy_poll_us=options.busy_poll_us,
        realtime_priority=options.realtime_priority,
    )


def _settings(options: SupervisorOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in _OF_WORKERS}


def _shown(value: object) -> str:
    return "nothing" if value is None else shown(value)
