"""Tables of a scenario for what RFC 3918 measures besides throughput: latency sets, delays, capacity. Pure.

They are of use beside any scenario. ``rfc3918 = ["4.1", …]`` in a scenario says which of the RFC's tests its
cases make, for the report.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lab.scenario.tables import Model, SubjectName

Section = Literal["4.1", "4.2", "4.3", "5.1", "5.2", "6.1", "6.2", "7.1", "8.1", "8.2"]

Dps = Annotated[int, Field(ge=1, le=10_000_000)]


class Chosen(Model):
    """What the tables have in common: of which cases, of whom."""

    cases: list[str] | None = None
    """All when left out."""
    subjects: list[SubjectName] | None = None
    """The scenario's when left out."""


class LatencyTable(Chosen):
    """``[[latency]]``: one trial at each of these rates, the latency of each output apart."""

    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[])
    """Rates as shares of the zero-loss rate that the case's search found."""
    multicast_dps: list[Dps] = Field(default=[])
    """Multicast datagrams a second; the case's unicast comes on top."""

    @model_validator(mode="after")
    def _some(self) -> LatencyTable:
        if not (self.shares or self.multicast_dps):
            raise ValueError("shares or multicast_dps must be given")
        return self


class DelayTable(Chosen):
    """``[[delay]]``: a rule is added and removed, over and over, while datagrams for it arrive."""

    dps: Annotated[int, Field(ge=100, le=100_000)] = 10_000
    """Rate of the group that is joined: delays are resolved to one interval between two of its datagrams."""
    hold_ms: Annotated[int, Field(ge=10, le=10_000)] = 40
    """Pause between two changes."""


class CapacityTable(Chosen):
    """``[[capacity]]``: more and more groups, a rule each, until not all are forwarded without loss."""

    groups: Annotated[list[Annotated[int, Field(ge=1, le=65_000)]], Field(min_length=1)]
    """Tried in this order, rising; the last is the stated limit."""
    dps: Dps = 20_000
    """Over all groups together."""
    per_group: Annotated[int, Field(ge=1, le=1000)] = 3
    """Datagrams that each group gets at least, in each trial."""

    @model_validator(mode="after")
    def _rising(self) -> CapacityTable:
        if sorted(set(self.groups)) != self.groups:
            raise ValueError(f"groups {self.groups}: each more than the one before is allowed")
        return self
