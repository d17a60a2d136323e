"""The frames around a failure: the trial again, with a capture, and the file that keeps them.

A capture that is always on would change what is measured, so a trial is repeated. The frames are those of its
last part, as many as fit, so that they come from the load that the trial was under; or of all of it. Whether
the repeat failed, too, is said with them.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab.journal import evidence
from lab.load.flows import Request
from lab.measure.capture import capturing
from lab.results import Frames, Trial
from lab.trial.bench import Bench

REPEAT_S = 2.0
"""A longer trial is repeated for so long."""
ROOM = 0.8
"""The share of a capture's frames that the last part of a trial is expected to fill."""


def of_repeat(
    directory: Path, bench: Bench, request: Request, dps: float, failed: Callable[[Trial], bool]
) -> Frames:
    """Repeat a trial, and keep the frames below ``directory``.

    Args:
        dps: datagrams/s that were offered.
        failed: whether the repeat fails as the trial did.

    Raises:
        PeerError, TrafficError, NetnsError: the trial cannot be repeated.
    """
    if why := _refused(directory):
        return why
    if not request.phases:
        request = replace(request, seconds=min(request.seconds, REPEAT_S))
    with capturing(bench.lab) as capture:
        before = untaken_s(request.seconds, dps, capture.frames_max)
        if not before:
            capture.begin()

        def begin_late() -> None:
            time.sleep(before)
            capture.begin()

        trial = bench.measure(request, begin_late if before else None)
        captured = capture.take()
    return kept(directory, request.trial_id, described(request.seconds, before, failed(trial)), captured)


def kept(directory: Path, what: str, about: str, captured: evidence.Captured) -> Frames:
    """Write a capture of ``what``, an id, below ``directory``."""
    if why := _refused(directory):
        return why
    if not captured.frames:
        return Frames(file=None, what=f"{about}: none were seen")
    try:
        file = evidence.keep(directory, what, f"{what}: {about}", captured)
    except OSError as error:
        return Frames(file=None, what=f"they could not be written: {error}")
    return Frames(file=file, what=about)


def untaken_s(seconds: float, dps: float, frames: int) -> float:
    """For how long a trial must run before the rest of it fits into a capture of ``frames`` an interface."""
    return max(0.0, seconds - frames * ROOM / dps) if dps else 0.0


def described(seconds: float, before_s: float, failed: bool) -> str:
    """What the frames of a repeat are, in words."""
    part = f"the last {(seconds - before_s) * 1000:,.0f} ms" if before_s else "all"
    outcome = "failed, too" if failed else "did not fail"
    return f"{part} of a repeat of the trial for {seconds:g} s, which {outcome}"


def _refused(directory: Path) -> Frames | None:
    if evidence.kept(directory) < evidence.FILES_MAX:
        return None
    return Frames(file=None, what=f"this run has {evidence.FILES_MAX} files of them already")
