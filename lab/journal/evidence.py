"""Frames around a failure, kept as pcapng beside the results."""

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = "evidence"
FILES_MAX = 20
"""In one run: where more fails than that, the first ones show why."""


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """``time_ns``: CLOCK_REALTIME. ``checksum_ready``: false where the sender left the sum to the device."""

    interface: str
    time_ns: int
    data: bytes
    outgoing: bool
    checksum_ready: bool


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture holds. ``interfaces``: each one's name, and how much of what it saw is here."""

    interfaces: Sequence[tuple[str, str]]
    frames: Sequence[CapturedFrame]


def file_name(what: str) -> str:
    """The file for a trial or a step, relative to the run's directory; equal only for equal ids."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", what).strip("-.")[:100]
    return f"{FOLDER}/{readable}-{zlib.crc32(what.encode()):08x}.pcapng"


def keep(directory: Path, what: str, about: str, captured: Captured) -> str:
    """Write a capture below a run's ``directory``, all of it or nothing; returns the file's name there.

    Raises OSError.
    """
    from lab.journal.pcapng import Writer  # it imports scapy, which is slow to load

    name = file_name(what)
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with Writer(str(partial), about, captured.interfaces) as writer:
            writer.add(sorted(captured.frames, key=lambda frame: frame.time_ns))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return name


def kept(directory: Path) -> int:
    """Number of files below a run's ``directory``."""
    return sum(1 for _ in (directory / FOLDER).glob("*.pcapng"))
