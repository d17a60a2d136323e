"""Counters of the interfaces in one namespace, through netlink.

What they mean on veth (Linux 6.18, checked by ``tests/kernel/test_lab_measure.py``): a frame handed to one
end is counted as sent there *and* received at the peer, or, when the peer's CPU has no room in its backlog
(``net.core.netdev_max_backlog``), as ``tx_dropped`` here, as ``rx_dropped`` there and, for the whole machine,
in ``/proc/net/softnet_stat``: one drop, of which a ledger takes one counter. XDP frames that receive packet
steering finds no room for are counted at the peer only, so on the way in it is the peer's. A frame is
a datagram, unless segmentation offload passes it whole.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Self

from lab.netns.build import Lab
from lab.netns.netlink import Netlink


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """Of one interface, since it was made or between two readings. Frames, except bytes."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int

    def since(self, earlier: InterfaceCounters) -> InterfaceCounters:
        return InterfaceCounters(
            *(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self))
        )


class InterfaceReader:
    """Reads one namespace; a context manager that keeps its netlink socket open."""

    def __init__(self, namespace: str) -> None:
        self._netlink = Netlink(namespace)

    def read(self) -> dict[str, InterfaceCounters]:
        """The counters of every interface, by name."""
        return {
            link.get("ifname"): InterfaceCounters(
                *(link.get("stats64")[field.name] for field in fields(InterfaceCounters))
            )
            for link in self._netlink.links()
        }

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def since(
    later: dict[str, InterfaceCounters], earlier: dict[str, InterfaceCounters]
) -> dict[str, InterfaceCounters]:
    """The difference, interface by interface; one that was not there before counts from 0."""
    return {
        name: counters.since(earlier[name]) if name in earlier else counters
        for name, counters in later.items()
    }


@dataclass(frozen=True, slots=True)
class Devices:
    """What a lab's links dropped, frames: on the way in (as the receiving ends say) and out (the sending)."""

    input_dropped: int
    output_dropped: int

    def since(self, earlier: Devices) -> Devices:
        return Devices(
            self.input_dropped - earlier.input_dropped, self.output_dropped - earlier.output_dropped
        )


class DeviceReader:
    """Reads the devices of one lab; a context manager."""

    def __init__(self, lab: Lab) -> None:
        with ExitStack() as stack:
            self._reader = stack.enter_context(InterfaceReader(lab.fwd or lab.rcv))
            self._stack = stack.pop_all()
        self._inputs = [link.receiver.interface for link in lab.inputs]
        self._outputs = [link.sender.interface for link in lab.outputs] if lab.fwd else []

    def read(self) -> Devices:
        counters = self._reader.read()
        return Devices(
            sum(counters[name].rx_dropped for name in self._inputs),
            sum(counters[name].tx_dropped for name in self._outputs),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
