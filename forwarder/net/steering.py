"""Steering by rule: classic BPF programs that compute the worker that owns a datagram from its header.

They compute the same as :mod:`forwarder.plan.placement` from group and port, so that the kernel gives a
datagram to the one worker that holds its rule:

* :func:`owner_program`, for PACKET_FANOUT_CBPF, returns the owner's slot: its place in the order in which
  members joined the fanout group.
* :func:`flow_program`, for a group that grows and shrinks, returns the slot of the datagram's flow.
* :func:`cpu_program` returns the slot of the CPU that received it, as PACKET_FANOUT_CPU does, for any CPUs.
* :func:`filter_program`, for one socket of several that all get every datagram, accepts what its slot owns.

Frames are not checked first: any other frame also goes to exactly one worker, by the bytes in the place of a
destination, and is counted there with its reason. A frame that is too short goes to slot 0. Packet loads
count from the network header in a fanout group (``packet_rcv_fanout``), and from the Ethernet header in a
socket's filter (``tpacket_rcv`` pushes it back for SOCK_RAW). Loads relative to SKF_NET_OFF would be the same
for both, but before Linux 6.16 they reach only the linear part of a frame, which may not include the IP
header.
"""

from collections.abc import Sequence
from typing import Final

from forwarder.abi import cbpf as bpf
from forwarder.abi.cbpf import Instruction, Program
from forwarder.plan.placement import MIX_FACTORS, PORT_FACTOR, SCORE_FACTORS, SOURCE_FACTOR, slot_seed
from forwarder.plan.strategy import Hashing

ETHERNET_BYTES: Final = 14
MAX_CPUS: Final = (bpf.BPF_MAXINSNS - 3) // 2
"""Most CPUs for which a program has entries."""
_SHORTEST: Final = 20 + 4
"""Bytes of an IPv4 header without options and of UDP's two ports."""
_ACCEPT: Final = 0xFFFF_FFFF
"""A filter returns how many bytes to keep."""

_HASH, _BEST_SCORE, _BEST_SLOT = 0, 1, 2
"""Words of M[]."""


def owner_program(members: int, hashing: Hashing) -> Program:
    """Returns the slot, 0 to ``members`` − 1, that owns a frame; for a fanout group of this size."""
    return (*_hash(0), *_owner(members, hashing), _op(bpf.RET_A))


def flow_program(members: int) -> Program:
    """Returns the slot of a frame's flow, 0 to ``members`` − 1: :func:`~forwarder.plan.placement.flow_owner`.

    For a fanout group whose members come and go. The kernel replaces it in one step by the program for
    another size (``__fanout_set_data_bpf``): a new member gets nothing before it is ready, and a leaving
    member nothing afterwards. With PACKET_FANOUT_CPU and PACKET_FANOUT_HASH a member counts as soon as it
    joins.
    """
    return (*_flow_hash(0), *_owner(members, Hashing.RENDEZVOUS), _op(bpf.RET_A))


def cpu_program(cpus: Sequence[int], members: int) -> Program:
    """Returns slots 0 to ``members`` − 1 in turn for frames received on ``cpus``, and CPU mod members, like
    PACKET_FANOUT_CPU, for those received on other CPUs."""
    program = [_op(bpf.LD | bpf.W | bpf.ABS, bpf.RECEIVING_CPU)]
    for place, cpu in enumerate(cpus[:MAX_CPUS]):
        program += (Instruction(bpf.JMP | bpf.JEQ | bpf.K, 0, 1, cpu), _op(bpf.RET | bpf.K, place % members))
    return (*program, _op(bpf.ALU | bpf.MOD | bpf.K, members), _op(bpf.RET_A))


