"""BPF_PROG_TEST_RUN as ``bpf(2)`` has it: one frame through a program, and what the program says of it."""

from __future__ import annotations

import ctypes
import os
import struct

from forwarder.abi import syscalls

BPF_PROG_TEST_RUN = 10
_TEST_RUN = struct.Struct("=4I2Q4I2Q4I")
"""Descriptor, verdict, sizes in and out, data in and out, repetitions, their mean nanoseconds; no context."""


def run(program: int, frame: bytes, repeat: int = 1) -> tuple[int, int]:
    """The verdict on ``frame`` at the loopback interface, and the nanoseconds a run took.

    Raises OSError: the kernel refuses it.
    """
    data = ctypes.create_string_buffer(frame, len(frame))
    asked = _TEST_RUN.pack(
        program, 0, len(frame), 0, ctypes.addressof(data), 0, repeat, *(0 for _ in range(9))
    )
    attributes = ctypes.create_string_buffer(asked, len(asked))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(syscalls.BPF, BPF_PROG_TEST_RUN, ctypes.byref(attributes), len(asked)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    answer = _TEST_RUN.unpack(attributes.raw)
    return answer[1], answer[7]
