"""Remove what a killed run left behind: namespaces of the lab, and the processes inside them."""

from __future__ import annotations

from dataclasses import dataclass

from lab.netns import namespaces as netns
from lab.netns.build import UNSTEERED, steer
from lab.netns.lend import give_back_all


@dataclass(frozen=True)
class Removed:
    """A namespace that was removed, and how many processes were killed in it.

    ``returned``: interfaces that the lab had not made, and that were given back.
    """

    namespace: str
    processes: int
    returned: tuple[str, ...] = ()


def clean(everything: bool = False) -> list[Removed]:
    """Remove the namespaces whose makers have gone; with ``everything`` also those of runs still alive."""
    if everything:
        targets = [(name, len(netns.processes(name))) for name in netns.names()]
    else:
        targets = [(leftover.name, len(leftover.pids)) for leftover in netns.leftovers()]
    removed = []
    for name, processes in targets:
        netns.kill_processes(name)
        returned = []
        if netns.is_made(name):
            steer(name, UNSTEERED)
            returned = give_back_all(name)
        netns.remove(name)
        removed.append(Removed(name, processes, tuple(returned)))
    return removed
