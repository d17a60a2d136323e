"""The lab's side of a sender or receiver: start it in a namespace, speak JSON lines with it.

A process is ready when it says so, and has failed when it says that or ends.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from typing import Any, Generic, TypeVar

from lab import netns
from lab.traffic.jobs import Message, TrafficError

Report = TypeVar("Report", bound=Message)


class Process(Generic[Report]):
    """A running sender or receiver; leaving its ``with`` block kills it if it still runs."""

    def __init__(self, namespace: str, module: str, job: Message, report: type[Report]) -> None:
        self._name = f"{module} in {namespace}"
        self._report_type = report
        self._report: Report | None = None
        self._buffer = b""
        self._process: subprocess.Popen[bytes] = netns.spawn(
            namespace,
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._write(job.model_dump_json())

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self, timeout_s: float = 60) -> None:
        """Return once the process has compiled, opened its sockets and can start at once."""
        answer = self._read(timeout_s)
        if answer.get("ready") is not True:
            raise TrafficError(f"{self._name}: expected to be ready, said {answer}")

    def tell(self, word: str, **arguments: Any) -> None:
        self._write(json.dumps({"do": word, **arguments}))

    def report(self, timeout_s: float = 120) -> Report:
        """The report, once; the process ends after it."""
        if self._report is None:
            self._report = self._report_type.model_validate(self._read(timeout_s))
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise TrafficError(f"{self._name}: still runs {timeout_s:g} s after its report") from error
        return self._report

    def close(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:  # words that a killed process never read
                    continue

    def __enter__(self) -> Process[Report]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise TrafficError(f"{self._name} has ended: {self._last_words()}") from None

    def _read(self, timeout_s: float) -> dict[str, Any]:
        """The next line of the process, which must not be an error."""
        assert self._process.stdout
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TrafficError(f"{self._name}: no answer within {timeout_s:g} s")
            received = self._process.stdout.read1(1 << 20)  # type: ignore[attr-defined]
            if not received:
                raise TrafficError(f"{self._name} has ended: {self._last_words()}")
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise TrafficError(f"{self._name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        _, errors = self._process.communicate()
        words = errors.decode(errors="replace").strip().splitlines()
        return words[-1] if words else f"status {self._process.returncode}"
