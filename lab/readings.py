"""What a trial reads of the machine: drops of its own devices, processor time of all CPUs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from lab.build import Lab
from lab.measure.cpu import read_cpus
from lab.measure.interfaces import InterfaceReader


@dataclass(frozen=True)
class Busy:
    """CPUs together, since boot or between two readings; nanoseconds, in steps of a clock tick."""

    busy_ns: int
    softirq_ns: int

    def since(self, earlier: Busy) -> Busy:
        return Busy(self.busy_ns - earlier.busy_ns, self.softirq_ns - earlier.softirq_ns)


def busy_time(spinning: int | None = None) -> Busy:
    """All CPUs.

    ``spinning``: the CPU of a generator that waits for its next datagram in a busy loop. Of that CPU only the
    interrupt time counts (what it forwards in passing is done in softirq): the loop takes all the rest,
    whatever else happens.
    """
    cpus = read_cpus()
    busy = sum(
        time.irq_ns + time.softirq_ns if cpu == spinning else time.busy_ns for cpu, time in cpus.items()
    )
    return Busy(busy, sum(time.softirq_ns for time in cpus.values()))


@dataclass(frozen=True)
class Devices:
    """What the sending ends of the links counted as dropped, on the way in and on the way out."""

    input_dropped: int
    output_dropped: int

    def since(self, earlier: Devices) -> Devices:
        return Devices(
            self.input_dropped - earlier.input_dropped, self.output_dropped - earlier.output_dropped
        )


class DeviceReader:
    """Reads the devices of one lab; a context manager."""

    def __init__(self, lab: Lab) -> None:
        self._stack = ExitStack()
        self._gen = self._stack.enter_context(InterfaceReader(lab.gen))
        self._fwd = self._stack.enter_context(InterfaceReader(lab.fwd)) if lab.fwd else None
        self._inputs = [link.sender.interface for link in lab.inputs]
        self._outputs = [link.sender.interface for link in lab.outputs]

    def read(self) -> Devices:
        output = _dropped(self._fwd, self._outputs) if self._fwd else 0
        return Devices(_dropped(self._gen, self._inputs), output)

    def __enter__(self) -> DeviceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _dropped(reader: InterfaceReader, names: list[str]) -> int:
    counters = reader.read()
    return sum(counters[name].tx_dropped for name in names)
