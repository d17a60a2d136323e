"""Rules that are kept in a file are there again, whatever ended the one that kept them."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.rules.notation import parse_rules
from forwarder.supervisor import rule_store as rule_journal
from forwarder.supervisor.rule_store import RuleJournal


def rules(*numbers: int) -> list[ForwardingRule]:
    return parse_rules(
        [
            {
                "rule_id": f"r{number}",
                "input_interface": "in0",
                "input_group": f"239.1.1.{number}",
                "input_port": 5001,
                "outputs": [{"group": f"239.2.1.{number}", "port": 5001, "interface": "out0"}],
            }
            for number in numbers
        ]
    )


def opened(path: Path, *numbers: int) -> tuple[RuleJournal, RuleBook]:
    journal, book = RuleJournal(path), RuleBook(rules(*numbers))
    journal.prepare(book)
    journal.commit(book)
    return journal, book


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert RuleJournal(path).read() is None
    journal, _ = opened(path, 1, 2)
    assert journal.added(rules(3, 4)) == journal.removed("r1") == ()
    assert RuleJournal(path).read() == rules(2, 3, 4)
    journal.prepare(rules(9))
    assert RuleJournal(path).read() == rules(2, 3, 4), "what is prepared is not in force"
    journal.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_without_its_end_was_never_answered_and_other_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    journal, _ = opened(path, 1)
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert RuleJournal(path).read() == rules(1)
    for nonsense in (b"{}", b"[]", b"\xff", b'{"remove": "r7"}', b'{"add": 3}'):
        path.write_bytes(whole + nonsense + b"\n")
        with pytest.raises(RulesError, match=r"line 2 of .*state"):
            RuleJournal(path).read()


def test_a_file_without_one_whole_line_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"somebody's")
    with pytest.raises(RulesError, match=r"line 1 of .*state.*somebody's"):
        RuleJournal(path).read()
    path.write_bytes(b"")
    assert RuleJournal(path).read() == []


def test_while_the_file_holds_other_rules_a_change_is_refused_or_noted_with_all_of_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state"
    journal, _ = opened(path, 1)
    taken_over = RuleBook(rules(2))
    journal.prepare(taken_over)
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        journal.commit(taken_over)
    for _ in range(2):
        (problem,) = journal.removed("r2")
        assert problem.field == "state_file"
    # What was prepared cannot be taken away, nor made anew.
    (tmp_path / "state.next").unlink()
    (tmp_path / "state.next").mkdir()
    for _ in range(3):
        (problem,) = journal.removed("r2")
        assert "Is a directory" in problem.allowed
    (tmp_path / "state.next").rmdir()
    path.rmdir()
    (tmp_path / "elsewhere").rename(path)
    assert RuleJournal(path).read() == rules(1)
    taken_over.add(rules(3))
    assert journal.added(rules(3)) == ()
    assert RuleJournal(path).read() == rules(2, 3)
    taken_over.remove("r2")
    assert journal.removed("r2") == ()
    assert RuleJournal(path).read() == rules(3)
    journal.close()


def test_many_changes_do_not_make_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_journal, "MOST_CHANGES", 10)
    path = tmp_path / "state"
    journal, book = opened(path, 1)
    for _ in range(50):
        book.add(rules(2))
        assert journal.added(rules(2)) == ()
        assert RuleJournal(path).read() == [*rules(1), *rules(2)]
        book.remove("r2")
        assert journal.removed("r2") == ()
        assert RuleJournal(path).read() == rules(1)
    assert len(path.read_bytes().splitlines()) <= 11
    journal.close()


def test_a_full_disk_refuses_the_change_and_leaves_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    journal, _ = opened(path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
        (problem,) = journal.added(rules(2))
        assert (problem.field, problem.value) == ("state_file", str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.added(rules(3)) == ()
    assert RuleJournal(path).read() == rules(1, 3)
    journal.close()
