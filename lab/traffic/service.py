"""The process's side of a sender or receiver: the job from stdin, the answers to stdout, words in between."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from lab.traffic.jobs import Message, TrafficError

Job = TypeVar("Job", bound=Message)


class Inbox:
    """Words from the lab, read by a thread so that a busy compiled loop can be told to stop.

    ``stop_flag[0]`` becomes 1 when "stop" was said or the lab has gone.
    """

    def __init__(self) -> None:
        self.stop_flag: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self.stop_arguments: dict[str, Any] = {}
        self._started = threading.Event()
        self._stopped = threading.Event()
        self._gone = False

    def say_ready(self) -> None:
        """Tell the lab that we can start, and listen from now on."""
        print(json.dumps({"ready": True}), flush=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for_go(self) -> None:
        """Return on "go"; :class:`TrafficError` when the lab has gone instead."""
        self._started.wait()
        if self._gone:
            raise TrafficError("the lab has gone")

    def wait_for_stop(self, timeout_s: float | None = None) -> bool:
        """True once "stop" was said or the lab has gone; False when the time is up first."""
        return self._stopped.wait(timeout_s)

    def _listen(self) -> None:
        for line in sys.stdin:
            word = json.loads(line)
            if word["do"] == "go":
                self._started.set()
            else:
                self.stop_arguments = word
                self._stop()
                return
        self._gone = not self._started.is_set()
        self._stop()

    def _stop(self) -> None:
        self.stop_flag[0] = 1
        self._started.set()
        self._stopped.set()


def serve(job_type: type[Job], work: Callable[[Job, Inbox], Message]) -> int:
    """Read the job, run ``work``, print its report or the error; returns the exit status."""
    try:
        job = job_type.model_validate_json(sys.stdin.readline())
        answer = work(job, Inbox()).model_dump_json()
    except (ValidationError, OSError, TrafficError) as error:
        answer = json.dumps({"error": " ".join(str(error).split())})
        print(answer, flush=True)
        return 1
    print(answer, flush=True)
    return 0
