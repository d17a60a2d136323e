"""Memory of processes and of the kernel. Bytes.

* *Private* is what would come back if the process ended: pages that no other process maps (USS). What workers
  forked from one template share is not in it. *PSS* divides a shared page among those that map it.
* *Dirty* is the part of private that the process has written. The rest are pages of files: they come and go
  with the page cache, and count as private only while nobody else maps them. In idle processes that changes
  by megabytes in an hour where the kernel reclaims pages that are little used (DAMON).
* *Anonymous PSS* divides only what was written, so its sum over processes does not depend on who else maps
  the same libraries.
* *Files* are resident pages of programs and libraries, whoever shares them.
* A packet socket's ring is kernel memory that the process maps. It is sized by the plan, not by the code, so
  it is counted apart: mappings named ``socket:[inode]``.
* The kernel's own memory is read for the whole machine: use the difference of two readings, and keep the
  machine otherwise idle. Pages that ring buffers take are in none of its lines; they are the ``ring_bytes``.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lab.measure import Reading
from lab.measure.processes import process_directory

_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
"""The first line of a mapping in smaps; the others begin with a capital letter."""
_SIZE = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
_SHARED = " rw-s "


@dataclass(frozen=True, slots=True)
class ProcessMemory(Reading):
    """Memory of one process, or a sum. ``ring_bytes`` (packet-socket rings) is in no other figure."""

    private_bytes: int
    dirty_bytes: int
    pss_bytes: int
    anonymous_pss_bytes: int
    file_bytes: int
    mapped_dirty_bytes: int
    """Dirty pages that are not anonymous: those of shared mappings, such as an io_uring's."""
    ring_bytes: int


@dataclass(frozen=True, slots=True)
class KernelMemory(Reading):
    """The machine's kernel memory that grows with sockets, processes and rules, from /proc/meminfo."""

    slab_bytes: int
    page_table_bytes: int
    stack_bytes: int
    per_cpu_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.slab_bytes + self.page_table_bytes + self.stack_bytes + self.per_cpu_bytes


def process_memory(pid: int) -> ProcessMemory:
    """Memory of ``pid``; ProcessLookupError when it is gone."""
    with process_directory(pid) as directory:
        whole = Counter(_sizes((directory / "smaps_rollup").read_text()))
        # The kernel's list of mappings is cheap, its details of each are not: look for a shared one first.
        maps = (directory / "maps").read_text()
        smaps = (directory / "smaps").read_text() if _SHARED in maps else ""
    rings, mapped = _sizes_of(smaps, "socket:["), _sizes_of(smaps, _SHARED)
    clean_bytes = whole["Private_Clean"] - rings["Private_Clean"]
    dirty_bytes = whole["Private_Dirty"] - rings["Private_Dirty"]
    return ProcessMemory(
        private_bytes=clean_bytes + dirty_bytes,
        dirty_bytes=dirty_bytes,
        pss_bytes=whole["Pss"] - rings["Pss"],
        anonymous_pss_bytes=whole["Pss_Anon"],
        file_bytes=whole["Rss"] - whole["Anonymous"] - rings["Rss"],
        mapped_dirty_bytes=mapped["Private_Dirty"] - rings["Private_Dirty"],
        ring_bytes=rings["Size"],
    )


def kernel_memory(path: Path = Path("/proc/meminfo")) -> KernelMemory:
    sizes = _sizes(path.read_text())
    return KernelMemory(sizes["Slab"], sizes["PageTables"], sizes["KernelStack"], sizes["Percpu"])


def _sizes_of(smaps: str, mark: str) -> Counter[str]:
    """The sums over the mappings whose first line has ``mark``, by field."""
    totals: Counter[str] = Counter()
    counted = False
    for line in smaps.splitlines():
        if _MAPPING.match(line):
            counted = mark in line
        elif counted:
            totals.update(_sizes(line))
    return totals


def _sizes(text: str) -> dict[str, int]:
    """The ``Name:  123 kB`` lines of a /proc file, in bytes."""
    return {name: int(size) * 1024 for name, size in _SIZE.findall(text)}
