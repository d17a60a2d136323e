"""Ctrl-C and SIGTERM during a run: the first ends it after the trial under way, the second at once.

An exception that a signal raises anywhere can end up inside a library that turns it into another error, or
between two lines that belong together. So the first signal only sets a flag, which is looked at where a run
can end. The lab's processes are in process groups of their own: a terminal's Ctrl-C does not reach them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether someone asked the run to end."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise KeyboardInterrupt when the run is to end: called where nothing is half done."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take the signals for the length of a ``with`` block."""
        before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, _number: int, _frame: Any) -> None:
        if self.asked:
            for number in SIGNALS:  # a third must not end the cleaning up
                signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt
        self.asked = True
        # Not through a buffered stream, which the signal may have interrupted.
        os.write(sys.stderr.fileno(), b"\nending after this trial; once more to end at once\n")
