"""What waits in the kernel's backlogs: frames that a veth has handed over and nobody has received yet.

``/proc/net/softnet_stat`` is of the whole machine, a line for each CPU; its twelfth number (hexadecimal) is
how many frames wait there (softnet_seq_show in net/core/net-procfs.c).
"""

from __future__ import annotations

from pathlib import Path

SOFTNET = Path("/proc/net/softnet_stat")
WAITING_COLUMN = 11


def waiting(text: str) -> int:
    """Frames in all backlogs together."""
    return sum(int(line.split()[WAITING_COLUMN], 16) for line in text.splitlines())


def read_waiting() -> int:
    """As of now."""
    return waiting(SOFTNET.read_text())
