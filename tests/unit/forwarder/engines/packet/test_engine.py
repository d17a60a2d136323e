"""Situations of the packet engine: full queues, big frames, wrap-around, changes under way, ends."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packet_support.bench import Bench, FakeRing
from packet_support.frames import Datagram, raw_address, raw_port
from packet_support.judge import checksum_holds
from packet_support.linux import VnetHeader, ones_sum, transmitted
from packet_support.outputs import Output
from paths import TESTS

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import schema
from forwarder.engines.packet.receive import lower_level, passed, receive_batch
from forwarder.engines.packet.rule_table import pack_key
from forwarder.engines.packet.schema import Kind
from forwarder.net.packet_sockets import Ring
from forwarder.workers import encoding

GROUP = "239.1.1.1"
OUTPUT = Output()
DATAGRAM = Datagram(group=GROUP)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as made:
        made.connect(OUTPUT)
        made.add_rule(GROUP, DATAGRAM.port, [OUTPUT])
        yield made


def payloads(messages: list[bytes]) -> list[bytes]:
    return [frame[42:] for message in messages for frame in transmitted(message)]


def numbered(count: int, size: int = 64) -> list[Datagram]:
    return [replace(DATAGRAM, payload=number.to_bytes(4, "big") * (size // 4)) for number in range(count)]


def test_datagrams_queued_together_leave_as_one_frame_and_a_lone_one_as_itself(bench: Bench) -> None:
    for datagram in numbered(10):
        bench.ring.receive(datagram.frame())
    (together,) = bench.forward()
    assert VnetHeader.unpack(together).gso_size == 64
    assert payloads([together]) == [datagram.payload for datagram in numbered(10)]
    bench.ring.receive(DATAGRAM.frame())
    (alone,) = bench.forward()
    assert VnetHeader.unpack(alone) == VnetHeader()
    assert bench.counter(schema.SENT) == 11
    assert bench.counter(schema.FRAMES_SENT) == 2
    bench.assert_balanced()


def test_a_ring_is_used_round_and_round(bench: Bench) -> None:
    arrived = []
    for size in (40, 40, 64, 1, 64, 63):
        for datagram in numbered(size):
            assert bench.ring.receive(datagram.frame())
        arrived += payloads(bench.forward())
    assert len(arrived) == bench.counter(schema.SENT) == 272
    bench.assert_balanced()


def test_a_full_ring_takes_nothing_until_its_slots_are_given_back(bench: Bench) -> None:
    for datagram in numbered(64):
        assert bench.ring.receive(datagram.frame())
    assert not bench.ring.receive(DATAGRAM.frame())
    assert len(payloads(bench.forward())) == 64
    assert bench.ring.receive(DATAGRAM.frame())
    assert len(bench.forward()) == 1
    bench.assert_balanced()


def test_a_ring_shorter_than_a_batch_gives_every_frame_once() -> None:
    """The plan goes down to 64 slots, a batch is larger: a slot must not be read again before its release."""
    with Bench(Ring(2048, 8)) as bench:
        bench.connect(OUTPUT)
        bench.add_rule(GROUP, DATAGRAM.port, [OUTPUT])
        for datagram in numbered(8):
            assert bench.ring.receive(datagram.frame())
        assert payloads(bench.forward()) == [datagram.payload for datagram in numbered(8)]
        bench.assert_balanced()


def test_more_sends_than_submission_entries_leave_in_several_submissions_and_in_order() -> None:
    outputs = [replace(OUTPUT, group=f"239.2.0.{number}") for number in range(8)]
    with Bench() as bench:
        bench.connect(OUTPUT)
        bench.add_rule(GROUP, DATAGRAM.port, outputs)
        # Growing lengths cannot be put together: 60 datagrams are 60 sends to each of 8 outputs.
        arriving = [replace(DATAGRAM, payload=bytes([size]) * size) for size in range(1, 61)]
        assert len(arriving) * len(outputs) > schema.ENTRIES
        for datagram in arriving:
            bench.ring.receive(datagram.frame())
        frames = [frame for message in bench.forward() for frame in transmitted(message)]
        for output in outputs:
            to_output = [
                frame[42:] for frame in frames if frame[30:34] == output.forwarded(DATAGRAM, 0)[30:34]
            ]
            assert to_output == [datagram.payload for datagram in arriving]
        assert bench.reasons() == {}
        bench.assert_balanced()


def test_more_payload_than_the_arena_holds_leaves_whole() -> None:
    with Bench(Ring(16_384, 64)) as bench:
        bench.connect(OUTPUT)
        bench.add_rule(GROUP, DATAGRAM.port, [OUTPUT])
        arriving = [replace(DATAGRAM, payload=bytes([number]) * (8_000 + number)) for number in range(40)]
        assert sum(len(datagram.payload) for datagram in arriving) > schema.ARENA_BYTES
        received = []
        for start in range(0, len(arriving), 20):
            for datagram in arriving[start : start + 20]:
                assert bench.ring.receive(datagram.frame())
            received += payloads(bench.forward())
        assert received == [datagram.payload for datagram in arriving]


def test_a_frame_larger_than_its_slot_is_fetched_from_the_sockets_queue_in_its_turn(bench: Bench) -> None:
    """PACKET_COPY_THRESH: the slot holds its beginning, the socket's queue all of it."""
    big = replace(DATAGRAM, payload=bytes(range(250)) * 36)
    for datagram in (*numbered(3), big, *numbered(2), big, big):
        assert bench.ring.receive(datagram.frame(), copy=True)
    received = payloads(bench.forward())
    assert received == [each.payload for each in (*numbered(3), big, *numbered(2), big, big)]
    assert bench.reasons() == {}
    bench.assert_balanced()


