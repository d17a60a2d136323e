"""libbpf (``apt-get install libbpf1``) as far as it is used: load an object, find its maps, attach, run.

Only calls of libbpf 1.0 and later: Debian 12 has 1.1. Every failure is an :class:`OSError` that says what was
tried; EPERM means that CAP_BPF and CAP_NET_ADMIN are needed.
"""

import ctypes
import mmap
import os
import socket
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from forwarder.abi.bpf_maps import Map

LIBRARY: Final = "libbpf.so.1"
BPF_F_TEST_XDP_LIVE_FRAMES: Final = 2


class _TestRun(ctypes.Structure):
    """``struct bpf_test_run_opts`` (bpf/bpf.h)."""

    _fields_ = (
        ("sz", c_size_t),
        *((name, c_void_p) for name in ("data_in", "data_out")),
        *((name, c_uint32) for name in ("data_size_in", "data_size_out")),
        *((name, c_void_p) for name in ("ctx_in", "ctx_out")),
        *((name, c_uint32) for name in ("ctx_size_in", "ctx_size_out", "retval")),
        ("repeat", c_int),
        *((name, c_uint32) for name in ("duration", "flags", "cpu", "batch_size")),
    )


_FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, c_bool)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_program__attach_xdp": (c_void_p, (c_void_p, c_int)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_prog_test_run_opts": (c_int, (c_int, POINTER(_TestRun))),
}


@cache
def _libbpf() -> ctypes.CDLL:
    """Raises OSError where it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise OSError(f"{error}: apt-get install libbpf1") from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    # What goes wrong is in the exceptions.
    library.libbpf_set_print(None)
    return library


def _made(pointer: int | None, what: str) -> int:
    if not pointer:
        raise _failed(what, ctypes.get_errno())
    return pointer


def _failed(what: str, number: int) -> OSError:
    return OSError(number, f"{what}: {os.strerror(number)}")


def fields(kind: npt.DTypeLike, *names: str) -> list[tuple[str, npt.DTypeLike]]:
    """Fields of one type, for the ``dtype`` of a program's structure."""
    return [(name, kind) for name in names]


class Object(AbstractContextManager["Object"]):
    """The programs and maps of a compiled object, loaded. A context manager.

    Args:
        sizes: entries of its maps, where they are not as many as the source says.
        extra: programs that the source marks as not loaded by default (``SEC("?…")``), and are wanted.
    """

    def __init__(
        self, path: Path, sizes: Mapping[str, int] | None = None, extra: Collection[str] = ()
    ) -> None:
        library = _libbpf()
        self._name = path.name
        with ExitStack() as stack:
            opened = library.bpf_object__open_file(os.fsencode(path), None)
            self._object = _made(opened, f"opening {path.name}")
            stack.callback(library.bpf_object__close, self._object)
            for map_name, entries in (sizes or {}).items():
                if error := library.bpf_map__set_max_entries(self._found("map", map_name), entries):
                    raise _failed(f"{path.name}: map {map_name} of {entries:,} entries", -error)
            for name in extra:
                library.bpf_program__set_autoload(self._found("program", name), True)
            if error := library.bpf_object__load(self._object):
                raise _failed(f"loading {path.name}", -error)
            self._stack = stack.pop_all()

    def program(self, name: str) -> int:
        """The descriptor of a program, which belongs to this object."""
        descriptor: int = _libbpf().bpf_program__fd(self._found("program", name))
        return descriptor

    def map(self, name: str) -> Map:
        """A map of this object, which keeps its descriptor."""
        return Map(_libbpf().bpf_map__fd(self._found("map", name)))

    def array(self, name: str, entry: npt.DTypeLike) -> npt.NDArray[Any]:
        """The memory of an array map (``BPF_F_MMAPABLE``), shared with the kernel: one ``entry`` each.

        Entries are multiples of eight bytes.
        """
        found = self._found("map", name)
        dtype = np.dtype(entry)
        assert dtype.itemsize % 8 == 0, f"{name}: entries of {dtype.itemsize} bytes"
        entries = _libbpf().bpf_map__max_entries(found)
        size = -(-entries * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        mapped = mmap.mmap(_libbpf().bpf_map__fd(found), size)
        return np.frombuffer(mapped, dtype, entries)

    def attach(self, program: str) -> None:
        """Attach a program where its section says, until this object is closed."""
        link = _made(
            _libbpf().bpf_program__attach(self._found("program", program)),
            f"{self._name}: attaching {program}",
        )
        self._stack.callback(_libbpf().bpf_link__destroy, link)

    def attach_xdp(self, program: str, interface: str) -> None:
        """Attach until this object is closed; in the driver where that can, else in the stack.

        :func:`forwarder.abi.bpf.attach_xdp` is the one for the driver alone.
        """
        index = socket.if_nametoindex(interface)
        what = f"{self._name}: attaching {program} to {interface}"
        link = _made(_libbpf().bpf_program__attach_xdp(self._found("program", program), index), what)
        self._stack.callback(_libbpf().bpf_link__destroy, link)

    def run_live(self, program: str, frame: bytes, repeat: int, batch: int) -> None:
        """Run an XDP program on ``repeat`` live frames that look like ``frame``, ``batch`` at a time.

        Linux 5.18; ``bpf_test_run_xdp_live`` in net/bpf/test_run.c. Raises OSError (EINTR on a signal).
        """
        buffer = ctypes.create_string_buffer(frame, len(frame))
        options = _TestRun(repeat=repeat, batch_size=batch, flags=BPF_F_TEST_XDP_LIVE_FRAMES)
        options.sz = ctypes.sizeof(options)
        options.data_in, options.data_size_in = ctypes.addressof(buffer), len(frame)
        if error := _libbpf().bpf_prog_test_run_opts(self.program(program), byref(options)):
            raise _failed(f"{self._name}: running {program} on live frames", -error)

    def __exit__(self, *_: object) -> None:
        """Detach and unload; arrays that are in use stay readable."""
        self._stack.close()

    def _found(self, kind: Literal["program", "map"], name: str) -> int:
        find = getattr(_libbpf(), f"bpf_object__find_{kind}_by_name")
        return _made(find(self._object, name.encode()), f"{self._name}: {kind} {name}")
