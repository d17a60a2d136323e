"""What a user asks advice for: validated whole, every wrong field in one message. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forwarder.problems import Problem, ProblemsError, flag, from_pydantic, shown

WIRE_BYTES = 66
"""Of a datagram on Ethernet besides its payload: UDP 8, IP 20, Ethernet 14 + 4, preamble and gap 20."""
BITS, GIGA = 8, 1e9


class Demand(BaseModel):
    """Rates and rules are of all interfaces together, spread evenly over them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    interfaces: Annotated[int, Field(ge=1, le=256)] = 1
    cpus: Annotated[int, Field(ge=1, le=4096)]
    numa_nodes: Annotated[int, Field(ge=1, le=64)] = 1
    payload_bytes: Annotated[int, Field(ge=18, le=8972)]
    outputs: Annotated[int, Field(ge=1, le=254)] = 1
    """Copies of each datagram."""
    rules: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    flows: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Sources and groups that send at a time; left out: one for each rule."""
    rate_dps: Annotated[float, Field(gt=0, le=1e12)] | None = None
    gbps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """On Ethernet, with everything that a datagram has around its payload."""
    skip_host_stack: bool = False
    interface_names: tuple[str, ...] = ()
    """As many as there are interfaces; eth0 and so on if left out."""

    @property
    def dps(self) -> float:
        """Datagrams a second that arrive."""
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


def demand(given: Mapping[str, Any]) -> Demand:
    """The demand of the fields in ``given``; raises ProblemsError with all that is wrong."""
    problems: list[Problem] = []
    found: Demand | None = None
    try:
        found = Demand.model_validate(dict(given))
    except ValidationError as error:
        problems += from_pydantic(error, ALLOWED, field=lambda location: flag(str(location[0])))
    rates = [name for name in ("rate_dps", "gbps") if given.get(name) is not None]
    if len(rates) == 2:
        problems.append(Problem("--gbps", shown(given["gbps"]), "left out, as --rate-dps is there"))
    elif not rates:
        problems.append(Problem("--rate-dps", "(missing)", "this or --gbps"))
    if found is not None and found.numa_nodes > found.cpus:
        problems.append(Problem("--numa-nodes", str(found.numa_nodes), f"up to --cpus, {found.cpus}"))
    if problems or found is None:
        raise ProblemsError(problems)
    return found
