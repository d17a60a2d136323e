"""The process's side of a sender or receiver: jobs and words from stdin, answers to stdout.

One process does one job after another, so that imports and compiled code are loaded once for many trials.
"""

import json
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from lab.load.jobs import Message, TrafficError

Job = TypeVar("Job", bound=Message)


class Control:
    """What the lab says about one job: "go", and "stop".

    ``stop_flag[0]`` becomes 1 when "stop" was said or the lab has gone; a busy compiled loop looks at it.
    """

    def __init__(self) -> None:
        self.stop_flag: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self.stop_arguments: dict[str, Any] = {}
        self._started = threading.Event()
        self._stopped = threading.Event()

    def say_ready(self) -> None:
        print(json.dumps({"ready": True}), flush=True)

    def wait_for_go(self) -> None:
        """Return on "go", or when stopped before it."""
        self._started.wait()

    def wait_for_stop(self, timeout_s: float | None = None) -> bool:
        """True once "stop" was said or the lab has gone; False when the time is up first."""
        return self._stopped.wait(timeout_s)

    def go(self) -> None:
        self._started.set()

    def stop(self, arguments: dict[str, Any]) -> None:
        self.stop_arguments = arguments
        self.stop_flag[0] = 1
        self._started.set()
        self._stopped.set()


def serve(job_type: type[Job], work: Callable[[Job, Control], Message]) -> int:
    """Do each job that is asked for, and print its report or the error; returns when the lab closes stdin."""
    jobs: queue.SimpleQueue[tuple[Any, Control] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while (item := jobs.get()) is not None:
        asked, control = item
        try:
            answer = work(job_type.model_validate(asked), control).model_dump_json()
        except (ValidationError, OSError, TrafficError) as error:
            answer = json.dumps({"error": " ".join(str(error).split())})
        print(answer, flush=True)
    return 0


def _listen(jobs: queue.SimpleQueue[tuple[Any, Control] | None]) -> None:
    """Read stdin: a thread of its own, so that a word is heard while a job is being done."""
    control = Control()
    for line in sys.stdin:
        word = json.loads(line)
        if word["do"] == "job":
            control = Control()
            jobs.put((word["job"], control))
        elif word["do"] == "go":
            control.go()
        elif word["do"] == "stop":
            control.stop(word)
    control.stop({})
    jobs.put(None)
