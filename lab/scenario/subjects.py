"""The subjects that a scenario can name, and what it may ask of each. Pure data.

:mod:`lab.peers` has a module of the same name for each subject, which starts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What can be asked of a subject; ``None``: as much as of the lab itself."""

    interfaces: int | None = None
    """Inputs and outputs together."""
    copies: int | None = None
    """Rules × outputs."""
    counts_frames: bool = False
    """It counts frames, not datagrams: ``egress = "offload"``, where a burst is one frame, is refused."""
    why: str = ""
    """The reason, for the message that refuses more."""


SUBJECTS: Mapping[str, Limits] = {
    # MAXVIFS of linux/mroute.h: the bitmap of multicast interfaces is one machine word.
    "kernel": Limits(interfaces=32, counts_frames=True, why="it routes between 32 interfaces"),
    "mcr": Limits(copies=1024, counts_frames=True, why="a process tells it each rule"),
    "mcrd": Limits(),
    "socat": Limits(copies=256, counts_frames=True, why="a process for each rule and output"),
}
