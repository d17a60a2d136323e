"""Making an io_uring for compiled code, with liburing's C functions.

The ``liburing`` package wraps single calls for use from Python. Compiled code needs what its classes hide:
the addresses of the rings and the choice of set-up flags. The package's extension module exports liburing's
C functions, and this module calls them there.
"""

import ctypes
import importlib.util
import mmap
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forwarder.abi import io_uring as abi
from forwarder.abi.native import longs_at, words_at

_POINTERS = tuple((name, ctypes.c_void_p) for name in ("khead", "ktail", "kring_mask", "kring_entries"))
_MAPPING = (
    ("ring_sz", ctypes.c_size_t),
    ("ring_ptr", ctypes.c_void_p),
    ("ring_mask", ctypes.c_uint),
    ("ring_entries", ctypes.c_uint),
    ("pad", ctypes.c_uint * 2),
)


class _Sq(ctypes.Structure):
    _fields_ = (
        *_POINTERS,
        *((name, ctypes.c_void_p) for name in ("kflags", "kdropped", "array", "sqes")),
        ("sqe_head", ctypes.c_uint),
        ("sqe_tail", ctypes.c_uint),
        *_MAPPING,
    )


class _Cq(ctypes.Structure):
    _fields_ = (*_POINTERS, *((name, ctypes.c_void_p) for name in ("kflags", "koverflow", "cqes")), *_MAPPING)


class _Ring(ctypes.Structure):
    """``struct io_uring`` of ``liburing.h``."""

    _fields_ = (
        ("sq", _Sq),
        ("cq", _Cq),
        ("flags", ctypes.c_uint),
        ("ring_fd", ctypes.c_int),
        ("features", ctypes.c_uint),
        ("enter_ring_fd", ctypes.c_int),
        ("int_flags", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("pad2", ctypes.c_uint),
    )


class _Params(ctypes.Structure):
    """``struct io_uring_params`` of ``linux/io_uring.h``."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("sq_entries", "cq_entries", "flags", "sq_thread_cpu")),
        *((name, ctypes.c_uint32) for name in ("sq_thread_idle", "features", "wq_fd")),
        ("resv", ctypes.c_uint32 * 3),
        ("sq_off", ctypes.c_uint32 * 10),
        ("cq_off", ctypes.c_uint32 * 10),
    )


_spec = importlib.util.find_spec("liburing.queue")
if _spec is None or _spec.origin is None:
    raise ImportError("the liburing package has no compiled module liburing.queue")
_library = ctypes.CDLL(_spec.origin)


@dataclass(frozen=True)
class Uring:
    """One io_uring: its descriptor and its shared memory as arrays.

    ``sq_head`` and the others are one-element arrays over the kernel's own words; ``sqes`` is
    ``uint64[entries, 8]``, ``cqes`` is ``uint64[entries, 2]``. Entry ``i`` of the submission ring is
    ``sqes[i & (len(sqes) - 1)]`` (no index array).
    """

    fd: int
    sq_head: NDArray[np.uint32]
    sq_tail: NDArray[np.uint32]
    cq_head: NDArray[np.uint32]
    cq_tail: NDArray[np.uint32]
    sqes: NDArray[np.uint64]
    cqes: NDArray[np.uint64]
    head_offset: int
    """Where ``sq_head`` stands in the ring's mapping: the same for every ring of this kernel."""
    _ring: _Ring

    @property
    def mappings(self) -> dict[int, int]:
        """Where the rings are mapped, and how large each part is.

        As long as any process has them mapped the kernel keeps the io_uring, and what it waits for open.
        """
        submission, completion = self._ring.sq, self._ring.cq
        return {
            submission.ring_ptr: submission.ring_sz,
            completion.ring_ptr: completion.ring_sz,
            submission.sqes: self.sqes.nbytes,
        }

    def close(self) -> None:
        """Unmap the rings and close the descriptor; the arrays must not be used afterwards."""
        _library.io_uring_queue_exit(ctypes.byref(self._ring))


def open_uring(entries: int, completions: int) -> Uring:
    """An io_uring for one thread, maybe of a process that is yet to be forked.

    That thread takes it into use with :func:`~forwarder.abi.io_uring.enable_rings`. ``entries``: of the
    submission ring, a power of two; ``completions``: likewise, and at least ``entries``.

    Raises OSError: io_uring is disabled (``kernel.io_uring_disabled``), out of memory or of descriptors.
    """
    ring, params = _Ring(), _Params()
    params.flags = (
        abi.IORING_SETUP_CQSIZE
        | abi.IORING_SETUP_SUBMIT_ALL
        | abi.IORING_SETUP_SINGLE_ISSUER
        | abi.IORING_SETUP_DEFER_TASKRUN
        | abi.IORING_SETUP_NO_SQARRAY
        | abi.IORING_SETUP_R_DISABLED
    )
    params.cq_entries = completions
    result = _library.io_uring_queue_init_params(entries, ctypes.byref(ring), ctypes.byref(params))
    if result < 0:
        raise OSError(-result, f"io_uring_queue_init: {os.strerror(-result)}")
    return Uring(
        fd=ring.ring_fd,
        sq_head=words_at(ring.sq.khead, 1),
        sq_tail=words_at(ring.sq.ktail, 1),
        cq_head=words_at(ring.cq.khead, 1),
        cq_tail=words_at(ring.cq.ktail, 1),
        sqes=longs_at(ring.sq.sqes, params.sq_entries * abi.SQE_WORDS).reshape(-1, abi.SQE_WORDS),
        cqes=longs_at(ring.cq.cqes, params.cq_entries * abi.CQE_WORDS).reshape(-1, abi.CQE_WORDS),
        head_offset=ring.sq.khead - ring.sq.ring_ptr,
        _ring=ring,
    )


def submission_head(fd: int, head_offset: int) -> int:
    """How many submission entries the kernel has taken, read by whoever holds the ring's descriptor.

    The descriptor keeps the ring's memory alive after the process that used it has died.
    """
    access = (mmap.MAP_SHARED, mmap.PROT_READ)
    with mmap.mmap(fd, mmap.PAGESIZE, *access, offset=abi.IORING_OFF_SQ_RING) as memory:
        return int.from_bytes(memory[head_offset : head_offset + 4], "little")