def filter_program(slot: int, members: int, hashing: Hashing) -> Program:
    """Accepts the frames that ``slot`` owns, whole; for a SOCK_RAW socket on an Ethernet device."""
    accept, refuse = _op(bpf.RET | bpf.K, _ACCEPT), _op(bpf.RET | bpf.K, 0)
    too_short = accept if slot == 0 else refuse
    return (
        _op(bpf.LD | bpf.W | bpf.LEN),
        Instruction(bpf.JMP | bpf.JGE | bpf.K, 1, 0, ETHERNET_BYTES + _SHORTEST),
        too_short,
        # With options the ports stand further on.
        _op(bpf.LDX | bpf.B | bpf.MSH, ETHERNET_BYTES),
        _op(bpf.ALU | bpf.SUB | bpf.K, ETHERNET_BYTES + 4),
        Instruction(bpf.JMP | bpf.JGE | bpf.X, 1, 0, 0),
        too_short,
        *_hash(ETHERNET_BYTES),
        *_owner(members, hashing),
        Instruction(bpf.JMP | bpf.JEQ | bpf.K, 0, 1, slot),
        accept,
        refuse,
    )


def _op(code: int, k: int = 0) -> Instruction:
    return Instruction(code, 0, 0, k)


def _fold(shift: int) -> Program:
    """A ^= A >> shift"""
    return (_op(bpf.TAX), _op(bpf.ALU | bpf.RSH | bpf.K, shift), _op(bpf.ALU | bpf.XOR | bpf.X))


def _multiply(factor: int) -> Instruction:
    return _op(bpf.ALU | bpf.MUL | bpf.K, factor)


def _hash(network: int) -> Program:
    """A = :func:`~forwarder.plan.placement.rule_hash` of the destination; IPv4 header at ``network``."""
    return (
        _op(bpf.LDX | bpf.B | bpf.MSH, network),
        _op(bpf.LD | bpf.H | bpf.IND, network + 2),
        _multiply(PORT_FACTOR),
        *_mixed_with_group(network),
    )


def _flow_hash(network: int) -> Program:
    """A = the flow hash of the frame (:mod:`forwarder.plan.placement`); IPv4 header at ``network``."""
    return (
        _op(bpf.LDX | bpf.B | bpf.MSH, network),
        _op(bpf.LD | bpf.W | bpf.IND, network),
        _multiply(PORT_FACTOR),
        _op(bpf.ST, _HASH),
        _op(bpf.LD | bpf.W | bpf.ABS, network + 12),
        _multiply(SOURCE_FACTOR),
        _op(bpf.LDX | bpf.MEM, _HASH),
        _op(bpf.ALU | bpf.XOR | bpf.X),
        *_mixed_with_group(network),
    )


def _mixed_with_group(network: int) -> Program:
    """A = mix(A ^ group); IPv4 header at ``network``."""
    combined = (_op(bpf.TAX), _op(bpf.LD | bpf.W | bpf.ABS, network + 16), _op(bpf.ALU | bpf.XOR | bpf.X))
    mix = (*_fold(16), _multiply(MIX_FACTORS[0]), *_fold(13), _multiply(MIX_FACTORS[1]), *_fold(16))
    return (*combined, *mix)


def _owner(members: int, hashing: Hashing) -> Program:
    """A = the slot that owns the hash in A."""
    if hashing is Hashing.MODULO:
        return (_op(bpf.ALU | bpf.MOD | bpf.K, members),)
    program = [_op(bpf.ST, _HASH)]
    for slot in range(members):
        program += (
            _op(bpf.LD | bpf.MEM, _HASH),
            _op(bpf.ALU | bpf.XOR | bpf.K, slot_seed(slot)),
            _multiply(SCORE_FACTORS[0]),
            *_fold(15),
            _multiply(SCORE_FACTORS[1]),
        )
        if slot:
            # Only more is better: the lowest slot wins a tie.
            program += (_op(bpf.LDX | bpf.MEM, _BEST_SCORE), Instruction(bpf.JMP | bpf.JGT | bpf.X, 0, 3, 0))
        program += (_op(bpf.ST, _BEST_SCORE), _op(bpf.LD | bpf.IMM, slot), _op(bpf.ST, _BEST_SLOT))
    return (*program, _op(bpf.LD | bpf.MEM, _BEST_SLOT))
