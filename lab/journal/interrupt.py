"""Ctrl-C and SIGTERM during a run: the first ends it after the current trial, the second at once.

An exception raised by a signal handler can surface inside a library that turns it into another error, or
between two statements that belong together. So the first signal only sets a flag, which is checked where a
run can end. The lab's processes are in process groups of their own: a terminal's Ctrl-C does not reach them.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether the user asked the run to end."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run is to end. Call it where nothing is half done."""
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals during the ``with`` block."""
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if self.requested:
            for number in SIGNALS:  # a third signal must not stop the clean-up
                signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt
        self.requested = True
        # Not through a buffered stream, which the signal may have interrupted.
        os.write(sys.stderr.fileno(), b"\nending after this trial; once more to end at once\n")