def test_the_largest_gso_frame_of_a_local_sender_is_fetched_and_cut_right(bench: Bench) -> None:
    content = bytes(range(251)) * 261
    whole = replace(DATAGRAM, payload=content[:65_507], dont_fragment=False)
    header = VnetHeader(ap.VIRTIO_NET_HDR_F_NEEDS_CSUM, ap.VIRTIO_NET_HDR_GSO_UDP_L4, 42, 1_472, 34, 6)
    assert bench.ring.receive(whole.frame(), header, copy=True)
    received = payloads(bench.forward())
    assert b"".join(received) == whole.payload
    assert {len(part) for part in received[:-1]} == {1_472}
    assert bench.counter(schema.RECEIVED) == bench.counter(schema.SENT) == len(received) == 45
    bench.assert_balanced()


@pytest.mark.parametrize("outer", ["absent", "full"])
@pytest.mark.parametrize("size", [64, 65])
def test_the_unfinished_checksum_of_what_a_tunnel_carries_is_finished(
    bench: Bench, outer: str, size: int
) -> None:
    """A local VXLAN device leaves the inner checksum to the one below, and its own out or right."""
    carried = [bytes(8) + replace(each, payload=each.payload[3:4] * size).frame() for each in numbered(40)]
    inner = 14 + 20 + 8 + len(bytes(8)) + 14 + 20
    for payload in carried:
        whole = replace(DATAGRAM, payload=payload, checksum=outer).frame()
        pseudo = ones_sum(whole[inner - 8 : inner] + struct.pack(">HH", 17, 8 + size))
        frame = whole[: inner + 6] + struct.pack(">H", pseudo) + whole[inner + 8 :]
        bench.ring.receive(frame, VnetHeader(ap.VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start=inner, csum_offset=6))
    messages = bench.forward()
    assert len(messages) == 1
    frames = transmitted(messages[0])
    assert [frame[42:] for frame in frames] == carried
    assert all(checksum_holds(frame) for frame in frames)


def test_a_large_frame_whose_copy_the_kernel_did_not_keep_is_truncated(bench: Bench) -> None:
    """The socket's queue was full: only the slot's beginning is left of it."""
    big = replace(DATAGRAM, payload=bytes(9_000))
    bench.ring.receive(big.frame())
    bench.ring.receive(big.frame(), copy=True)
    bench.ring.queue.recv(1 << 16)
    assert bench.forward() == []
    assert bench.reasons() == {"truncated": 2}
    bench.assert_balanced()


