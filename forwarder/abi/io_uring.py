"""io_uring for compiled code: the constants of ``linux/io_uring.h``, a stable ABI.

The packet loop queues hundreds of thousands of operations a second, so it writes the submission entries
itself. :mod:`forwarder.abi.uring_setup` makes the rings.
"""

from typing import Final

from forwarder.abi.jit import njit
from forwarder.abi.native import syscall

IORING_OP_POLL_ADD: Final = 6
IORING_OP_SENDMSG: Final = 9
IORING_OP_ASYNC_CANCEL: Final = 14

IOSQE_CQE_SKIP_SUCCESS: Final = 1 << 6
IORING_ENTER_GETEVENTS: Final = 1 << 0

IORING_SETUP_CQSIZE: Final = 1 << 3
IORING_SETUP_R_DISABLED: Final = 1 << 6
IORING_SETUP_SUBMIT_ALL: Final = 1 << 7
IORING_SETUP_SINGLE_ISSUER: Final = 1 << 12
IORING_SETUP_DEFER_TASKRUN: Final = 1 << 13
IORING_SETUP_NO_SQARRAY: Final = 1 << 16

NR_IO_URING_ENTER: Final = 426
NR_IO_URING_REGISTER: Final = 427
IORING_REGISTER_ENABLE_RINGS: Final = 12
IORING_OFF_SQ_RING: Final = 0

SQE_WORDS: Final = 8
"""A submission entry as 64-bit words (``struct io_uring_sqe``, 64 bytes)."""
CQE_WORDS: Final = 2
"""A completion entry as 64-bit words: user_data, then flags << 32 | res."""


@njit
def enable_rings(fd: int) -> int:
    """Take an io_uring into use: from now on it belongs to the calling thread. A negative errno if it was."""
    return syscall(NR_IO_URING_REGISTER, fd, IORING_REGISTER_ENABLE_RINGS)
