"""Finding loops in a directed graph that changes a little at a time.

A graph is two functions, the nodes after a node and the nodes before it; nodes are anything hashable.
Nothing here recurses: a chain may be as long as there are nodes.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)
Neighbours = Callable[[Node], Iterable[Node]]


def _reach(start: Sequence[Node], neighbours: Neighbours[Node], seen: set[Node]) -> Iterator[None]:
    """Put all that can be reached into ``seen``, pausing at every edge."""
    queue = list(start)
    for node in queue:  # the list grows as it is walked
        for other in neighbours(node):
            if other not in seen:
                seen.add(other)
                queue.append(other)
            yield


def first_closed(
    start: Sequence[Node], downstream: Neighbours[Node], upstream: Neighbours[Node]
) -> set[Node]:
    """All nodes downstream of ``start``, or all upstream of it: the set that took fewer steps to find."""
    below, above = set(start), set(start)
    down, up = _reach(start, downstream, below), _reach(start, upstream, above)
    done = object()
    while next(down, done) is not done:
        if next(up, done) is done:
            return above
    return below


def disjoint_loops(
    roots: Iterable[Node], region: set[Node], downstream: Neighbours[Node]
) -> Iterator[list[Node]]:
    """Loops within ``region`` that share no node, such that every loop shares one with a loop given.

    Depth-first search; when an edge leads back onto the path, the path from there on is a loop, and its nodes
    are done with, so each node is visited once. An edge from a node to itself is not for us to report.
    """
    on_path: dict[Node, int] = {}
    done: set[Node] = set()
    for root in roots:
        if root in done:
            continue
        path, edges = [root], [iter(downstream(root))]
        on_path[root] = 0
        while path:
            node = path[-1]
            target = next((n for n in edges[-1] if n in region and n not in done and n != node), None)
            if target is None or target in on_path:
                cut = len(path) - 1 if target is None else on_path[target]
                if target is not None:
                    yield path[cut:]
                for finished in path[cut:]:
                    done.add(finished)
                    del on_path[finished]
                del path[cut:], edges[cut:]
            else:
                on_path[target] = len(path)
                path.append(target)
                edges.append(iter(downstream(target)))
