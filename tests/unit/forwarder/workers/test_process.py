"""Large pages for the memory that forks share."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from forwarder.workers.process import LARGE_PAGE_BYTES, collapsible

MIB = 1 << 20


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("00400000-00c00000 rw-p 00000000 00:00 0", [(0x400000, 8 * MIB)]),
        ("00400000-00c00000 rw-p 00000000 00:00 0          [heap]", [(0x400000, 8 * MIB)]),
        ("00401000-00c01000 rw-p 00000000 00:00 0", [(0x600000, 6 * MIB)]),
        ("00401000-007ff000 rw-p 00000000 00:00 0", []),
        ("00400000-00c00000 rw-s 00000000 00:00 0", []),
        ("00400000-00c00000 r--p 00000000 00:00 0", []),
        ("00400000-00c00000 ---p 00000000 00:00 0", []),
        ("00400000-00c00000 rw-p 00000000 00:00 0          [stack]", []),
        ("00400000-00c00000 rw-p 00001000 fe:00 815        /usr/lib/libc.so.6", []),
        ("00400000-00c00000 rw-s 00000000 00:01 4          /memfd:mcrd-counters (deleted)", []),
    ],
)
def test_only_whole_process_of_private_memory_are_taken(line: str, found: list[tuple[int, int]]) -> None:
    assert list(collapsible([line])) == found


IN_A_PROCESS_OF_ITS_OWN = """
import mmap, pathlib, re
from forwarder.workers.process import collapse_memory
memory = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(memory), 4096):
    memory[page] = page // 4096 % 251
moved = collapse_memory()
assert all(memory[page] == page // 4096 % 251 for page in range(0, len(memory), 4096))
print(moved, re.search(r"AnonHugePages: +(\\d+)", pathlib.Path("/proc/self/smaps_rollup").read_text())[1])
"""


def test_what_is_in_memory_stays_and_its_pages_are_large() -> None:
    root = ROOT
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN], capture_output=True, text=True, cwd=root, check=True
    )
    moved, large_kib = map(int, ran.stdout.split())
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or re.search(r"\[never\]", setting.read_text()):
        assert moved == 0
    else:
        assert moved >= 3 * LARGE_PAGE_BYTES
        assert large_kib * 1024 >= 3 * LARGE_PAGE_BYTES
