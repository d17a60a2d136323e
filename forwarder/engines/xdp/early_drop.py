"""Early drop: multicast for a ring that is nearly full is dropped by the driver, before it costs much.

Where receive work goes before the worker's on one CPU, each datagram that a full ring refuses has cost the
worker most of the time to forward another. A program in front of the socket (``early.bpf.c``) compares what
it let through with what the worker says has left its ring. That is known without guessing only where one
worker reads an interface.

Workers write to the memory of a map, which they inherit, so it is made before the first of them.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from forwarder.abi import bpf, netdev
from forwarder.abi.bpf_object import Object, fields
from forwarder.engines.packet import schema
from forwarder.engines.xdp import suitability
from forwarder.engines.xdp.sets import word
from forwarder.plan.engine import EarlyDrop
from forwarder.problems import Log

OBJECT: Final = Path(__file__).with_name("early.bpf.o")
RINGS: Final = 512
RESERVE: Final = 8
"""The part of a ring that is left for what is between program and ring, and for all that is not dropped."""
Ring = tuple[int, int]
"""A worker and the row of one of its sockets."""
_DEVICES: Final = Path("/sys/class/net")


@dataclass
class _Input:
    ifindex: int
    link: int
    """Descriptor of the attachment."""
    row: int | None = None
    """The level that decides for this interface; None while nothing is dropped."""
    counted: int = 0
    """What that level had dropped before."""


class EarlyFilter:
    """The program, on the interfaces that one worker reads; to be closed."""

    def __init__(self, choice: EarlyDrop, log: Log, devices: Path = _DEVICES) -> None:
        self._choice, self._log, self._devices = choice, log, devices
        self._object: Object | None = None
        self._levels: NDArray[np.uint64] = np.zeros((0, schema.LEVEL_COLUMNS), np.uint64)
        self._rows: dict[Ring, int] = {}
        """Rows of levels, for good: there are as many rings at most as sockets of all worker slots."""
        self._inputs: dict[str, _Input] = {}
        self._past: Counter[str] = Counter()
        self._away = False
        self.refused: dict[str, str] = {}
        """Interfaces that are served without early drop, and why."""

    def open(self, interfaces: Iterable[str]) -> None:
        """Load the program if it is wanted and one of the interfaces may have it.

        Raises OSError: the kernel does not take it though it was asked for.
        """
        if self._choice is EarlyDrop.OFF:
            return
        if self._choice is EarlyDrop.AUTO and all(self._unwanted(name) for name in interfaces):
            return
        try:
            self._object = Object(OBJECT)
            names = [f"column{number}" for number in range(schema.LEVEL_COLUMNS)]
            memory: Any = self._object.array("levels", np.dtype(fields(np.uint64, *names)))
            self._levels = memory.view(np.uint64).reshape(RINGS, schema.LEVEL_COLUMNS)
        except OSError as error:
            if self._choice is EarlyDrop.ON:
                raise _refusal(error, str(error.strerror or error)) from error
            self._log(f"no early drop: {error.strerror or error}")

    def check(self) -> None:
        """Raise OSError if an interface that is served has no early drop though it was asked for."""
        if self._choice is EarlyDrop.ON and self.refused:
            raise _refusal(None, next(iter(self.refused.values())))

    def level_of(self, worker: int, row: int) -> int:
        """The address of a ring's level, which its worker keeps true; 0 if there is none."""
        place = self._row((worker, row))
        return 0 if place is None else int(self._levels[place].ctypes.data)

    def serve(self, interface: str, ifindex: int, mtu: int, ring: Ring | None, frames: int) -> None:
        """Drop early what comes in on an interface for the ring that reads it.

        ``ring``: None where several do; ``frames``: its slots.
        """
        held = self._inputs.get(interface)
        if held and held.ifindex != ifindex:
            self.leave(interface)
            held = None
        self.refused.pop(interface, None)
        if self._choice is EarlyDrop.OFF:
            return
        row = self._row(ring) if ring else None
        try:
            reason = self._trouble(interface, ring, row)
            if reason is None and held is None:
                assert self._object is not None
                held = _Input(ifindex, bpf.attach_xdp(self._object.program("early"), ifindex))
                self._inputs[interface] = held
        except OSError as error:
            reason = suitability.of_attachment(interface, mtu, error)
            self._log(f"no early drop: {reason}")
        if reason:
            self.refused[interface] = reason
            self._pause([interface])
        elif held and row is not None and held.row != row:
            self._pause([interface])
            self._compare(held, row, frames)

    def pause(self) -> None:
        """Let everything through, from when this returns until :meth:`serve` is called again."""
        self._pause(list(self._inputs))

    def give_way(self) -> None:
        """Detach from every interface, as XDP forwards there, until :meth:`come_back`."""
        self.stop()
        self._away = True

    def come_back(self) -> None:
        """Take interfaces again that are served from now on."""
        self._away = False

    def leave(self, interface: str) -> None:
        """Detach from an interface; what was dropped there stays counted."""
        self.refused.pop(interface, None)
        if interface in self._inputs:
            self._pause([interface])
            os.close(self._inputs.pop(interface).link)

    def stop(self) -> None:
        """Detach from every interface; the counts stay."""
        for interface in list(self._inputs):
            self.leave(interface)

    def close(self) -> None:
        """Unload; nothing is left."""
        self.stop()
        if self._object is not None:
            self._object.__exit__()
            self._object = None

    # -- counts --

    @property
    def inputs(self) -> list[str]:
        """The interfaces where datagrams are dropped early when there are too many."""
        return sorted(name for name, held in self._inputs.items() if held.row is not None)

    def drops(self) -> Counter[str]:
        """Datagrams dropped so far, by interface."""
        found = Counter(self._past)
        for name, held in self._inputs.items():
            if held.row is not None:
                found[name] += self._dropped(held.row) - held.counted
        return found

    # -- inside --

    def _row(self, ring: Ring) -> int | None:
        """The row of a ring's level; None if there is no room for another."""
        if ring not in self._rows and len(self._rows) < len(self._levels):
            self._rows[ring] = len(self._rows)
        return self._rows.get(ring)

    def _unwanted(self, interface: str) -> str | None:
        """Why early drop would take something from others, unless it was asked for."""
        if self._choice is EarlyDrop.ON:
            return None
        device, asked = self._devices / interface, "(--early-drop on has it all the same)"
        if not (device / "device").exists():
            why = "it has no card behind it, and senders on this machine would lose segmentation offload"
            return f"input interface {interface}: {why} {asked}"
        if above := sorted(path.name.removeprefix("upper_") for path in device.glob("upper_*")):
            why = f"datagrams of {', '.join(above)} on top of it could not be told apart"
            return f"input interface {interface}: {why} {asked}"
        return None

    def _trouble(self, interface: str, ring: Ring | None, row: int | None) -> str | None:
        if self._away:
            return f"input interface {interface}: XDP forwards in front of the workers"
        if ring is None:
            return f"input interface {interface}: several workers share it, or may"
        if reason := self._unwanted(interface):
            return reason
        if self._object is None:
            return f"input interface {interface}: early drop was not loaded when the forwarder started"
        return f"input interface {interface}: there is room for {RINGS} rings" if row is None else None

    def _compare(self, held: _Input, row: int, frames: int) -> None:
        """Compare an interface's datagrams with a level from now on."""
        assert self._object is not None
        level = self._levels[row]
        # Nobody compares with it yet, and its worker writes the other column alone.
        level[schema.LEVEL_LIMIT] = frames - frames // RESERVE
        level[schema.LEVEL_PASSED] = level[schema.LEVEL_RELEASED]
        held.row, held.counted = row, self._dropped(row)
        self._object.map("rings").update(word(held.ifindex), word(row))

    def _pause(self, interfaces: Iterable[str]) -> None:
        paused = [(name, self._inputs[name]) for name in interfaces if name in self._inputs]
        paused = [(name, held) for name, held in paused if held.row is not None]
        if not paused or self._object is None:
            return
        for _, held in paused:
            self._object.map("rings").delete(word(held.ifindex))
        netdev.wait_for_receivers()
        for name, held in paused:
            assert held.row is not None
            self._past[name] += self._dropped(held.row) - held.counted
            held.row = None

    def _dropped(self, row: int) -> int:
        return dropped(int(self._levels[row, schema.LEVEL_ABOVE]))


def dropped(above: int) -> int:
    """How many of the datagrams that found a ring nearly full were dropped: but for one in 256, the first."""
    return above - -(-above // schema.LEVEL_LET_THROUGH)


def _refusal(error: OSError | None, reason: str) -> OSError:
    said = f"--early-drop on cannot be: {reason}"
    return OSError(error.errno, said) if error and error.errno else OSError(said)
