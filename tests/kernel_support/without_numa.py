"""``mcrd`` in a process whose seccomp filter refuses every memory policy, as container runtimes do.

Run as a script, with the arguments of ``mcrd``.
"""

from __future__ import annotations

import ctypes
import errno

from forwarder.abi import syscalls
from forwarder.abi.af_packet import SOCK_FPROG
from forwarder.abi.cbpf import ABS, JEQ, JMP, LD, RET, Instruction, K, W, assemble
from forwarder.cli.mcrd import app

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000


def refuse(*numbers: int) -> None:
    """Answer these system calls with EPERM from now on, in this process and its children."""
    refused, allowed = Instruction(RET | K, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM), SECCOMP_RET_ALLOW
    program = [Instruction(LD | W | ABS, 0, 0, 0)]  # struct seccomp_data begins with the number
    for number in numbers:
        program += [Instruction(JMP | JEQ | K, 0, 1, number), refused]
    program.append(Instruction(RET | K, 0, 0, allowed))
    code = ctypes.create_string_buffer(assemble(program))
    argument = SOCK_FPROG.pack(len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, argument, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    refuse(syscalls.SET_MEMPOLICY, syscalls.GET_MEMPOLICY, syscalls.MBIND)
    app()
