"""System calls, ordered memory access and io_uring, as compiled code uses them (or interpreted)."""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from forwarder.abi import io_uring, jit
from forwarder.abi.io_uring import enable_rings
from forwarder.abi.jit import njit
from forwarder.abi.native import bytes_at, load_acquire, store_release, syscall, words_at
from forwarder.abi.uring_setup import Uring, open_uring, submission_head

_NR_CLOSE = 3
_NR_GETPID = 39
_NR_PIPE2 = 293


@njit
def _close(fd: int) -> int:
    return syscall(_NR_CLOSE, fd)


@njit
def _pid() -> int:
    return syscall(_NR_GETPID)


@njit
def _pipe(ends: np.ndarray) -> int:
    return syscall(_NR_PIPE2, ends.ctypes.data, os.O_NONBLOCK)


@njit
def _publish(words: np.ndarray, at: int, value: int) -> int:
    """Write, read back."""
    store_release(words, at, value)
    return load_acquire(words, at)


@njit
def _through_addresses(words_address: int, bytes_address: int, count: int) -> int:
    words = words_at(words_address, count)
    data = bytes_at(bytes_address, count)
    for index in range(count):
        words[index] += data[index]
    return words[0]


def test_a_system_call_returns_its_result_or_minus_its_errno() -> None:
    assert _pid() == os.getpid()
    assert _close(-1) == -errno.EBADF
    assert syscall(_NR_GETPID) == os.getpid()
    assert syscall(_NR_CLOSE, -1) == -errno.EBADF


def test_a_system_call_reads_and_writes_arrays_by_their_address() -> None:
    ends = np.full(2, -1, np.int32)
    assert _pipe(ends) == 0
    reader, writer = (int(end) for end in ends)
    os.write(writer, b"through")
    assert os.read(reader, 10) == b"through"
    assert _close(reader) == _close(writer) == 0
    assert _close(writer) == -errno.EBADF


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.uint64, np.int64])
def test_ordered_stores_and_loads_touch_just_their_element(dtype: type) -> None:
    words = np.arange(5).astype(dtype)
    largest = int(np.iinfo(dtype).max)
    assert _publish(words, 2, dtype(largest)) == largest
    assert words.tolist() == [0, 1, largest, 3, 4]


def test_arrays_over_an_address_are_that_memory_and_no_copy() -> None:
    words, data = np.array([1, 2, 3], np.uint32), np.array([10, 20, 30], np.uint8)
    assert _through_addresses(words.ctypes.data, data.ctypes.data, 3) == 11
    assert words.tolist() == [11, 22, 33]


@pytest.fixture
def uring() -> Iterator[Uring]:
    made = open_uring(8, 32)
    assert enable_rings(made.fd) == 0
    yield made
    made.close()


def _poll(uring: Uring, fd: int, user: int) -> None:
    tail = int(uring.sq_tail[0])
    entry = uring.sqes[tail & (len(uring.sqes) - 1)]
    entry[:] = 0
    entry[0] = io_uring.IORING_OP_POLL_ADD | fd << 32
    entry[3] = select.POLLIN << 32
    entry[4] = user
    store_release(uring.sq_tail, 0, tail + 1)


def _enter(uring: Uring, submit: int, wait: int) -> int:
    flags = io_uring.IORING_ENTER_GETEVENTS
    return syscall(io_uring.NR_IO_URING_ENTER, uring.fd, submit, wait, flags)


def _completions(uring: Uring) -> list[tuple[int, int]]:
    """(user_data, result) of each."""
    head, tail = int(uring.cq_head[0]), int(load_acquire(uring.cq_tail, 0))
    found = [uring.cqes[index & (len(uring.cqes) - 1)] for index in range(head, tail)]
    store_release(uring.cq_head, 0, tail)
    return [(int(entry[0]), struct.unpack("=iI", entry[1].tobytes())[0]) for entry in found]


def test_an_entry_written_into_the_ring_is_carried_out(uring: Uring) -> None:
    reader, writer = os.pipe()
    try:
        for round_ in range(20):
            _poll(uring, reader, 100 + round_)
            assert _enter(uring, 1, 0) == 1
            assert _completions(uring) == []
            os.write(writer, b"x")
            assert _enter(uring, 0, 1) == 0
            assert _completions(uring) == [(100 + round_, select.POLLIN)]
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_whoever_holds_the_descriptor_sees_how_many_entries_the_kernel_took(uring: Uring) -> None:
    """What the supervisor asks after a worker's death."""
    assert submission_head(uring.fd, uring.head_offset) == 0
    for user in range(5):
        _poll(uring, uring.fd, user)
    assert submission_head(uring.fd, uring.head_offset) == 0
    assert _enter(uring, 3, 0) == 3
    assert submission_head(uring.fd, uring.head_offset) == int(uring.sq_head[0]) == 3
    assert _enter(uring, 2, 0) == 2
    assert submission_head(uring.fd, uring.head_offset) == 5


def test_rings_have_the_sizes_asked_for_and_entries_of_the_kernels_size(uring: Uring) -> None:
    assert uring.sqes.shape == (8, io_uring.SQE_WORDS)
    assert uring.cqes.shape == (32, io_uring.CQE_WORDS)
    assert uring.sqes.itemsize * io_uring.SQE_WORDS == 64
    assert uring.cqes.itemsize * io_uring.CQE_WORDS == 16


def test_a_ring_belongs_to_whoever_takes_it_into_use_and_only_once() -> None:
    made = open_uring(8, 32)
    _poll(made, made.fd, 1)
    assert _enter(made, 1, 0) == -errno.EBADFD, "not in use yet"
    assert enable_rings(made.fd) == 0
    assert enable_rings(made.fd) == -errno.EBADFD
    assert _enter(made, 1, 0) == 1
    made.close()


def test_a_ring_that_the_kernel_refuses_says_why() -> None:
    with pytest.raises(OSError, match="io_uring_queue_init") as raised:
        open_uring(1 << 30, 1 << 30)
    assert raised.value.errno == errno.EINVAL


def test_the_compilers_cache_moves_when_a_source_file_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """numba looks at the file of the calling function only; inlined callees must not go stale."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jit._cache_directory()
    assert before.startswith(str(tmp_path))
    assert jit._cache_directory() == before
    read_bytes = jit.Path.read_bytes
    monkeypatch.setattr(
        jit.Path, "read_bytes", lambda path: read_bytes(path) + (b"#" if path.name == "rewrite.py" else b"")
    )
    assert jit._cache_directory() != before


def test_importing_the_kernels_starts_no_thread() -> None:
    """A process that forks must have one thread: numpy's BLAS is told so before numpy is imported."""
    assert os.environ["OPENBLAS_NUM_THREADS"]
    assert os.environ["OMP_NUM_THREADS"]
