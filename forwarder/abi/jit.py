"""The one place that decides how functions are compiled.

numba keys its on-disk cache on the file that defines a function, not on the files of the functions it
inlines: after an edit to a callee in another module the caller would silently run old code. The cache
therefore lives in a directory named by a digest of every source file that compiled code is made from.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

_LEFT_OUT: Final = ("coverage", "scipy")
"""What numba loads when it finds it, and does without otherwise: measuring coverage of compiled code, linear
algebra. Their libraries are a third of the mappings that each fork would copy."""


@contextmanager
def _left_out() -> Iterator[None]:
    """Nobody here finds them, unless they are loaded already."""
    hidden = [name for name in _LEFT_OUT if name not in sys.modules]
    absent: dict[str, Any] = dict.fromkeys(hidden)  # to the import system, None is "no such module"
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _left_out():
    import numba
    from numba.core import config
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()  # numba would do that, and load the rest, when it first compiles

F = TypeVar("F", bound=Callable[..., Any])

JIT_DISABLED = bool(config.DISABLE_JIT)


def _digest() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    root = Path(__file__).resolve().parents[2]
    for package in ("forwarder/abi", "forwarder/engines", "lab/load", "lab/measure", "lab/traffic"):
        for source in sorted((root / package).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_directory() -> str:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return str(caches / "mcastlab" / _digest())


if not os.environ.get("NUMBA_CACHE_DIR"):
    config.CACHE_DIR = _cache_directory()


def complete_marker() -> Path:
    """The file that says that the cache has all that workers run.

    Its name is made of all that numba finds compiled code by: which sources, where they are, and for which
    processor.
    """
    root = Path(__file__).absolute().parents[2]
    told = f"{_digest()} {root} {cpu_target.target_context.codegen().magic_tuple()}"
    digest = hashlib.sha256(told.encode())
    for name in ("process.py", "entry_point.py"):
        digest.update((root / "forwarder" / "workers" / name).read_bytes())
    return Path(config.CACHE_DIR) / f"complete-{digest.hexdigest()[:16]}"


def njit(function: F) -> F:
    """Compile ``function``: cached on disk, without the GIL, C division and wrap-around semantics."""
    compiled: F = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=None)(function)
    return compiled


def compiled_entry(function: Any) -> Any:
    """What a compiled function's dispatcher would call, for a function with one compiled signature.

    Choosing by the arguments' types costs a hundred microseconds, and touches pages that forked processes
    share otherwise. The function itself when it has not been compiled yet, or with the JIT off.
    """
    compiled = getattr(function, "overloads", None)
    if not compiled or len(compiled) != 1:
        return function
    return next(iter(compiled.values())).entry_point
