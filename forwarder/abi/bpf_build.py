"""Compile eBPF programs: ``python -m forwarder.abi.bpf_build FOLDER…``, needs ``apt-get install clang llvm
libbpf-dev``.

The objects are committed, so that only who changes a source needs a compiler. Each carries the digest of its
source (section ``source``), by which a test tells that it was compiled from the source beside it.
"""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def sources(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bpf.c"))


def object_of(source: Path) -> Path:
    return source.with_suffix(".o")


def digest(source: Path) -> str:
    """SHA-256 of a source and of the headers beside it, in hexadecimal."""
    parts = (path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def build(folder: Path) -> Iterator[Path]:
    """Compile every source in a folder; raises CalledProcessError when the compiler refuses."""
    for source in sources(folder):
        made = object_of(source)
        command = ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]
        command += [f'-DSOURCE_DIGEST="{digest(source)}"']
        command += [f"-I/usr/include/{platform.machine()}-linux-gnu"]
        # A path of the machine that compiled it would end up in the object.
        command += ["-fdebug-compilation-dir=."]
        subprocess.run([*command, "-c", source.name, "-o", made.name], cwd=folder, check=True)
        # Type information (BTF) stays, which the loader needs; DWARF goes.
        subprocess.run(["llvm-strip", "-g", made.name], cwd=folder, check=True)
        yield made


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        for path in build(Path(folder)):
            print(f"{path.name}: {path.stat().st_size:,} bytes")
