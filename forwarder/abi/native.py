"""System calls and ordered memory access for compiled (numba) code.

Rules this module keeps:

* Every function works with the JIT off (``NUMBA_DISABLE_JIT=1``) as far as it can: the memory operations
  fall back to plain array access, which is what coverage runs and the scapy oracle tests need. The system
  call falls back to libc through ctypes.
* A compiled function that calls libc by *symbol* (:class:`numba.types.ExternalFunction`) can be cached on
  disk; one that holds a ctypes pointer cannot, because the address would be baked in.
* Memory shared with the kernel (TPACKET and io_uring rings) or with another process needs acquire loads
  and release stores; see ``tools/include/linux/ring_buffer.h`` and ``io_uring(7)``.
"""

import ctypes
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from forwarder.abi import syscalls
from forwarder.abi.jit import njit
from forwarder.abi.libc import libc

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_POPULATE = 0x1, 0x8000
_CLOCK_MONOTONIC: Final = 1

_c_syscall = types.ExternalFunction("syscall", types.int64(*([types.int64] * 7)))
_c_memcpy = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.intp))
_c_errno = types.ExternalFunction("__errno_location", types.intp())


@intrinsic  # type: ignore[untyped-decorator]
def _load_i32_at(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(32).as_pointer()))

    return types.int32(types.intp), codegen


def _element_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of an element; ``args`` are the array and the index."""
    arrtype = signature.args[0]
    array = context.make_array(arrtype)(context, builder, args[0])
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return cgutils.get_item_pointer(context, builder, arrtype, array, [index], wraparound=False)


@intrinsic  # type: ignore[untyped-decorator]
def _load_acquire(typingctx: Any, array: Any, index: Any) -> Any:
    align = array.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_element_pointer(context, builder, signature, args), "acquire", align)

    return array.dtype(array, index), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _store_release(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    align = array.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, signature, args)
        stored = context.cast(builder, args[2], signature.args[2], signature.args[0].dtype)
        builder.store_atomic(stored, pointer, "release", align)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


def load_acquire(array: Any, index: int) -> Any:
    """Element ``index`` of a 1-d integer array, with acquire ordering."""
    return array[index]


def store_release(array: Any, index: int, value: int) -> None:
    """Write element ``index`` of a 1-d integer array, with release ordering."""
    array[index] = value


def syscall(number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """One system call; a negative ``errno`` on failure, as the kernel itself returns."""
    result = libc.syscall(*(ctypes.c_long(int(x)) for x in (number, a, b, c, d, e, f)))
    return -ctypes.get_errno() if result == -1 else int(result)


def copy_memory(to: int, start: int, count: int) -> None:
    """Copy ``count`` bytes from address ``start`` to address ``to``; the two do not overlap."""
    ctypes.memmove(int(to), int(start), int(count))


# numba matches an overload's implementation to its signature by name *and annotation*, so the functions
# below carry none.
@overload(load_acquire)
def _overload_load_acquire(array, index):
    return lambda array, index: _load_acquire(array, index)


@overload(store_release)
def _overload_store_release(array, index, value):
    return lambda array, index, value: _store_release(array, index, value)


@overload(syscall)
def _overload_syscall(number, a=0, b=0, c=0, d=0, e=0, f=0):
    def implementation(number, a=0, b=0, c=0, d=0, e=0, f=0):
        result = _c_syscall(number, a, b, c, d, e, f)
        if result == -1:
            return -np.int64(_load_i32_at(_c_errno()))
        return result

    return implementation


@overload(copy_memory)
def _overload_copy_memory(to, start, count):
    def implementation(to, start, count):
        _c_memcpy(to, start, count)

    return implementation


@intrinsic  # type: ignore[untyped-decorator]
def _as_pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[0], signature.args[0], types.uintp)
        return builder.inttoptr(value, ir.IntType(8).as_pointer())

    return types.voidptr(address), codegen


def words_at(address: int, count: int) -> Any:
    """``uint32[count]`` over the memory at ``address``; the caller keeps the mapping alive."""
    return np.ctypeslib.as_array((ctypes.c_uint32 * int(count)).from_address(int(address)))


def bytes_at(address: int, count: int) -> Any:
    """``uint8[count]`` over the memory at ``address``; the caller keeps the mapping alive."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * int(count)).from_address(int(address)))


def longs_at(address: int, count: int) -> Any:
    """``uint64[count]`` over the memory at ``address``; the caller keeps the mapping alive."""
    return np.ctypeslib.as_array((ctypes.c_uint64 * int(count)).from_address(int(address)))


def record_at(address: int, layout: Any) -> Any:
    """The record of dtype ``layout`` at ``address``; the caller keeps the memory alive."""
    return bytes_at(address, layout.itemsize).view(layout).view(np.recarray)[0]


@overload(words_at)
def _overload_words_at(address, count):
    return lambda address, count: carray(_as_pointer(address), (count,), np.uint32)


@overload(longs_at)
def _overload_longs_at(address, count):
    return lambda address, count: carray(_as_pointer(address), (count,), np.uint64)


@overload(bytes_at)
def _overload_bytes_at(address, count):
    return lambda address, count: carray(_as_pointer(address), (count,), np.uint8)


@overload(record_at)
def _overload_record_at(address, layout):
    return lambda address, layout: carray(_as_pointer(address), (1,), layout)[0]


@njit
def map_shared(fd: int, length: int) -> int:
    """Map a descriptor's memory, shared and present; its address, or a negative errno."""
    return syscall(syscalls.MMAP, 0, length, _PROT_READ | _PROT_WRITE, _MAP_SHARED | _MAP_POPULATE, fd)


@njit
def monotonic_ns(timespec: Any) -> Any:
    """``time.monotonic_ns()``; ``timespec`` is an ``int64[2]`` to work in."""
    syscall(syscalls.CLOCK_GETTIME, _CLOCK_MONOTONIC, timespec.ctypes.data)
    return timespec[0] * 1_000_000_000 + timespec[1]
