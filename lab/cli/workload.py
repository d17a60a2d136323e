"""The machine and load that a user asks advice for; every wrong field is in one message. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forwarder.problems import MISSING, Problem, ProblemsError, flag, from_pydantic, shown

WIRE_BYTES = 66
"""What Ethernet adds to a payload: UDP 8, IP 20, Ethernet 14 + 4, preamble and gap 20."""
BITS, GIGA = 8, 1e9


class Workload(BaseModel):
    """Rates and rules are totals, spread evenly over the interfaces."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    interfaces: Annotated[int, Field(ge=1, le=256)] = 1
    cpus: Annotated[int, Field(ge=1, le=4096)]
    numa_nodes: Annotated[int, Field(ge=1, le=64)] = 1
    payload_bytes: Annotated[int, Field(ge=18, le=8972)]
    outputs: Annotated[int, Field(ge=1, le=254)] = 1
    """Copies of each datagram."""
    rules: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    flows: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Flows that send at the same time. ``None``: one for each rule."""
    rate_dps: Annotated[float, Field(gt=0, le=1e12)] | None = None
    gbps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """The rate on Ethernet, headers and gaps included."""
    skip_host_stack: bool = False
    interface_names: tuple[str, ...] = ()
    """One for each interface; eth0, eth1 … if empty."""

    @property
    def dps(self) -> float:
        """Datagrams/s that arrive."""
        if self.rate_dps is not None:
            return self.rate_dps
        return (self.gbps or 0.0) * GIGA / BITS / (self.payload_bytes + WIRE_BYTES)

    @property
    def flow_count(self) -> int:
        return self.flows or self.rules

    @property
    def names(self) -> tuple[str, ...]:
        return self.interface_names or tuple(f"eth{number}" for number in range(self.interfaces))


ALLOWED = {
    "interfaces": "an integer from 1 to 256",
    "cpus": "an integer from 1 to 4,096",
    "numa_nodes": "an integer from 1 to 64",
    "payload_bytes": "an integer from 18 to 8,972",
    "outputs": "an integer from 1 to 254",
    "rules": "an integer from 1 to 1,000,000",
    "flows": "an integer from 1 to 10,000,000",
    "rate_dps": "a number above 0, up to 10¹²",
    "gbps": "a number above 0, up to 1,000,000",
}


def workload_from(given: Mapping[str, Any]) -> Workload:
    """The workload with the fields ``given``. Raises ProblemsError with everything that is wrong."""
    problems: list[Problem] = []
    found: Workload | None = None
    try:
        found = Workload.model_validate(dict(given))
    except ValidationError as error:
        problems += from_pydantic(error, ALLOWED, field=lambda location: flag(str(location[0])))
    rates = [name for name in ("rate_dps", "gbps") if given.get(name) is not None]
    if len(rates) == 2:
        problems.append(Problem("--gbps", shown(given["gbps"]), "only one of --gbps and --rate-dps"))
    elif not rates:
        problems.append(Problem("--rate-dps", MISSING, "required: this or --gbps"))
    if found is not None and found.numa_nodes > found.cpus:
        problems.append(Problem("--numa-nodes", str(found.numa_nodes), f"up to --cpus, {found.cpus}"))
    if problems or found is None:
        raise ProblemsError(problems)
    return found
