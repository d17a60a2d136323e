"""The rules in force, in a file that outlives the supervisor however it ends.

A line for each change, JSON: ``{"add": [rule, …]}`` or ``{"remove": rule_id}``. What a supervisor has begun
with is the first line. A change is written before it is carried out, so that one which was answered is known
after a kill; written as far as the kernel's page cache, which a crash of the machine may take. A last line
without its end was never answered.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from forwarder.problems import Problem, shown
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.rules.notation import parse_rules

MOST_CHANGES: Final = 10_000
"""After so many the file is written anew, without the rules that came and went."""


class RuleJournal:
    """To be claimed, opened with :meth:`prepare` and :meth:`commit`, and closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(path.name + ".next")
        self._lock = -1
        self._file = -1
        self._prepared = -1
        self._length = 0
        self._changes = 0
        self._rules: Iterable[ForwardingRule] = ()
        self._stale = False
        """Whether the file holds others than those in force."""

    def claim(self) -> None:
        """Have the file for this process alone, as long as it lives; raises :class:`RulesError`."""
        lock = self._path.with_name(self._path.name + ".lock")
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise RulesError([self._problem("a file that no other supervisor uses now")]) from error
        except OSError as error:
            raise RulesError(
                [self._problem(f"a file in a directory to write to: {error.strerror}")]
            ) from error

    def read(self) -> list[ForwardingRule] | None:
        """The rules in the file, ``None`` when there is none; raises :class:`RulesError` for nonsense."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RulesError([self._problem(f"a readable file: {error.strerror}")]) from error
        rules: dict[str, Any] = {}
        *lines, rest = content.split(b"\n")
        if rest and not lines:
            # A file that a supervisor made has had its first line from the beginning.
            raise self._nonsense(1, rest, "its end is missing")
        for number, line in enumerate(lines, 1):
            try:
                _change(rules, json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise self._nonsense(number, line, repr(error)) from error
        return parse_rules(list(rules.values()))

    def prepare(self, rules: Iterable[ForwardingRule]) -> None:
        """Write a file beside the present one, for :meth:`commit`; raises OSError."""
        self._forget()
        self._prepared = os.open(self._next, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(self._prepared, _line(_addition(rules)))
        except OSError:
            self._forget()
            raise

    def commit(self, rules: Iterable[ForwardingRule]) -> None:
        """Put what was prepared in place; ``rules`` are those in force whenever they are asked for.

        Raises:
            OSError: the file is as it was; no change can be noted until it could be written anew.
        """
        self._rules, self._stale = rules, True
        self._next.replace(self._path)
        self._stale = False
        self._release()
        self._file, self._prepared = self._prepared, -1
        self._length, self._changes = os.lseek(self._file, 0, os.SEEK_CUR), 0

    def added(self, rules: Sequence[ForwardingRule]) -> tuple[Problem, ...]:
        """Rules that are about to be in force, and among them already; why that cannot be noted."""
        return self._note(_addition(rules))

    def removed(self, rule_id: str) -> tuple[Problem, ...]:
        """A rule that is about to go, and is no longer among those in force; why that cannot be noted."""
        return self._note({"remove": rule_id})

    def close(self) -> None:
        """The file stays."""
        self._forget()
        self._release()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _note(self, entry: Mapping[str, Any]) -> tuple[Problem, ...]:
        try:
            # Whoever notes a change has it among the rules by now: a new file holds it, too.
            if self._stale:
                self._write_anew()
                return ()
            line = _line(entry)
            try:
                _write(self._file, line)
            except OSError:
                os.ftruncate(self._file, self._length)
                os.lseek(self._file, self._length, os.SEEK_SET)
                raise
        except OSError as error:
            return (self._problem(f"a file that can be written: {error.strerror}"),)
        self._length += len(line)
        self._changes += 1
        if self._changes >= MOST_CHANGES:
            try:
                self._write_anew()
            except OSError:  # the long file is as good
                self._stale = False
        return ()

    def _write_anew(self) -> None:
        self.prepare(self._rules)
        self.commit(self._rules)

    def _nonsense(self, number: int, line: bytes, why: str) -> RulesError:
        found = shown(line[:60].decode(errors="replace"))
        allowed = f"a change of rules; move the file away to begin without it ({why})"
        return RulesError([Problem(f"state_file: line {number} of {self._path}", found, allowed)])

    def _problem(self, allowed: str) -> Problem:
        return Problem("state_file", str(self._path), allowed)

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _forget(self) -> None:
        """What was prepared."""
        prepared, self._prepared = self._prepared, -1
        if prepared >= 0:
            os.close(prepared)
            with suppress(OSError):  # it is written over next time
                self._next.unlink()


def _change(rules: dict[str, Any], entry: Any) -> None:
    if "remove" in entry:
        del rules[entry["remove"]]
    else:
        rules.update((rule["rule_id"], rule) for rule in entry["add"])


def _addition(rules: Iterable[ForwardingRule]) -> Mapping[str, Any]:
    return {"add": [rule.model_dump(mode="json") for rule in rules]}


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
