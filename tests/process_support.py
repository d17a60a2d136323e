"""What the kernel tells of a process."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> set[int]:
    """The processes that a process has started, and that are there."""
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def state_of(pid: int) -> str:
    """Its letter for it (proc_pid_stat(5)): "S" is asleep; what is no more there was a zombie, "Z", last."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
