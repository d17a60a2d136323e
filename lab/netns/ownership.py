"""Who made a namespace or a temporary directory: its name says so, and what a killed lab left can be told.

A name is ``mcl-<pid>-<start time of that pid>-<label>``. When that process is gone, what has the name is left
over, and ``lab/netns/clean.py`` may remove it. The start time tells a reused pid apart.
"""

import os
import re
import tempfile
from pathlib import Path

PREFIX = "mcl-"
_MAKER = "maker"
"""File in a directory whose own name does not tell its maker."""
_NAME = re.compile(r"mcl-(?P<pid>\d+)-(?P<started>\d+)-(?P<label>.+)")
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,100}")


class NetnsError(RuntimeError):
    """A namespace could not be named, made, entered or removed."""


def start_time(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot (proc_pid_stat(5), field 22); ``None`` once gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(")") + 2 :].split()[19])


def new_name(label: str) -> str:
    """A name that this process owns; ``label`` must make it unique within the process.

    Raises :class:`NetnsError` for a label that is not allowed.
    """
    if not _LABEL.fullmatch(label):
        raise NetnsError(f"label {label!r}: 1 to 100 letters, digits, '.', '_' or '-' are allowed")
    return f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}-{label}"


def is_owned(name: str) -> bool:
    """Whether ``name`` is one of :func:`new_name`, of whatever process."""
    return _NAME.fullmatch(name) is not None


def maker_is_gone(name: str) -> bool:
    """Whether ``name`` is one of :func:`new_name`, of a process that has ended."""
    match = _NAME.fullmatch(name)
    return match is not None and start_time(int(match["pid"])) != int(match["started"])


def scratch_directory(label: str) -> Path:
    """Make a temporary directory that this process owns."""
    return Path(tempfile.mkdtemp(prefix=f"{new_name(label)}-"))


def claim(directory: Path) -> None:
    """Make this process the owner of a directory ``mcl-…`` whose name says something else."""
    (directory / _MAKER).write_text(new_name(directory.name))


def left_over(directory: Path) -> bool:
    """Whether the owner of a directory ``mcl-…`` is gone."""
    try:
        name = (directory / _MAKER).read_text()
    except OSError:
        name = directory.name
    return maker_is_gone(name)
