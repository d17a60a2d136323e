"""A classic BPF machine for programs as bytes, written from ``Documentation/networking/filter.rst``.

It knows nothing of how programs are made, and refuses what the kernel's checker would refuse
(``bpf_check_classic`` in ``net/core/filter.c``).
"""

from __future__ import annotations

import struct

WORD = 0xFFFF_FFFF
MOST_INSTRUCTIONS = 4096


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    """(code, jt, jf, k) of each instruction; fails when the kernel would not load the program."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    count = len(instructions)
    assert 0 < count <= MOST_INSTRUCTIONS, f"{count} instructions"
    for place, (code, jt, jf, k) in enumerate(instructions):
        if code & 0x07 == 0x05:
            assert place + 1 + max(jt, jf) < count, f"instruction {place} jumps out of the program"
        if code in (0x60, 0x61, 0x02, 0x03):
            assert k < 16, f"instruction {place}: no word {k}"
        if code in (0x34, 0x94):
            assert k != 0, f"instruction {place} divides by zero"
    assert instructions[-1][0] & 0x07 == 0x06, "the last instruction does not return"
    return instructions


RECEIVING_CPU = 0xFFFF_F024
"""SKF_AD_OFF + SKF_AD_CPU"""


def execute(program: bytes, packet: bytes, cpu: int = 0) -> int:
    """What the program returns for a packet on a CPU."""
    instructions = decode(program)
    a = x = place = 0
    memory = [0] * 16

    def load(offset: int, size: int) -> int | None:
        offset &= WORD
        if offset == RECEIVING_CPU:
            return cpu
        if offset + size > len(packet):
            return None
        return int.from_bytes(packet[offset : offset + size], "big")

    while True:
        code, jt, jf, k = instructions[place]
        place += 1
        match code:
            case 0x06:
                return k
            case 0x16:
                return a
            case 0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50:
                size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
                loaded = load(k + (x if code & 0x40 else 0), size)
                if loaded is None:
                    return 0
                a = loaded
            case 0xB1:
                loaded = load(k, 1)
                if loaded is None:
                    return 0
                x = (loaded & 0x0F) * 4
            case 0x00:
                a = k
            case 0x80:
                a = len(packet)
            case 0x60:
                a = memory[k]
            case 0x61:
                x = memory[k]
            case 0x02:
                memory[k] = a
            case 0x07:
                x = a
            case 0x87:
                a = x
            case _ if code & 0x07 == 0x04:
                a = _arithmetic(code & 0xF0, a, x if code & 0x08 else k)
            case _ if code & 0x07 == 0x05:
                operand = x if code & 0x08 else k
                taken = {0x10: a == operand, 0x20: a > operand, 0x30: a >= operand}[code & 0xF0]
                place += jt if taken else jf
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def _arithmetic(operation: int, a: int, operand: int) -> int:
    match operation:
        case 0x00:
            return (a + operand) & WORD
        case 0x10:
            return (a - operand) & WORD
        case 0x20:
            return (a * operand) & WORD
        case 0x50:
            return a & operand
        case 0x70:
            return a >> operand
        case 0x90:
            return a % operand
        case 0xA0:
            return a ^ operand
    raise AssertionError(f"unknown operation {operation:#x}")
