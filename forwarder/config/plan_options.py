"""The options of ``mcrd plan``: the supervisor's, and a machine or rules that need not exist."""

import os
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from forwarder.config.options import SELECTION, Count, SupervisorOptions, Whole, option, resolve, switch
from forwarder.plan.host import Host, described_host, read_host
from forwarder.plan.host_file import load_host
from forwarder.plan.memory import DOCUMENT, Assumptions
from forwarder.plan.model import Plan, Sizing
from forwarder.rules.model import ForwardingRule, Output

_FIRST_INPUT_GROUP = IPv4Address("239.0.0.0")
_FIRST_OUTPUT_GROUP = IPv4Address("239.128.0.0")


class PlanOptions(SupervisorOptions):
    """The supervisor's options, and a machine or rules to assume."""

    exclusive: ClassVar = (
        *SupervisorOptions.exclusive,
        ("rules", "rules_count"),
        ("host", "cpus"),
        *(("detect", name) for name in (*SELECTION, "strategy")),
    )

    detect: bool = switch("Propose interfaces and a strategy for this machine and these rules.")
    host: Path | None = option(
        None,
        "FILE",
        "a JSON file of schema mcrd.host/1",
        "Plan for the machine described in FILE, which `mcrd host` writes. Default: this machine.",
    )
    cpus: Count | None = option(
        None, "N", "an integer from 1 to 4,096", "Assume N CPUs. Default: this machine's."
    )
    interface_count: Annotated[Whole, Field(ge=1, le=4096)] | None = option(
        None,
        "N",
        "an integer from 1 to 4,096",
        "Assume N interfaces (eth0, eth1, …), spread over the memory nodes, instead of naming them.",
    )
    rules_count: Annotated[Whole, Field(ge=0, le=1_000_000)] | None = option(
        None, "N", "an integer from 0 to 1,000,000", "Assume N rules, spread evenly over the interfaces."
    )
    rule_size: Annotated[Whole, Field(ge=1)] = option(
        DOCUMENT.rule_bytes, "BYTES", "an integer from 1", "Memory of one rule, for the modelled figures."
    )
    process_overhead: Annotated[Whole, Field(ge=0)] = option(
        DOCUMENT.process_bytes,
        "BYTES",
        "an integer from 0",
        "Memory of one process, for the modelled figures.",
    )

    @property
    def complete(self) -> bool:
        return not self.detect

    @property
    def own_problems(self) -> Sequence[tuple[str, str]]:
        if self.rules_count and not (self.detect or self.input_interfaces):
            return [("rules_count", "with interfaces that these rules are for, named or counted")]
        return ()

    @property
    def input_interfaces(self) -> tuple[str, ...]:
        if self.interface_count is not None:
            return tuple(f"eth{number}" for number in range(self.interface_count))
        return super().input_interfaces

    @property
    def sizing(self) -> Sizing:
        return replace(super().sizing, assumptions=Assumptions(self.rule_size, self.process_overhead))

    def machine(self) -> Host:
        """The machine to plan for: the one described, or this one."""
        names = self.input_interfaces
        if self.host is not None:
            host = load_host(self.host)
            return host if self.interface_count is None else host.with_interfaces(names)
        if self.interface_count is not None:
            return described_host(self.cpus, names) if self.cpus else this_host().with_interfaces(names)
        return this_host().with_cpus(self.cpus) if self.cpus else this_host()


def make_plan(options: PlanOptions, rules: Sequence[ForwardingRule]) -> Plan:
    """The plan that ``options`` describe; raises :class:`~forwarder.plan.model.PlanError`."""
    if options.rules_count is not None:
        rules = described_rules(options.rules_count, options.input_interfaces)
    return resolve(options, options.machine(), rules)


def this_host() -> Host:
    """This machine, with the CPUs that this process may run on."""
    return read_host(allowed_cpus=os.sched_getaffinity(0))


def described_rules(count: int, interfaces: Sequence[str]) -> list[ForwardingRule]:
    """``count`` rules of one output each that do not conflict, over ``interfaces`` in turn."""
    rules = []
    for number in range(count):
        group, port = number >> 4, 5000 + (number & 15)
        output = Output.model_construct(group=_FIRST_OUTPUT_GROUP + group, port=port, interface="out0")
        rule = ForwardingRule.model_construct(
            rule_id=f"rule-{number}",
            input_interface=interfaces[number % len(interfaces)],
            input_group=_FIRST_INPUT_GROUP + group,
            input_port=port,
            outputs=(output,),
        )
        rules.append(rule)
    return rules
