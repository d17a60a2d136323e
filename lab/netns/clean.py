"""Remove what killed runs left behind: namespaces, the processes inside them, temporary directories."""

import fcntl
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab.netns import namespaces as netns
from lab.netns.lend import return_all
from lab.netns.ownership import PREFIX, left_over
from lab.netns.steering import NO_STEERING, write_steering


@dataclass(frozen=True)
class Removed:
    """A namespace that was removed."""

    namespace: str
    processes: int
    """Killed in it."""
    returned: tuple[str, ...] = ()
    """Interfaces that were lent to the lab, and were moved back."""


def clean(everything: bool = False) -> list[Removed]:
    """Remove the namespaces whose makers have gone; with ``everything`` also those of live runs."""
    names = netns.names() if everything else netns.leftovers()
    return [removed for name in names if (removed := _remove(name)) is not None]


def _remove(name: str) -> Removed | None:
    """Remove one namespace; ``None`` when another process that cleans up was first."""
    try:
        taken = (netns.DIRECTORY / name).open("rb")
    except FileNotFoundError:
        return None
    with taken:
        fcntl.flock(taken, fcntl.LOCK_EX)  # of two that clean at once, the second waits and finds it gone
        if not (netns.DIRECTORY / name).exists():
            return None
        processes, returned = len(netns.processes(name)), []
        netns.kill_processes(name)
        if netns.is_made(name):
            returned = return_all(name)
            write_steering(name, NO_STEERING)
        netns.remove(name)
    return Removed(name, processes, tuple(returned))


def remove_directories() -> list[Path]:
    """Remove the temporary directories whose makers have gone; returns them."""
    paths = sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    removed = [path for path in paths if path.is_dir() and not path.is_symlink() and left_over(path)]
    for path in removed:
        shutil.rmtree(path, ignore_errors=True)
    return removed
