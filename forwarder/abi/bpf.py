"""bpf(2) as far as it is used: programs are loaded, attached to interfaces and tried (``linux/bpf.h``).

The attachment is a descriptor (a *link*): it ends when the last copy of that is closed, whatever became of
the process that made it.
"""

import ctypes
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from forwarder.abi import syscalls
from forwarder.abi.libc import checked, libc

BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_PROG_TEST_RUN = 0, 2, 5, 10
BPF_MAP_GET_FD_BY_ID, BPF_LINK_CREATE = 14, 28
BPF_MAP_TYPE_ARRAY: Final = 2
BPF_PROG_TYPE_SOCKET_FILTER, BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP = 1, 3, 6
BPF_XDP, BPF_TCX_INGRESS = 37, 46
TCX_NEXT, TCX_DROP = -1, 2
XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
_XDP_FLAGS_DRV_MODE: Final = 1 << 2

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
_MAP_CREATE: Final = struct.Struct("=IIIIIII16s")
"""map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name"""
_MAP_UPDATE: Final = struct.Struct("=IIQQQ")
_LINK_CREATE: Final = struct.Struct("=IIII")
_BY_ID: Final = struct.Struct("=III")
_TEST_RUN: Final = struct.Struct("=4I2Q4I2Q4I")
"""prog_fd, retval, data_size_in and out, data_in and out, repeat, duration; no context, flags or CPU."""
_LONGEST_FRAME: Final = 1 << 16


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
    return call(BPF_PROG_LOAD, _PROG_LOAD.pack(kind, len(program), *addresses, name.encode()))


def attach_ingress(program: int, ifindex: int) -> int:
    """A link that runs ``program`` on what arrives at an interface, behind its packet sockets (Linux 6.6).

    Raises OSError: no such interface, or a kernel without tcx (EINVAL).
    """
    return call(BPF_LINK_CREATE, _LINK_CREATE.pack(program, ifindex, BPF_TCX_INGRESS, 0))


def attach_xdp(program: int, ifindex: int) -> int:
    """A link that runs an XDP program in an interface's driver, never in the stack instead (generic mode).

    Raises OSError: the driver has no XDP (EOPNOTSUPP) or none for this MTU (ERANGE), another program is
    there (EBUSY), or one that was attached without a link (EEXIST).
    """
    return call(BPF_LINK_CREATE, _LINK_CREATE.pack(program, ifindex, BPF_XDP, _XDP_FLAGS_DRV_MODE))


class Run(NamedTuple):
    """What a program made of a frame."""

    verdict: int
    frame: bytes
    nanoseconds: int
    """Duration of a run, the mean of all repetitions."""


def run_on_frame(program: int, frame: bytes, repeat: int = 1) -> Run:
    """Run a program on a frame, as if it had come in on the loopback interface (BPF_PROG_TEST_RUN).

    Raises OSError: the kernel does not run it (EINVAL: the frame is shorter than 14 bytes, or too long).
    """
    data, out = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(_LONGEST_FRAME)
    addresses = (ctypes.addressof(data), ctypes.addressof(out))
    asked = _TEST_RUN.pack(program, 0, len(frame), _LONGEST_FRAME, *addresses, repeat, *(0 for _ in range(9)))
    attributes = ctypes.create_string_buffer(asked, len(asked))
    _call(BPF_PROG_TEST_RUN, attributes)
    answer = _TEST_RUN.unpack(attributes.raw)
    return Run(answer[1], out.raw[: answer[3]], answer[7])


def create_map(
    kind: int, key_bytes: int, value_bytes: int, entries: int, *, flags: int = 0, name: str = ""
) -> int:
    """A descriptor of a new map; ``name``: at most 15 letters. Raises OSError: the kernel gives none."""
    asked = (kind, key_bytes, value_bytes, entries, flags, 0, 0, name.encode())
    return call(BPF_MAP_CREATE, _MAP_CREATE.pack(*asked))


def map_by_id(number: int) -> int:
    """A descriptor of the map with this number. Raises OSError: there is none (ENOENT)."""
    return call(BPF_MAP_GET_FD_BY_ID, _BY_ID.pack(number, 0, 0))


def create_array(value_bytes: int) -> int:
    """A descriptor of an array map of one zeroed value. Raises OSError: the kernel gives none."""
    return create_map(BPF_MAP_TYPE_ARRAY, 4, value_bytes, 1)


def store(array: int, value: bytes) -> None:
    """Make ``value`` the one of a map of :func:`create_array`."""
    key, held = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value, len(value))
    addresses = (ctypes.addressof(key), ctypes.addressof(held))
    call(BPF_MAP_UPDATE_ELEM, _MAP_UPDATE.pack(array, 0, *addresses, 0))


def call(command: int, attributes: bytes) -> int:
    """One bpf(2); raises OSError."""
    return _call(command, ctypes.create_string_buffer(attributes, len(attributes)))


def _call(command: int, attributes: "ctypes.Array[ctypes.c_char]") -> int:
    return checked(libc.syscall(syscalls.BPF, command, ctypes.byref(attributes), len(attributes)))
