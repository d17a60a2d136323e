"""Sorting a batch into bursts: whatever arrives, nothing is lost, reordered or wrongly put together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from packet_support import examples
from packet_support.frames import Datagram, read
from packet_support.outputs import in_one_memory

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import coalesce, schema

SIZES = (0, 1, 17, 18, 100, 1_400, 8_972)


@dataclass(frozen=True)
class Arrival:
    """One received frame: its datagram, its rule, and whether it is a GSO frame or unfinished."""

    datagram: Datagram
    rule: int
    kind: str = "plain"
    """``plain``, ``gso``, ``partial`` or ``checked`` (by the device)."""

    @property
    def flow(self) -> tuple[int, str, int, int]:
        came = self.datagram.arrived()  # a corrupt one may have come with another port
        return self.rule, came.source, came.source_port, came.port

    @property
    def look(self) -> tuple[int, int, bool]:
        return self.datagram.ttl, self.datagram.tos, self.datagram.dont_fragment

    @property
    def sound(self) -> bool:
        """Right, by the device's word too, or to be filled in: it may be put together with others."""
        if self.kind == "checked":
            return self.datagram.checksum != "absent"
        if self.kind == "plain":
            return self.datagram.checksum == "full"
        return self.segments == 1

    @property
    def length(self) -> int:
        return len(self.datagram.payload)

    @property
    def segments(self) -> int:
        """More than one only of a GSO frame, which is nobody's to add to."""
        return -(-self.length // 100) if self.kind == "gso" and self.length > 100 else 1


arrivals = st.builds(
    Arrival,
    st.builds(
        Datagram,
        source=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        source_port=st.sampled_from([4000, 4001]),
        ttl=st.sampled_from([16, 16, 16, 17]),
        tos=st.sampled_from([0, 0, 0, 0xB8]),
        dont_fragment=st.sampled_from([True, True, True, False]),
        payload=st.sampled_from(SIZES).map(bytes),
        checksum=st.sampled_from(["full", "full", "full", "full", "absent", "corrupt"]),
    ),
    rule=st.sampled_from([0, 0, 1]),
    kind=st.sampled_from(["plain", "plain", "plain", "plain", "checked", "partial", "gso"]),
)
batches = st.lists(
    st.tuples(arrivals, st.integers(1, 70)) | st.tuples(arrivals, st.integers(1, 3)), max_size=12
).map(lambda runs: [arrival for arrival, count in runs for _ in range(count)][: schema.BATCH])


class Sorter:
    """The arrays of one worker, used for one batch after another."""

    def __init__(self, fits_all: int = schema.MAX_PAYLOAD, most: int = schema.MAX_SEGMENTS) -> None:
        self.limits = fits_all, most
        self.arrays = np.zeros(1, schema.FORWARDING).view(np.recarray)[0]
        self.stamp = 0

    def sort(self, batch: list[Arrival]) -> list[tuple[NDArray[np.int64], list[int]]]:
        """Each burst's row with the positions of its frames, in the order in which the bursts leave."""
        received, data = _received(batch)
        arrays = self.arrays
        frames, bursts = arrays.frames, arrays.bursts
        frames[: len(batch)] = received
        bursts[:] = -1
        self.stamp += 1
        count = 0
        words = data.view(np.uint32)
        for row in range(len(batch)):
            count = coalesce.add_to_burst(words, data, arrays, row, count, self.stamp, *self.limits)
        sorted_bursts = []
        for burst in bursts[:count]:
            members = [int(burst[schema.BURST_FIRST])]
            while frames[members[-1], schema.FRAME_NEXT] != schema.NONE:
                members.append(int(frames[members[-1], schema.FRAME_NEXT]))
            assert members[-1] == burst[schema.BURST_LAST]
            sorted_bursts.append((burst.copy(), members))
        return sorted_bursts


def _received(batch: list[Arrival]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """The parsed frames of a batch; equal ones share their payload's memory."""
    vnet = {
        "plain": {},
        "checked": {"flags": ap.VIRTIO_NET_HDR_F_DATA_VALID},
        "partial": {"flags": ap.VIRTIO_NET_HDR_F_NEEDS_CSUM},
        "gso": {
            "flags": ap.VIRTIO_NET_HDR_F_NEEDS_CSUM,
            "gso_type": ap.VIRTIO_NET_HDR_GSO_UDP_L4,
            "gso_size": 100,
        },
    }
    distinct = list(dict.fromkeys(batch))
    parsed = [read(arrival.datagram.frame(), **vnet[arrival.kind]) for arrival in distinct]
    rows, data = in_one_memory([(each.row, each.data) for each in parsed])
    for number, arrival in enumerate(distinct):
        rows[number, schema.FRAME_RULE] = arrival.rule
    return rows[[distinct.index(arrival) for arrival in batch]].reshape(-1, schema.FRAME_COLUMNS), data


@examples(75)
@given(batches)
def test_every_frame_is_in_exactly_one_burst_and_the_bursts_add_up(batch: list[Arrival]) -> None:
    bursts = Sorter().sort(batch)
    assert sorted(row for _, members in bursts for row in members) == list(range(len(batch)))
    for burst, members in bursts:
        assert burst[schema.BURST_SEGMENTS] == sum(batch[row].segments for row in members)
        assert burst[schema.BURST_BYTES] == sum(batch[row].length for row in members)


@examples(75)
@given(batches)
def test_the_datagrams_of_a_flow_leave_in_the_order_in_which_they_came(batch: list[Arrival]) -> None:
    left: dict[object, list[int]] = defaultdict(list)
    for _, members in Sorter().sort(batch):
        for row in members:
            left[batch[row].flow].append(row)
    for rows in left.values():
        assert rows == sorted(rows)


@examples(75)
@given(batches)
def test_only_sound_equal_datagrams_of_one_flow_are_put_together(batch: list[Arrival]) -> None:
    """And within what one UDP GSO frame can carry: equal lengths, the last may be shorter, none empty."""
    for burst, members in Sorter().sort(batch):
        if len(members) == 1:
            continue
        together = [batch[row] for row in members]
        assert all(arrival.sound for arrival in together)
        assert len({(arrival.flow, arrival.look) for arrival in together}) == 1
        lengths = [arrival.length for arrival in together]
        assert len(set(lengths[:-1])) == 1
        assert 0 < lengths[-1] <= lengths[0]
        assert len(together) <= schema.MAX_SEGMENTS
        assert burst[schema.BURST_BYTES] <= 65_507


@examples(75)
@given(batches)
def test_what_can_leave_together_does(batch: list[Arrival]) -> None:
    """Of two bursts of a flow that leave one after the other, the first could not take the second's first."""
    by_flow: dict[object, list[list[Arrival]]] = defaultdict(list)
    for _, members in Sorter().sort(batch):
        by_flow[batch[members[0]].flow].append([batch[row] for row in members])
    for sequence in by_flow.values():
        for before, after in pairwise(sequence):
            first, last, newcomer = before[0], before[-1], after[0]
            assert (
                not (first.sound and newcomer.sound)
                or first.look != newcomer.look
                or not 0 < newcomer.length <= first.length
                or last.length < first.length
                or len(before) == schema.MAX_SEGMENTS
                or sum(arrival.length for arrival in before) + newcomer.length > schema.MAX_PAYLOAD
            )


@examples(60)
@given(st.lists(batches, min_size=2, max_size=4))
def test_a_batch_is_sorted_as_if_none_had_been_before_it(several: list[list[Arrival]]) -> None:
    """The flow table is not cleared between batches: the stamp must keep old entries out."""
    sorter = Sorter()
    for batch in several:
        used = [(burst.tolist(), members) for burst, members in sorter.sort(batch)]
        fresh = [(burst.tolist(), members) for burst, members in Sorter().sort(batch)]
        assert used == fresh


@examples(60)
@given(batches, st.integers(1, 3))
def test_no_more_leave_together_than_may(batch: list[Arrival], most: int) -> None:
    together = [members for _, members in Sorter(most=most).sort(batch)]
    assert max(map(len, together), default=0) <= most
    assert sorted(row for members in together for row in members) == list(range(len(batch)))
