"""The state file: keeps the rules in force across any end of the supervisor.

It has one line of JSON for each change: ``{"add": [rule, …]}`` or ``{"remove": rule_id}``. The first line has
the rules that the supervisor began with. A change is written before it is carried out, so that a change that
was answered survives a kill; it reaches the kernel's page cache, which a crash of the machine may lose. A
last line that is incomplete was never answered.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from forwarder.problems import Problem, shown
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.rules.notation import parse_rules

MOST_CHANGES: Final = 10_000
"""After this many changes the file is written anew, without rules that were added and removed."""


class RuleStore:
    """The state file: to be claimed, opened with :meth:`prepare` and :meth:`commit`, and closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = path.with_name(path.name + ".next")
        self._lock = -1
        self._file = -1
        self._prepared = -1
        self._length = 0
        self._changes = 0
        self._rules: Iterable[ForwardingRule] = ()
        self.stale = False
        """Whether the file has other rules than those in force; the next change writes it anew then."""

    def claim(self) -> None:
        """Lock the file for this process, as long as it lives; raises :class:`RulesError`."""
        lock = self._path.with_name(self._path.name + ".lock")
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise self._refused("a file that no other supervisor uses now") from error
        except OSError as error:
            raise self._refused(f"a file in a directory to write to: {error.strerror}") from error

    def read(self) -> list[ForwardingRule] | None:
        """The rules in the file, ``None`` without a file; raises :class:`RulesError` if it cannot be read."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(f"a readable file: {error.strerror}") from error
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
        """Write rules to a file beside the present one, for :meth:`commit`; raises OSError."""
        self.discard()
        self._prepared = os.open(self._next, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(self._prepared, _line(_addition(rules)))
        except OSError:
            self.discard()
            raise

    def commit(self, rules: Iterable[ForwardingRule]) -> None:
        """Put the prepared file in place; ``rules`` yields the rules in force whenever it is iterated.

        Raises OSError: the file is as it was; the next change must write it anew.
        """
        self._rules, self.stale = rules, True
        self._next.replace(self._path)
        self.stale = False
        self._release()
        self._file, self._prepared = self._prepared, -1
        self._length, self._changes = os.lseek(self._file, 0, os.SEEK_CUR), 0

    def added(self, rules: Sequence[ForwardingRule]) -> None:
        """Write that rules are added, which are among those in force already; raises :class:`RulesError`."""
        self._append([_addition(rules)], self._rules)

    def removed(self, rule_ids: Collection[str]) -> None:
        """Write that rules are about to be removed from those in force; raises :class:`RulesError`."""
        gone = set(rule_ids)
        kept = (rule for rule in self._rules if rule.rule_id not in gone)
        self._append([{"remove": rule_id} for rule_id in rule_ids], kept)

    def discard(self) -> None:
        """Delete a prepared file."""
        prepared, self._prepared = self._prepared, -1
        if prepared >= 0:
            os.close(prepared)
            with suppress(OSError):  # it is overwritten next time
                self._next.unlink()

    def close(self) -> None:
        """Unlock the file, which stays."""
        self.discard()
        self._release()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _append(self, entries: Sequence[Mapping[str, Any]], rules: Iterable[ForwardingRule]) -> None:
        """Append a change, after which ``rules`` are in force, or write the file anew with them."""
        lines = b"".join(map(_line, entries))
        try:
            if self.stale:
                self._rewrite(rules)
                return
            try:
                _write(self._file, lines)
            except OSError:
                os.ftruncate(self._file, self._length)
                os.lseek(self._file, self._length, os.SEEK_SET)
                raise
        except OSError as error:
            raise self._refused(f"a file that can be written: {error.strerror}") from error
        self._length += len(lines)
        self._changes += len(entries)
        if self._changes >= MOST_CHANGES:
            with suppress(OSError):  # the long file is as good
                self._rewrite(rules)
            self.stale = False

    def _rewrite(self, rules: Iterable[ForwardingRule]) -> None:
        self.prepare(rules)
        self.commit(self._rules)

    def _nonsense(self, number: int, line: bytes, why: str) -> RulesError:
        found = shown(line[:60].decode(errors="replace"))
        allowed = f"a change of rules; move the file away to begin without it ({why})"
        return RulesError([Problem(f"state_file: line {number} of {self._path}", found, allowed)])

    def _refused(self, allowed: str) -> RulesError:
        return RulesError([Problem("state_file", str(self._path), allowed)])

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


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
