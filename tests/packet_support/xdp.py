"""The XDP engine's programs, run on single frames as if they came in, and left, by the loopback interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from forwarder.abi import bpf
from forwarder.abi.bpf_maps import BPF_MAP_TYPE_DEVMAP, Map
from forwarder.abi.bpf_object import Object
from forwarder.engines.packet.schema import INGRESS_REASONS
from forwarder.engines.xdp import layout
from packet_support.frames import Datagram, raw_address, raw_port
from packet_support.outputs import Output

LOOPBACK = 1
LONGEST = 4096 - 256 - 320
"""Bytes of a frame that BPF_PROG_TEST_RUN takes: a page without headroom and tailroom."""
RULE = 5
"""Number of the one rule."""
WORD = bytes(4)


def word(number: int) -> bytes:
    return number.to_bytes(4, "little")


def entry(values: Sequence[int], kind: Any) -> bytes:
    return np.array(tuple(values), kind).tobytes()


class Programs:
    """The programs, and one rule with outputs; a datagram fits the rule that was made for it."""

    def __init__(self) -> None:
        sizes = {"rules": 16, "outputs": 16, "many": 16, "rule_counts": 16}
        self.object = Object(layout.OBJECT, sizes, ["egress_alone"])
        self._maps: dict[str, Map] = {}
        self.map("one").update(WORD, entry((LOOPBACK, self.object.program("egress")), layout.DEVICE))
        self._key = b""
        self.serve(Datagram(), Output())

    def map(self, name: str) -> Map:
        return self._maps.setdefault(name, self.object.map(name))

    def serve(self, datagram: Datagram, output: Output, *, mtu: int = 65_535, virtual: bool = False) -> None:
        """Have one rule, for the destination of a datagram, with one output."""
        if self._key:
            self.map("rules").delete(self._key)
        key = (LOOPBACK, raw_address(datagram.group), raw_port(datagram.port), 0)
        self._key = entry(key, layout.INPUT)
        link = output.link_row(mtu)
        self.map("links").update(WORD, entry((LOOPBACK, *link[1:]), layout.LINK))
        self.map("smallest").update(WORD, word(mtu))
        self.map("outputs").update(entry((RULE, LOOPBACK), layout.PLACE), output.row().tobytes())
        self.map("rules").update(self._key, entry((RULE, 1, 0, virtual), layout.RULE))

    def broadcast(self, places: int) -> None:
        """Have the rule's copies leave by a set with this many places, of which one is taken."""
        fd = bpf.create_map(BPF_MAP_TYPE_DEVMAP, 4, layout.DEVICE.itemsize, places)
        try:
            device = entry((LOOPBACK, self.object.program("egress")), layout.DEVICE)
            Map(fd).update(word(places - 1), device)
            self.map("many").update(word(3), word(fd))
        finally:
            os.close(fd)
        self.map("rules").update(self._key, entry((RULE, places, 3, 0), layout.RULE))

    def counts(self) -> dict[str, int]:
        """Everything that was counted, of all CPUs."""
        row = self.map("counters").per_cpu(WORD, layout.COUNTERS)
        return {name: int(row[name].sum()) for name in layout.COUNTERS.names or ()}

    def arrive(self, frame: bytes) -> tuple[int, bytes, dict[str, int]]:
        """A frame through ingress: the verdict, the frame as it is now, and what was counted."""
        before = self.counts()
        run = bpf.run_on_frame(self.object.program("ingress"), frame)
        after = self.counts()
        return run.verdict, run.frame, {name: after[name] - count for name, count in before.items()}

    def reason(self, frame: bytes) -> str:
        """Why a frame is left to the host, or ``ok``."""
        verdict, arrived, counted = self.arrive(frame)
        named = [name for name in INGRESS_REASONS if counted.get(name)]
        assert counted["received"] == 1
        if not named:
            assert verdict == bpf.XDP_REDIRECT
            assert counted["matched"] == 1
            return "ok"
        assert (verdict, arrived, counted["matched"]) == (bpf.XDP_PASS, frame, 0)
        assert sum(counted[name] for name in named) == 1
        return named[0]

    def leave(self, frame: bytes, identification: int = 0) -> tuple[bytes | None, dict[str, int]]:
        """A frame of ingress through egress: the frame that leaves, or None, and what was counted."""
        state = self.map("state")
        rows = np.zeros(state.cpus, layout.STATE)
        rows["identification"] = identification
        state.update(WORD, rows.tobytes())
        before = self.counts()
        run = bpf.run_on_frame(self.object.program("egress_alone"), frame)
        after = self.counts()
        noted = state.per_cpu(WORD, layout.STATE)
        assert noted["ours"].sum() == 1
        assert noted["dropped"].sum() == (run.verdict != bpf.XDP_PASS)
        counted = {name: after[name] - count for name, count in before.items()}
        return run.frame if run.verdict == bpf.XDP_PASS else None, counted

    def forward(self, frame: bytes, identification: int = 0) -> bytes:
        """A frame that fits the rule, through both programs."""
        verdict, between, _ = self.arrive(frame)
        assert verdict == bpf.XDP_REDIRECT
        left, counted = self.leave(between, identification)
        assert left is not None
        assert counted["handed_over"] == 1
        return left