def test_rules_added_replaced_and_removed_between_batches_take_effect_at_once(bench: Bench) -> None:
    other = replace(OUTPUT, group="239.2.0.9", port=9)
    bench.connect(other)
    late = replace(DATAGRAM, group="239.1.1.2")
    bench.ring.receive(late.frame())
    assert bench.forward() == []
    assert bench.reasons() == {"no_rule": 1}
    slot = bench.add_rule("239.1.1.2", late.port, [OUTPUT, other])
    bench.ring.receive(late.frame())
    assert len(bench.forward()) == 2
    bench.remove_rule("239.1.1.2", late.port)
    bench.ring.receive(late.frame())
    assert bench.forward() == []
    assert bench.reasons() == {"no_rule": 2}
    assert bench.block.rule_matched[slot].tolist() == [1, len(late.payload)]
    bench.assert_balanced()


def test_an_output_interface_that_goes_and_comes_back_loses_only_what_came_between(bench: Bench) -> None:
    for present, expected in ((True, 1), (False, 0), (True, 1)):
        bench.connect(OUTPUT, present=present)
        bench.ring.receive(DATAGRAM.frame())
        assert len(bench.forward()) == expected
    assert bench.reasons() == {"output_absent": 1}
    bench.assert_balanced()


def test_a_refused_send_is_taken_back_and_counted_for_every_datagram_in_it(bench: Bench) -> None:
    bench.connect(OUTPUT, refuses=True)
    for datagram in numbered(10):
        bench.ring.receive(datagram.frame())
    assert bench.forward() == []
    assert bench.reasons() == {"transmit_refused": 10}
    assert bench.counter(schema.SENT) == bench.counter(schema.SENT_BYTES) == 0
    assert bench.counter(schema.FRAMES_SENT) == 0
    assert bench.block.rule_unsent[0].tolist() == [10, 640]
    bench.assert_balanced()


def test_where_the_transmit_ring_fails_one_burst_is_refused_and_the_others_become_messages() -> None:
    """A ring that nobody sends from: the kernel's, when the first frame in it fails."""
    other = Output(group="239.2.2.3", link=1)
    with (
        os.fdopen(os.memfd_create("tx-ring", os.MFD_CLOEXEC), "r+b", buffering=0) as tx_ring,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nobody,
    ):
        tx_ring.truncate(schema.TX_SLOTS * schema.TX_SLOT_BYTES)
        with Bench(Ring(2048, 256), tx_ring=tx_ring) as bench:
            os.dup2(nobody.fileno(), tx_ring.fileno())  # it is mapped by now, and leads nowhere
            bench.connect(OUTPUT)
            bench.connect(other)
            bench.add_rule(GROUP, DATAGRAM.port, [OUTPUT, other])
            for datagram in numbered(128):
                bench.ring.receive(datagram.frame())
            messages = bench.forward()
            later = [datagram.payload for datagram in numbered(128)][64:]
            assert payloads(messages) == [*later, *later], "a burst to each of two outputs"
            assert bench.reasons() == {"transmit_refused": 128}
            assert bench.counter(schema.SENT) == 128
            assert bench.counter(schema.SENT_BYTES) == 128 * 64
            assert bench.counter(schema.FRAMES_SENT) == 2
            assert bench.block.rule_unsent[0].tolist() == [128, 128 * 64]
            bench.assert_balanced()


def test_a_payload_that_just_fits_the_output_leaves_and_one_byte_more_does_not(bench: Bench) -> None:
    bench.connect(OUTPUT, mtu=1_000)
    for size in (972, 973, 972):
        bench.ring.receive(replace(DATAGRAM, payload=bytes(size)).frame())
    assert [len(payload) for payload in payloads(bench.forward())] == [972, 972]
    assert bench.reasons() == {"too_big": 1}, "the last one does not share the fate of the one before it"


