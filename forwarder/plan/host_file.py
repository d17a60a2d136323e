"""A machine in a JSON file (schema ``mcrd.host/1``), to plan for a machine that is elsewhere.

``mcrd host`` writes the file of the machine that it runs on.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from forwarder.plan.host import ETHERNET_MTU, Cpu, Host, HostError, Interface, Node, cpu_list, parse_cpu_list
from forwarder.problems import Problem, ProblemsError, from_pydantic
from forwarder.rules.model import InterfaceName


class HostFileError(ProblemsError):
    """A file that does not describe a machine."""


def _cpu_list(value: object) -> list[int]:
    if not isinstance(value, str):
        raise ValueError("a CPU list")
    try:
        return parse_cpu_list(value)
    except HostError as error:
        raise ValueError("a CPU list") from error


Number = Annotated[int, Field(strict=True, ge=0)]
CpuList = Annotated[list[Number], BeforeValidator(_cpu_list)]


class _Node(BaseModel, frozen=True, extra="forbid"):
    node: Number
    cpus: CpuList
    memory_bytes: Number | None = None
    distances: dict[Annotated[int, Field(ge=0)], Number] = {}


class _Interface(BaseModel, frozen=True, extra="forbid"):
    name: InterfaceName
    mtu: Annotated[int, Field(strict=True, ge=68, le=65536)] = ETHERNET_MTU
    node: Number | None = None
    up: Annotated[bool, Field(strict=True)] = True
    rx_queues: Annotated[int, Field(strict=True, ge=1)] = 1
    physical: Annotated[bool, Field(strict=True)] = True


class _File(BaseModel, frozen=True, extra="forbid"):
    format: Literal["mcrd.host/1"] = Field(alias="schema")
    source: str | None = None
    nodes: tuple[_Node, ...]
    cores: tuple[CpuList, ...] = ()
    interfaces: tuple[_Interface, ...] = ()


_ALLOWED = {
    "schema": "mcrd.host/1",
    "source": "a text: where the description comes from",
    "nodes": "a list of {node, cpus, memory_bytes, distances}, cpus a list like 0-3,8",
    "cores": "a list of CPU lists like 0,4: CPUs that share a core",
    "interfaces": "a list of {name, mtu, node, up, rx_queues, physical}",
}


def as_document(host: Host, source: str | None = None) -> dict[str, Any]:
    """The machine in JSON's types."""
    cores: dict[int, list[int]] = {}
    for cpu in host.cpus:
        if cpu.core is not None:
            cores.setdefault(cpu.core, []).append(cpu.cpu)
    nodes = {number: Node(number) for number in host.nodes} | {found.node: found for found in host.memory}
    return {
        "schema": "mcrd.host/1",
        "source": source,
        "nodes": [
            {
                "node": number,
                "cpus": cpu_list([cpu.cpu for cpu in host.cpus_of(number)]),
                "memory_bytes": found.memory_bytes,
                "distances": {str(other): distance for other, distance in found.distances},
            }
            for number, found in sorted(nodes.items())
        ],
        "cores": [cpu_list(siblings) for siblings in cores.values() if len(siblings) > 1],
        "interfaces": [asdict(one) for one in host.interfaces],
    }


def as_text(host: Host, source: str | None = None) -> str:
    """The file: a line for each node, core list and interface."""
    lines = []
    for name, value in as_document(host, source).items():
        text = json.dumps(value)
        if name in ("nodes", "interfaces") and value:
            text = "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
        lines.append(f'  "{name}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load_host(path: Path) -> Host:
    """The machine that a file describes; raises :class:`HostFileError` with every problem."""

    def refused(allowed: str) -> HostFileError:
        return HostFileError([Problem("--host", str(path), allowed)])

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refused(f"a readable file: {error.strerror}") from error
    except ValueError as error:
        raise refused(f"JSON in UTF-8: {error}") from error
    if not isinstance(document, dict):
        raise refused("an object of schema mcrd.host/1")
    try:
        found = _File.model_validate(document)
    except ValidationError as error:
        raise HostFileError(from_pydantic(error, _ALLOWED, f"{path.name}: ")) from error
    if wrong := [replace(problem, field=f"{path.name}: {problem.field}") for problem in _problems(found)]:
        raise HostFileError(wrong)
    core_of = {cpu: siblings[0] for siblings in found.cores for cpu in siblings if len(siblings) > 1}
    cpus = sorted((cpu, node.node) for node in found.nodes for cpu in node.cpus)
    return Host(
        tuple(Cpu(cpu, node, core_of.get(cpu)) for cpu, node in cpus),
        tuple(Interface(**one.model_dump()) for one in found.interfaces),
        tuple(
            Node(node.node, node.memory_bytes, tuple(node.distances.items()))
            for node in sorted(found.nodes, key=lambda node: node.node)
        ),
    )


def _problems(found: _File) -> Iterator[Problem]:
    """Cross-checks of fields that are valid one by one."""
    seen: set[int] = set()
    nodes: set[int] = set()
    for place, node in enumerate(found.nodes):
        if node.node in nodes:
            yield Problem(f"nodes[{place}].node", str(node.node), "each node once")
        nodes.add(node.node)
        if twice := seen.intersection(node.cpus):
            yield Problem(f"nodes[{place}].cpus", cpu_list(twice), "each CPU on one node")
        seen.update(node.cpus)
    if not seen:
        yield Problem("nodes", "no CPU", "at least one CPU on one of the nodes")
    shared: set[int] = set()
    for place, siblings in enumerate(found.cores):
        if not seen.issuperset(siblings) or shared.intersection(siblings):
            yield Problem(f"cores[{place}]", cpu_list(siblings), "CPUs of the nodes, on one core each")
        shared.update(siblings)
    names: set[str] = set()
    for place, interface in enumerate(found.interfaces):
        if interface.name in names:
            yield Problem(f"interfaces[{place}].name", interface.name, "each interface once")
        names.add(interface.name)
        if interface.node is not None and interface.node not in nodes:
            allowed = "one of the nodes, or null"
            yield Problem(f"interfaces[{place}].node", str(interface.node), allowed)
