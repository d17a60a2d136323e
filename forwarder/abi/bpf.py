"""eBPF as far as it is used: a program is loaded, and attached to an interface (``linux/bpf.h``, bpf(2)).

The attachment is a descriptor (a *link*): it ends when the last copy of that is closed, whatever became of
the process that made it.
"""

import ctypes
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from forwarder.abi import syscalls
from forwarder.abi.libc import checked, libc

BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_LINK_CREATE = 0, 2, 5, 28
BPF_MAP_TYPE_ARRAY: Final = 2
BPF_PROG_TYPE_SOCKET_FILTER, BPF_PROG_TYPE_SCHED_CLS = 1, 3
BPF_TCX_INGRESS: Final = 46
TCX_NEXT, TCX_DROP = -1, 2

LD_ABS_B, LD_ABS_H, LD_ABS_W = 0x30, 0x28, 0x20
"""R0 = the packet's byte, half-word or word at ``immediate``, big-endian, with the context in R6; beyond the
packet the program ends and returns 0."""
LDX_W, STX_W = 0x61, 0x63
"""destination = the word at source + offset; the word at destination + offset = source."""
LD_IMM64: Final = 0x18
"""Two instructions; with source PSEUDO_MAP_VALUE the address of the value of the array map whose descriptor
is the first one's immediate, plus the second one's."""
PSEUDO_MAP_VALUE: Final = 2
CALL: Final = 0x85
GET_SMP_PROCESSOR_ID: Final = 8
"""The helper that puts the CPU's number into R0."""
MOV_X, MOV_K, MOV32_K, ADD_X, AND_K, LSH_K, RSH_K = 0xBF, 0xB7, 0xB4, 0x0F, 0x57, 0x67, 0x77
JEQ_K, JNE_K = 0x15, 0x55
EXIT: Final = 0x95

SKB_VLAN_PRESENT: Final = 20
"""Offset of ``vlan_present`` in ``struct __sk_buff``."""

_INSTRUCTION: Final = struct.Struct("=BBhi")
_PROG_LOAD: Final = struct.Struct("=IIQQ24x16s8x")
"""prog_type, insn_cnt, insns, license; no log; kern_version, prog_flags 0; prog_name; no device."""
_MAP_CREATE: Final = struct.Struct("=IIIII")
_MAP_UPDATE: Final = struct.Struct("=IIQQQ")
_LINK_CREATE: Final = struct.Struct("=IIII")


class Instruction(NamedTuple):
    """``struct bpf_insn``; jumps go ``offset`` instructions past the next one."""

    code: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0


def load(program: Sequence[Instruction], name: str, kind: int = BPF_PROG_TYPE_SCHED_CLS) -> int:
    """A descriptor of the program; ``name``: at most 15 letters, for listings.

    Raises OSError: the kernel does not take it (EPERM: CAP_BPF and CAP_NET_ADMIN are needed).
    """
    code = b"".join(
        _INSTRUCTION.pack(one.code, one.destination | one.source << 4, one.offset, one.immediate)
        for one in program
    )
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    addresses = (ctypes.addressof(text), ctypes.addressof(licence))
    return _bpf(BPF_PROG_LOAD, _PROG_LOAD.pack(kind, len(program), *addresses, name.encode()))


def attach_ingress(program: int, ifindex: int) -> int:
    """A link that runs ``program`` on what arrives at an interface, behind its packet sockets (Linux 6.6).

    Raises OSError: no such interface, or a kernel without tcx (EINVAL).
    """
    return _bpf(BPF_LINK_CREATE, _LINK_CREATE.pack(program, ifindex, BPF_TCX_INGRESS, 0))


def create_array(value_bytes: int) -> int:
    """A descriptor of an array map of one zeroed value. Raises OSError: the kernel gives none."""
    return _bpf(BPF_MAP_CREATE, _MAP_CREATE.pack(BPF_MAP_TYPE_ARRAY, 4, value_bytes, 1, 0))


def store(array: int, value: bytes) -> None:
    """Make ``value`` the one of a map of :func:`create_array`."""
    key, held = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value, len(value))
    addresses = (ctypes.addressof(key), ctypes.addressof(held))
    _bpf(BPF_MAP_UPDATE_ELEM, _MAP_UPDATE.pack(array, 0, *addresses, 0))


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return checked(libc.syscall(syscalls.BPF, command, ctypes.byref(buffer), len(attributes)))