def test_a_rule_without_outputs_matches_and_sends_nothing() -> None:
    with Bench() as bench:
        bench.add_rule(GROUP, DATAGRAM.port, [])
        bench.ring.receive(DATAGRAM.frame())
        assert bench.forward() == []
        assert bench.counter(schema.MATCHED) == 1
        bench.assert_balanced()


def test_forwarding_returns_when_the_control_channel_has_something_to_read(bench: Bench) -> None:
    """Asleep or not: without a turn limit only the control channel ends the loop."""
    bench.ring.receive(DATAGRAM.frame())
    bench.wake()
    bench.control.send(b"")
    bench.engine.serve()
    assert len(bench.sent()) == 1
    bench.assert_balanced()


def test_a_socket_found_ready_in_the_middle_of_a_turn_is_served_before_the_worker_sleeps(
    bench: Bench,
) -> None:
    """The first socket has had its turn; the second one's sends fill the submission ring, and making room
    there takes in that the first is ready again. Nothing else would wake the worker for it."""
    others = [replace(OUTPUT, group=f"239.2.0.{number}") for number in range(8)]
    bench.add_rule("239.1.1.2", DATAGRAM.port, others)
    second = FakeRing(Ring(2048, 64))
    try:
        bench.add_ring(1, second)
        bench.wake()
        assert bench.tell(Kind.SET_LINKS) == 0  # a turn: its ring is empty, so the first socket is waited for
        for size in range(1, 61):
            second.receive(replace(DATAGRAM, group="239.1.1.2", payload=bytes([size]) * size).frame())
        bench.wake(1)
        bench.ring.receive(DATAGRAM.frame())
        bench.ring.far_queue.send(b"ready")
        with bench.ended_after(60 * 8 + 1) as seen:
            bench.engine.serve()
            assert seen() == 60 * 8 + 1
    finally:
        second.close()


def test_a_successor_gives_back_slots_that_its_predecessor_had_claimed(bench: Bench) -> None:
    """Claimed, then killed: their copies are settled as interrupted, the ring must not stay full."""
    for datagram in numbered(5):
        bench.ring.receive(datagram.frame())
    receive_batch(bench.engine._worker, bench.engine._rules, 0)
    assert bench.block.cursors[0].tolist() == [5, 0]
    assert bench.block.journal[schema.JOURNAL_PENDING] == 5
    bench.add_ring()
    assert bench.block.cursors[0].tolist() == [5, 5]
    assert [bench.ring.status(slot) for slot in range(6)] == [0] * 6


@pytest.mark.parametrize(
    ("released", "let_in", "expected"),
    [
        (0, 3, 3),  # all that passed came
        (0, 10, 10),  # some never came
        (0, 1, 1),  # some came past the filter
        (40, 42, 42),  # it had released more than had passed
    ],
)
def test_an_empty_ring_sets_its_level_right(bench: Bench, released: int, let_in: int, expected: int) -> None:
    level = np.zeros(schema.LEVEL_COLUMNS, np.uint64)
    bench.add_ring(level=level.ctypes.data)
    level[schema.LEVEL_PASSED], level[schema.LEVEL_RELEASED] = let_in, released
    for datagram in numbered(3):
        bench.ring.receive(datagram.frame())
    assert len(bench.forward()) == 1
    assert level.tolist() == [let_in, *[0] * 7, expected, *[0] * 7]


def test_while_a_ring_is_not_empty_its_level_falls_by_what_was_taken(bench: Bench) -> None:
    level = np.zeros(schema.LEVEL_COLUMNS, np.uint64)
    bench.add_ring(level=level.ctypes.data)
    level[schema.LEVEL_PASSED], level[schema.LEVEL_RELEASED] = 10, 1
    worker = bench.engine._worker
    lower_level(worker, 0, 5, False, 10)
    assert level[schema.LEVEL_RELEASED] == 6
    level[schema.LEVEL_PASSED] = 50  # came after the ring was looked at: it may be in the ring
    lower_level(worker, 0, 5, True, 10)
    assert level[schema.LEVEL_RELEASED] == 11
    assert passed(worker, 0) == 50


