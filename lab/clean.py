"""Remove what a killed run left behind: namespaces of the lab, and the processes inside them."""

from __future__ import annotations

from dataclasses import dataclass

from lab import netns


@dataclass(frozen=True)
class Removed:
    """A namespace that was removed, and how many processes were killed in it."""

    namespace: str
    processes: int


def clean(everything: bool = False) -> list[Removed]:
    """Remove the namespaces whose makers have gone; with ``everything`` also those of runs still alive."""
    if everything:
        targets = [(name, len(netns.processes(name))) for name in netns.names()]
    else:
        targets = [(leftover.name, len(leftover.pids)) for leftover in netns.leftovers()]
    removed = []
    for name, processes in targets:
        netns.remove(name)
        removed.append(Removed(name, processes))
    return removed
