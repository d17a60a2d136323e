"""Reconfigures a running forwarder: finds what a configuration changes, and carries it out."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from forwarder.config.files import OptionsError, read_options
from forwarder.config.options import SupervisorOptions, resolve
from forwarder.plan.engine import Engine
from forwarder.plan.host import Host
from forwarder.plan.model import Plan
from forwarder.problems import Problem, ProblemsError, shown
from forwarder.rules.model import ForwardingRule
from forwarder.supervisor.difference import Difference, State, as_dict, difference, moved_rules, shape
from forwarder.supervisor.supervisor import Supervisor
from forwarder.supervisor.switchover import switch_over
from forwarder.workers import limits
from forwarder.workers.pool import ForwarderSpec, index_for

_AT_START: Final = ("control_socket_path", "early_drop", "skip_host_stack", "state_file")
"""Options that a running supervisor cannot change."""
_WORKERS: Final = ("strategy", "auto_scale", "interface", "interfaces", "interface_group")
"""A configuration must have one of these, if the forwarder was started with one."""
_OF_WORKERS: Final = (
    "scale_threshold_pps",
    "busy_poll_us",
    "realtime_priority",
    "zero_checksum",
    "no_coalesce",
)


@dataclass
class Reconfiguration:
    """Applies configurations to one supervisor."""

    _supervisor: Supervisor
    _options: SupervisorOptions
    """The options that it runs with now."""
    _host: Callable[[], Host]
    """Reads the machine as it is now."""
    _at_work: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def apply(self, config: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Carry out a configuration, or only report what it would change.

        ``config``: as in a file for ``--config``, with ``rules`` as a list; without ``rules``, the rules
        stay.

        Raises ProblemsError: everything that is wrong with it, or why it failed; everything is as it was.
        """
        if self._at_work.locked():
            allowed = "one at a time: ask again when it has finished"
            raise ProblemsError([Problem("apply", "another one is at work", allowed)])
        async with self._at_work:
            return await self._apply(config, dry_run)

    async def _apply(self, config: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
        supervisor, began_ns = self._supervisor, time.monotonic_ns()
        state = supervisor.state
        await state.started.wait()
        options, rules = read_options(SupervisorOptions, config)
        if not any(name in config for name in _WORKERS) and self._options.model_fields_set & {*_WORKERS}:
            # Otherwise a file with only rules, or a file that was cut off, would turn the plan into a pool.
            allowed = f"what says which workers there shall be: {', '.join(_WORKERS)}"
            raise OptionsError([Problem("config", ", ".join(config) or "nothing", allowed)])
        if problems := [
            Problem(name, _shown(getattr(options, name)), f"{_shown(present)}, or a new start")
            for name in _AT_START
            if name in config and getattr(options, name) != (present := getattr(self._options, name))
        ]:
            raise OptionsError(problems)
        kept = {name: getattr(self._options, name) for name in _AT_START}
        if "engine" not in config:
            kept["engine"] = self._options.engine
        options = options.model_copy(update=kept)
        async with supervisor.rules.exclusive(), AsyncExitStack() as no_socket_changes:
            await no_socket_changes.enter_async_context(state.sockets_lock)
            wanted_rules = rules if "rules" in config else list(state.book)
            plan = resolve(options, self._host(), wanted_rules)
            present = state.pool.spec.replan(wanted_rules, {})
            now = State(shape(present, _settings(self._options)), {rule.rule_id: rule for rule in state.book})
            wanted = State(shape(plan, _settings(options)), {rule.rule_id: rule for rule in wanted_rules})
            found = difference(now, wanted)
            if not found.switchover and state.pool.index.problems(found.add):
                # New workers may have room for them, without the rules that are removed.
                found = replace(found, switchover=True)
            stay = [rule for rule in wanted_rules if now.rules.get(rule.rule_id) == rule]
            moved = moved_rules(present, plan, stay) if found.shape else 0
            answer = {**as_dict(found, now, moved), "warnings": plan.warnings, "applied": not dry_run}
            engines = {"now": str(state.kernel.engine), "wanted": str(options.engine)}
            answer["engine"] = None if engines["now"] == engines["wanted"] else engines
            if found.switchover:
                plan = resolve(options, self._host(), wanted_rules, self._sizes(plan))
                index = index_for(plan)
                if wrong := index.problems(wanted_rules):
                    raise ProblemsError(wrong)
                try:
                    limits.check_memory(plan.workers, state.links)
                except OSError as error:
                    raise self._refused(error) from error
            if dry_run:
                return {**answer, "took_ns": time.monotonic_ns() - began_ns}
            with self._engine(options.engine):
                if found.switchover:
                    try:
                        await switch_over(supervisor, spec(options, self._host, plan), index, wanted_rules)
                    except OSError as error:
                        raise self._refused(error) from error
                else:
                    await no_socket_changes.aclose()  # interfaces may come with rules
                    if found:
                        await self._change_rules(found, wanted_rules)
                    state.pool.spec = spec(options, self._host, plan)
            self._options = options
        return {**answer, "took_ns": time.monotonic_ns() - began_ns}

    @contextmanager
    def _engine(self, wanted: Engine) -> Iterator[None]:
        """Go over to an engine, and back if what is done with it fails."""
        state = self._supervisor.state
        before = state.kernel.engine
        try:
            self._change_engine(wanted)
        except OSError as error:
            allowed = f"{before}; everything is as it was: {error.strerror or error}"
            raise ProblemsError([Problem("engine", str(wanted), allowed)]) from error
        try:
            yield
        except BaseException:
            self._change_engine(before)
            raise

    def _change_engine(self, wanted: Engine) -> None:
        """Early drop makes room for the XDP engine: an interface has one program. It comes back after it."""
        state = self._supervisor.state
        if wanted is Engine.XDP:
            state.early.give_way()
        try:
            state.kernel.change(wanted, state.book)
        finally:
            if state.kernel.engine is not Engine.XDP:
                state.early.come_back()
            self._supervisor.interfaces.recount()

    async def _change_rules(self, found: Difference, wanted_rules: Sequence[ForwardingRule]) -> None:
        try:
            await self._supervisor.rules.replace(found.add, found.remove, wanted_rules)
        except OSError as error:
            allowed = f"a state file that can be written; everything is as it was: {error}"
            raise ProblemsError([Problem("apply", "other rules", allowed)]) from error

    def _refused(self, error: OSError) -> ProblemsError:
        stopping = self._supervisor.state.stopping.is_set()
        limit = "a running forwarder" if stopping else "what this machine has room for"
        allowed = f"{limit}; everything is as it was: {error.strerror or error}"
        return ProblemsError([Problem("apply", "a plan of other workers", allowed)])

    def _sizes(self, plan: Plan) -> dict[int, int]:
        """Initial sizes of elastic groups: those that their interfaces have now, within the new bounds."""
        groups, sizes = self._supervisor.autoscaler.groups, self._supervisor.autoscaler.sizes()
        present = {groups[number].interfaces: size for number, size in sizes.items()}
        return {
            group.group_id: min(max(present[group.interfaces], group.min_workers), group.max_workers)
            for group in plan.groups
            if group.min_workers is not None and group.interfaces in present
        }


def spec(options: SupervisorOptions, host: Callable[[], Host], plan: Plan) -> ForwarderSpec:
    """What ``options`` and their plan make a forwarder from."""
    homes = {group.group_id: group.node for group in plan.groups if group.node is not None}
    return ForwarderSpec(
        plan,
        lambda in_force, sizes: resolve(options, host(), in_force, sizes, homes),
        scale_threshold_dps=options.scale_threshold_pps,
        busy_poll_us=options.busy_poll_us,
        realtime_priority=options.realtime_priority,
        coalesce=not options.no_coalesce,
        fill_checksums=options.zero_checksum == "fill",
    )


def _settings(options: SupervisorOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in _OF_WORKERS}


def _shown(value: object) -> str:
    return "nothing" if value is None else shown(value)
