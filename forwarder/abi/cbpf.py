"""Classic BPF: the instruction set of ``linux/filter.h`` and ``linux/bpf_common.h``, as far as it is used.

A program has an accumulator A, an index register X, sixteen words of memory M[] and loads from the packet,
big-endian; all arithmetic is on unsigned 32-bit numbers. A load beyond the packet ends it with 0.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from forwarder.abi.af_packet import SOCK_FILTER

LD, LDX, ST, ALU, JMP, RET, MISC = 0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x07
"""Instruction classes; ST stores A."""
W, H, B = 0x00, 0x08, 0x10
"""Sizes of packet loads: 4, 2 and 1 bytes."""
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
"""Modes: a constant, packet at k, packet at X + k, M[k], the packet's length, 4 * (byte at k & 15)."""
SUB, MUL, RSH, MOD, XOR = 0x10, 0x20, 0x70, 0x90, 0xA0
JEQ, JGT, JGE = 0x10, 0x20, 0x30
K, X = 0x00, 0x08
"""Source of an operand: the instruction's constant, or X."""
RET_A: Final = RET | 0x10
TAX: Final = MISC | 0x00

RECEIVING_CPU: Final = 0xFFFF_F000 + 36
"""Offset that loads the CPU that the program runs on (SKF_AD_OFF + SKF_AD_CPU, ``linux/filter.h``)."""

BPF_MAXINSNS: Final = 4096
"""Instructions that the kernel takes at most (``linux/bpf_common.h``)."""


class Instruction(NamedTuple):
    """``struct sock_filter``: a jump goes ``jt`` or ``jf`` instructions past the next one."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]


def assemble(program: Sequence[Instruction]) -> bytes:
    """The program as an array of ``struct sock_filter``."""
    return b"".join(SOCK_FILTER.pack(*instruction) for instruction in program)
