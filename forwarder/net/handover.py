"""Hands an interface over from outgoing to incoming receive sockets: exactly one side takes each datagram.

The kernel offers each datagram to every packet socket, or fanout group, that is bound to the interface, and
the filters of its members decide whether it is taken. The filters here are two eBPF programs over two array
maps. The program of incoming sockets reads the switch, notes what it read in a word of its CPU, and takes the
datagram if the switch is on. The program of outgoing sockets takes it if that word says off. The kernel
offers a datagram first to the hook that was added last (``dev_add_pack`` adds at the head) and to all of them
on one CPU, one after another, so both use the same reading of the switch: a datagram between the two hooks at
the moment of the switch is neither lost nor taken twice.
"""

import os
import socket
from contextlib import ExitStack
from typing import Final

from forwarder.abi import bpf
from forwarder.abi.bpf import Instruction
from forwarder.abi.netdev import wait_for_receivers

_SO_ATTACH_BPF: Final = 50
_CPUS: Final = 4096
"""A power of two; CPUs with this number or a higher one would share words with others."""
_TAKE: Final = -1
"""All bytes of the datagram, as an unsigned word."""


class Handover:
    """The switch and the two filters; to be closed. Raises OSError: the kernel does not take the programs."""

    def __init__(self) -> None:
        with ExitStack() as made:

            def kept(descriptor: int) -> int:
                made.callback(os.close, descriptor)
                return descriptor

            self._switch = kept(bpf.create_array(4))
            noted = kept(bpf.create_array(4 * _CPUS))
            kind = bpf.BPF_PROG_TYPE_SOCKET_FILTER
            self._incoming = kept(bpf.load(_incoming(self._switch, noted), "mcrd_incoming", kind))
            self._outgoing = kept(bpf.load(_outgoing(noted), "mcrd_outgoing", kind))
            self._descriptors = made.pop_all()

    def hold_back(self, incoming: socket.socket) -> None:
        """Have an incoming socket take nothing until :meth:`switch`."""
        incoming.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, self._incoming)

    def keep_on(self, outgoing: socket.socket) -> None:
        """Have an outgoing socket take everything until :meth:`switch`; hold incoming ones back first."""
        outgoing.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, self._outgoing)

    def switch(self) -> None:
        """Let incoming sockets take everything from the next datagram on.

        When this returns, no datagram is on its way to an outgoing socket.
        """
        bpf.store(self._switch, (1).to_bytes(4, "little"))
        wait_for_receivers()

    def close(self) -> None:
        """Sockets keep the filters that they have."""
        self._descriptors.close()


def _own_word(noted: int) -> tuple[Instruction, ...]:
    """R1 = the address of this CPU's word."""
    return (
        Instruction(bpf.CALL, immediate=bpf.GET_SMP_PROCESSOR_ID),
        Instruction(bpf.AND_K, 0, immediate=_CPUS - 1),
        Instruction(bpf.LSH_K, 0, immediate=2),
        *_value_of(1, noted),
        Instruction(bpf.ADD_X, 1, 0),
    )


def _value_of(register: int, array: int) -> tuple[Instruction, ...]:
    return (Instruction(bpf.LD_IMM64, register, bpf.PSEUDO_MAP_VALUE, immediate=array), Instruction(0))


def _incoming(switch: int, noted: int) -> tuple[Instruction, ...]:
    return (
        *_own_word(noted),
        *_value_of(2, switch),
        Instruction(bpf.LDX_W, 3, 2),
        Instruction(bpf.STX_W, 1, 3),
        Instruction(bpf.MOV_K, 0, immediate=0),
        Instruction(bpf.JEQ_K, 3, offset=1, immediate=0),
        Instruction(bpf.MOV32_K, 0, immediate=_TAKE),
        Instruction(bpf.EXIT),
    )


def _outgoing(noted: int) -> tuple[Instruction, ...]:
    return (
        *_own_word(noted),
        Instruction(bpf.LDX_W, 3, 1),
        Instruction(bpf.MOV32_K, 0, immediate=_TAKE),
        Instruction(bpf.JEQ_K, 3, offset=1, immediate=0),
        Instruction(bpf.MOV_K, 0, immediate=0),
        Instruction(bpf.EXIT),
    )
