"""Which memory node pages come from: the kernel's memory policies (set_mempolicy(2), mbind(2)).

*Preferred*, never *bound*: where a node's memory is used up, MPOL_BIND has the kernel kill a process rather
than take a page from elsewhere, and a ring on a far node is only slower.

A policy is a thread's (``current->mempolicy``) and is looked at when a page is taken, which is

* for a receive ring, in setsockopt(PACKET_RX_RING): ``alloc_one_pg_vec_page`` in ``net/packet/af_packet.c``
  calls ``__get_free_pages``, or else ``vzalloc``: so it is the policy of the thread that opens the socket;
* for an io_uring, in io_uring_setup;
* for private memory, when somebody first writes to the page, or copies it by writing after a fork;
* for the counters, which are a memfd, also when somebody first writes, but by the file's own policy for that
  range, where there is one (``shmem_set_policy`` in ``mm/shmem.c``): whoever it is that writes.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from forwarder.abi import syscalls
from forwarder.abi.libc import checked, libc

MPOL_PREFERRED: Final = 1
"""``include/uapi/linux/mempolicy.h``"""
WORDS: Final = 16
"""Length of a mask of 1,024 nodes, the most that a kernel can be built for (MAX_NUMNODES)."""
MAXNODE: Final = WORDS * 64 + 1
"""That length in a call: one more than the bits the kernel reads (``get_nodes`` in ``mm/mempolicy.c``)."""
_Mask = ctypes.c_ulong * WORDS


@contextmanager
def preferring(node: int | None) -> Iterator[None]:
    """Have this thread take pages from ``node`` as long as it has some; as before for ``None``.

    Threads started inside inherit it. Where the kernel refuses (:func:`refusal`), nothing changes.
    """
    try:
        before = None if node is None else _replace_policy(node)
    except OSError:
        before = None
    try:
        yield
    finally:
        if before is not None:
            _restore(*before)


def prefer_for(address: int, nbytes: int, node: int | None) -> None:
    """Have pages of a mapping come from ``node`` when somebody first writes to them, if the kernel will."""
    if node is not None:
        with suppress(OSError):
            _call(syscalls.MBIND, ctypes.c_void_p(address), nbytes, MPOL_PREFERRED, _mask(node), MAXNODE, 0)


def refusal(node: int) -> str | None:
    """Why the kernel will not take memory from ``node`` when asked, ``None`` where it will.

    No such node, or one that the control group forbids (EINVAL), a seccomp filter (EPERM), a kernel without
    NUMA (ENOSYS).
    """
    try:
        _restore(*_replace_policy(node))
    except OSError as error:
        return error.strerror
    return None


def node_mask(node: int) -> list[int]:
    """The 64-bit words of a node mask, of :data:`WORDS` words; raises OSError for a node beyond it."""
    if node >= WORDS * 64:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return [1 << node % 64 if word == node // 64 else 0 for word in range(WORDS)]


def _replace_policy(node: int) -> tuple[int, ctypes.Array[ctypes.c_ulong]]:
    """Prefer ``node``; the policy before."""
    mode, mask = ctypes.c_int(), _Mask()
    _call(syscalls.GET_MEMPOLICY, ctypes.byref(mode), mask, MAXNODE, None, 0)
    _call(syscalls.SET_MEMPOLICY, MPOL_PREFERRED, _mask(node), MAXNODE)
    return mode.value, mask


def _restore(mode: int, mask: ctypes.Array[ctypes.c_ulong]) -> None:
    with suppress(OSError):  # its nodes are gone since: then the present policy is as good
        _call(syscalls.SET_MEMPOLICY, mode, mask, MAXNODE)


def _mask(node: int) -> ctypes.Array[ctypes.c_ulong]:
    return _Mask(*node_mask(node))


def _call(number: int, *arguments: object) -> None:
    words = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    checked(libc.syscall(ctypes.c_long(number), *words))