def test_a_socket_taken_away_is_served_no_more_and_how_far_it_came_is_known(bench: Bench) -> None:
    bench.ring.receive(DATAGRAM.frame())
    bench.forward()
    assert bench.tell(Kind.REMOVE_SOCKET) == 0
    assert bench.tell(Kind.REMOVE_SOCKET) == 0
    bench.ring.receive(DATAGRAM.frame())
    assert bench.forward() == []
    assert bench.block.cursors[0].tolist() == [1, 1]
    assert bench.counter(schema.RECEIVED) == 1


def test_a_descriptor_that_cannot_be_mapped_for_writing_is_answered_with_its_error_and_given_back(
    bench: Bench,
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Path(__file__).open() as device:
        error = bench.tell(
            Kind.ADD_SOCKET, body=encoding.pack_socket(1, 8, 2048, 0), descriptors=(device.fileno(),)
        )
    assert error == errno.EACCES
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    bench.ring.receive(DATAGRAM.frame())
    assert len(bench.forward()) == 1, "the socket that it has is served as before"


def test_a_message_of_no_known_kind_is_answered_and_changes_nothing(bench: Bench) -> None:
    assert bench.tell(Kind.READY) == errno.EPROTO
    bench.ring.receive(DATAGRAM.frame())
    assert len(bench.forward()) == 1


def test_several_rules_in_one_message_replace_and_add(bench: Bench) -> None:
    """As a successor gets them: all at once, in portions."""
    key = int(pack_key(bench.INTERFACE, raw_port(DATAGRAM.port), raw_address(GROUP)))
    rules = [encoding.WorkerRule(key, 0, ()), encoding.WorkerRule(key + 1, 1, ((1, 2, 3, 0),) * 3)]
    assert bench.tell(Kind.ADD_RULES, count=2, body=encoding.pack_rules(rules)) == 0
    bench.ring.receive(DATAGRAM.frame())
    assert bench.forward() == []
    assert bench.tell(Kind.REMOVE_RULES, count=2, body=encoding.pack_keys([key, key + 1])) == 0
    bench.ring.receive(DATAGRAM.frame())
    assert bench.forward() == []
    assert bench.reasons() == {"no_rule": 1}


def run_apart(script: str) -> int:
    """Run Python code that may use ``packet_support`` in a process of its own; its exit status."""
    return subprocess.run([sys.executable, "-c", script], cwd=TESTS, timeout=100, check=False).returncode


def test_an_engine_closes_with_its_rings_still_mapped() -> None:
    """Apart: touching a ring that was unmapped already would end the process with SIGSEGV."""
    assert (
        run_apart("""
from packet_support.bench import Bench, FakeRing
bench = Bench()
bench.engine.close()
""")
        == 0
    )


def test_after_warming_up_nothing_is_left_to_compile() -> None:
    """Apart, because other tests compile too: a worker must not, its memory would no longer be shared."""
    assert (
        run_apart("""
from forwarder.workers import entry_point
from forwarder.engines.packet import (
    accounting, checksum, coalesce, emit, loop, parse, receive, rewrite, rule_table, transmit, tx_ring
)
from packet_support.bench import Bench, FakeRing
from packet_support.frames import Datagram
from packet_support.outputs import Output

def compiled():
    modules = (
        accounting, checksum, coalesce, emit, loop, parse, receive, rewrite, rule_table, transmit, tx_ring
    )
    return {
        (module.__name__, name): len(function.signatures)
        for module in modules
        for name, function in vars(module).items()
        if hasattr(function, "signatures")
    }

entry_point.warm_up()
rule_table.pack_key(0, 0, 1)  # the supervisor packs keys in plain Python
before = compiled()
bench = Bench()
bench.connect(Output())
for number in range(40):
    bench.add_rule("239.1.1.1", 5001 + number, [Output()])
bench.remove_rule("239.1.1.1", 5002)
for _ in range(3):
    bench.ring.receive(Datagram().frame())
assert len(bench.forward()) == 1
changed = {key: count for key, count in compiled().items() if count != before[key]}
assert not changed, changed
""")
        == 0
    )
