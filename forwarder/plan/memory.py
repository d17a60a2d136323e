"""Estimates of the memory that a plan needs.

Two estimates of the same workers, in bytes, decimal prefixes as in the seed document:

* *modelled*: rules × size + process overhead, for every worker, with the document's own sizes (or others
  given on the command line): what the document's table should say by its own assumptions;
* *projected*: the same sum with this forwarder's own figures, and the receive rings besides.

The lab measures real memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

KB, MB = 1000, 1_000_000


@dataclass(frozen=True)
class Assumptions:
    rule_bytes: int
    """Size of one rule in one worker."""
    process_bytes: int
    """Private memory of a worker that holds no rules."""
    per_output: bool = False
    """A rule costs ``rule_bytes`` for each of its outputs rather than once."""


DOCUMENT = Assumptions(rule_bytes=KB, process_bytes=MB)
"""The seed document: "1KB per rule, 1MB process overhead"."""

FORWARDER = Assumptions(rule_bytes=64, process_bytes=1_200_000, per_output=True)
"""This forwarder's own bounds on a worker's rule table, and on its private memory and transmit ring together,
which the lab checks."""


@dataclass(frozen=True)
class Holding:
    """Workers that hold the same: their number, and what each of them holds."""

    workers: int
    rules: int
    outputs: int
    """Outputs of those rules together."""
    ring_bytes: int


@dataclass(frozen=True)
class Estimate:
    workers: int
    rules_least: int
    rules_mean: float
    rules_most: int
    """Rules held by a worker."""
    rules_bytes: int
    process_bytes: int
    ring_bytes: int
    """Sum over all workers; 0 if the estimate leaves rings out."""

    @property
    def total_bytes(self) -> int:
        return self.rules_bytes + self.process_bytes + self.ring_bytes


def estimate(holdings: Sequence[Holding], assumed: Assumptions, *, rings: bool) -> Estimate:
    """The sum over ``holdings`` (at least one worker in all)."""
    workers = sum(holding.workers for holding in holdings)
    rules = [holding.rules for holding in holdings if holding.workers]
    return Estimate(
        workers=workers,
        rules_least=min(rules),
        rules_mean=sum(holding.workers * holding.rules for holding in holdings) / workers,
        rules_most=max(rules),
        rules_bytes=sum(h.workers * (h.outputs if assumed.per_output else h.rules) for h in holdings)
        * assumed.rule_bytes,
        process_bytes=workers * assumed.process_bytes,
        ring_bytes=sum(h.workers * h.ring_bytes for h in holdings) if rings else 0,
    )


def plural(count: int, noun: str) -> str:
    """A number of things for people: ``1 worker``, ``1,920 workers``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(least: int, most: int) -> str:
    """A range for people: ``4``, ``4 to 1,920``."""
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def megabytes(count: int | float) -> str:
    """Bytes as MB for people: ``4 MB``, ``62.5 MB``, ``2,880 MB``."""
    return f"{count / MB:,.1f}".removesuffix(".0") + " MB"
