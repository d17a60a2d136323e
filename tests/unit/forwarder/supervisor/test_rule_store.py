"""Rules that are kept in a file are there again, whatever ended the one that kept them."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.rules.notation import parse_rules
from forwarder.supervisor import rule_store
from forwarder.supervisor.rule_store import RuleStore


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


def opened(path: Path, *numbers: int) -> tuple[RuleStore, RuleBook]:
    store, book = RuleStore(path), RuleBook(rules(*numbers))
    store.prepare(book)
    store.commit(book)
    return store, book


def test_what_was_noted_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert RuleStore(path).read() is None
    store, _ = opened(path, 1, 2)
    store.added(rules(3, 4))
    store.removed(["r1"])
    assert RuleStore(path).read() == rules(2, 3, 4)
    store.prepare(rules(9))
    assert RuleStore(path).read() == rules(2, 3, 4), "what is prepared is not in force"
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_without_its_end_was_never_answered_and_other_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store, _ = opened(path, 1)
    store.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert RuleStore(path).read() == rules(1)
    for nonsense in (b"{}", b"[]", b"\xff", b'{"remove": "r7"}', b'{"add": 3}'):
        path.write_bytes(whole + nonsense + b"\n")
        with pytest.raises(RulesError, match=r"line 2 of .*state"):
            RuleStore(path).read()


def test_a_file_without_one_whole_line_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"somebody's")
    with pytest.raises(RulesError, match=r"line 1 of .*state.*somebody's"):
        RuleStore(path).read()
    path.write_bytes(b"")
    assert RuleStore(path).read() == []


def test_while_the_file_holds_other_rules_a_change_is_refused_or_noted_with_all_of_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state"
    store, _ = opened(path, 1)
    taken_over = RuleBook(rules(2))
    store.prepare(taken_over)
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        store.commit(taken_over)
    for _ in range(2):
        with pytest.raises(RulesError, match="state_file"):
            store.removed(["r2"])
    # What was prepared cannot be taken away, nor made anew.
    (tmp_path / "state.next").unlink()
    (tmp_path / "state.next").mkdir()
    for _ in range(3):
        with pytest.raises(RulesError, match="Is a directory"):
            store.removed(["r2"])
    (tmp_path / "state.next").rmdir()
    path.rmdir()
    (tmp_path / "elsewhere").rename(path)
    assert RuleStore(path).read() == rules(1)
    taken_over.add(rules(3))
    store.added(rules(3))
    assert RuleStore(path).read() == rules(2, 3)
    store.removed(["r2"])
    assert RuleStore(path).read() == rules(3)
    store.close()


def test_many_changes_do_not_make_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_store, "MOST_CHANGES", 10)
    path = tmp_path / "state"
    store, book = opened(path, 1)
    for _ in range(50):
        book.add(rules(2))
        store.added(rules(2))
        assert RuleStore(path).read() == [*rules(1), *rules(2)]
        store.removed(["r2"])
        book.remove("r2")
        assert RuleStore(path).read() == rules(1)
    assert len(path.read_bytes().splitlines()) <= 11
    store.close()


def test_a_full_disk_refuses_the_change_and_leaves_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store, _ = opened(path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
        with pytest.raises(RulesError) as refused:
            store.added(rules(2))
        (problem,) = refused.value.problems
        assert (problem.field, problem.value) == ("state_file", str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    store.added(rules(3))
    assert RuleStore(path).read() == rules(1, 3)
    store.close()


def test_a_file_that_is_to_be_rewritten_has_the_rules_in_force_after_the_next_change(tmp_path: Path) -> None:
    path = tmp_path / "state"
    store, book = opened(path, 1)
    store.added(rules(2))  # and does not come into force after all
    store.stale = True
    assert RuleStore(path).read() == rules(1, 2)
    book.add(rules(3))
    store.added(rules(3))
    assert RuleStore(path).read() == rules(1, 3)
    store.stale = True
    store.removed(["r1", "r3"])
    assert RuleStore(path).read() == []
    store.close()
