"""The programs that steer by rule agree with the hash that places rules, for any destination."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from packet_support.bpf_machine import MOST_INSTRUCTIONS, decode, execute

from forwarder.abi.cbpf import assemble
from forwarder.net.steering import MAX_CPUS, cpu_program, filter_program, flow_program, owner_program
from forwarder.plan.placement import MAX_MEMBERS, flow_owner, owner
from forwarder.plan.strategy import Hashing

ETHERNET = bytes.fromhex("01005e010101020000000001") + b"\x08\x00"

groups = st.integers(0, 0xFFFF_FFFF)
ports = st.integers(0, 0xFFFF)
members = st.integers(1, MAX_MEMBERS)
options = st.integers(0, 10).map(lambda words: bytes(4 * words))


def datagram(group: int, port: int, ip_options: bytes = b"", payload: bytes = b"") -> bytes:
    """An IPv4 packet with UDP inside; only the fields that programs look at are filled in."""
    header = bytearray(20)
    header[0] = 0x45 + len(ip_options) // 4
    header[16:20] = group.to_bytes(4, "big")
    return bytes(header) + ip_options + struct.pack(">HHHH", 4000, port, 8, 0) + payload


@given(groups, ports, members, st.sampled_from(Hashing), options, st.binary(max_size=40))
def test_the_owner_in_the_kernel_is_the_owner_in_python(
    group: int, port: int, count: int, hashing: Hashing, ip_options: bytes, payload: bytes
) -> None:
    program = assemble(owner_program(count, hashing))
    assert execute(program, datagram(group, port, ip_options, payload)) == owner(group, port, count, hashing)


@given(groups, ports, st.integers(1, 40), st.sampled_from(Hashing), options)
def test_one_filter_accepts_a_datagram_and_it_is_its_owners(
    group: int, port: int, count: int, hashing: Hashing, ip_options: bytes
) -> None:
    frame = ETHERNET + datagram(group, port, ip_options)
    accepting = [
        slot for slot in range(count) if execute(assemble(filter_program(slot, count, hashing)), frame)
    ]
    assert accepting == [owner(group, port, count, hashing)]


@given(groups, groups, ports, ports, st.integers(1, 20), options)
def test_a_flow_goes_where_python_says_and_a_member_more_takes_flows_from_others_but_shifts_none(
    source: int, group: int, source_port: int, port: int, count: int, ip_options: bytes
) -> None:
    packet = bytearray(datagram(group, port, ip_options))
    packet[12:16] = source.to_bytes(4, "big")
    ports_at = 20 + len(ip_options)
    packet[ports_at : ports_at + 2] = source_port.to_bytes(2, "big")
    before = execute(assemble(flow_program(count)), bytes(packet))
    assert before == flow_owner(source, group, source_port, port, count)
    assert execute(assemble(flow_program(count + 1)), bytes(packet)) in (before, count)


@given(st.binary(max_size=80), st.integers(1, 20), st.sampled_from(Hashing))
def test_any_frame_has_exactly_one_owner(frame: bytes, count: int, hashing: Hashing) -> None:
    programs = [assemble(filter_program(slot, count, hashing)) for slot in range(count)]
    assert sum(execute(program, frame) >= len(frame) for program in programs if frame) == bool(frame)
    assert execute(assemble(owner_program(count, hashing)), frame[14:]) < count


@given(st.sampled_from(Hashing), groups, ports)
def test_programs_of_the_most_members_fit_and_find_the_owner(hashing: Hashing, group: int, port: int) -> None:
    packet, expected = datagram(group, port), owner(group, port, MAX_MEMBERS, hashing)
    assert execute(assemble(owner_program(MAX_MEMBERS, hashing)), packet) == expected
    assert execute(assemble(flow_program(MAX_MEMBERS)), packet) == flow_owner(
        0, group, 4000, port, MAX_MEMBERS
    )
    for slot in {expected, (expected + 1) % MAX_MEMBERS}:
        accepted = execute(assemble(filter_program(slot, MAX_MEMBERS, hashing)), ETHERNET + packet)
        assert bool(accepted) == (slot == expected)


@given(st.lists(st.integers(0, 4095), unique=True, max_size=40), st.integers(1, 60), st.integers(0, 4095))
def test_cpus_get_the_slots_in_turn_and_others_the_one_that_fanout_by_cpu_gives(
    cpus: list[int], members: int, other: int
) -> None:
    program = assemble(cpu_program(cpus, members))
    assert [execute(program, b"", cpu) for cpu in cpus] == [place % members for place in range(len(cpus))]
    if other not in cpus:
        assert execute(program, b"", other) == other % members
    most = assemble(cpu_program(range(MAX_CPUS + 9), members))
    assert len(decode(most)) <= MOST_INSTRUCTIONS < len(decode(most)) + 2, "as many CPUs as fit"
    assert execute(most, b"", MAX_CPUS - 1) == (MAX_CPUS - 1) % members
