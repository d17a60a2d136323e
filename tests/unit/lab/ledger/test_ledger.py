"""Booking: each drop once, and what does not add up stays visible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forwarder.engines.packet import schema
from lab.ledger.ledger import ABSENT, BACKLOG_OUT, REFUSED, Account, Outside, build, direct, doubts, ended
from lab.measure.network import read_received, read_waiting
from lab.peers.mcrd import EGRESS_REASONS, account_of
from lab.results import Ledger


def counts(ledger: Ledger) -> dict[tuple[str, str], int]:
    return {(drop.place, drop.reason): drop.count for drop in (*ledger.ingress.drops, *ledger.egress.drops)}


def outside(**changes: int | bool) -> Outside:
    values = {"offered": 0, "input_dropped": 0, "output_dropped": 0, "receiver_dropped": 0, "arrived": 0}
    return Outside(**{**values, **changes})  # type: ignore[arg-type]


def test_every_datagram_and_every_copy_is_booked() -> None:
    account = Account(90, 180, ingress={("forwarder", "no_rule"): 7}, egress={("forwarder", "too_big"): 5})
    ledger = build(account, outside(offered=100, input_dropped=3, receiver_dropped=1, arrived=174))
    assert ledger.balanced
    elsewhere = {("softnet", "input backlog full"): 3, ("receiver", "capture ring full"): 1}
    assert counts(ledger) == {**account.ingress, **account.egress, **elsewhere}


def test_what_is_missing_stays_visible_and_is_said() -> None:
    ledger = build(Account(matched=90, copies_due=90), outside(offered=100, arrived=88))
    assert (ledger.ingress.unattributed, ledger.egress.unattributed) == (10, 2)
    assert doubts(ledger) == [
        "ingress: 10 of 100 datagrams unaccounted for",
        "egress: 2 of 90 copies unaccounted for",
    ]


def test_what_is_counted_twice_is_a_doubt_too() -> None:
    ledger = build(Account(matched=10, copies_due=10), outside(offered=10, arrived=11))
    assert doubts(ledger) == ["egress: 1 of 10 copies counted twice"]


def test_a_drop_that_device_and_forwarder_both_saw_is_booked_once() -> None:
    account = Account(matched=100, copies_due=100, egress={REFUSED: 4})
    ledger = build(account, outside(offered=100, output_dropped=4, arrived=96))
    assert ledger.balanced
    assert counts(ledger) == {BACKLOG_OUT: 4}


def test_a_refusal_that_no_device_saw_is_booked_as_such() -> None:
    account = Account(matched=100, copies_due=100, egress={REFUSED: 4})
    ledger = build(account, outside(offered=100, output_dropped=1, arrived=95))
    assert ledger.balanced
    assert counts(ledger) == {BACKLOG_OUT: 1, REFUSED: 4}


def test_with_offloads_on_the_forwarders_count_is_used_because_a_device_counts_frames() -> None:
    account = Account(matched=100, copies_due=100, egress={REFUSED: 64})
    ledger = build(account, outside(offered=100, output_dropped=1, arrived=36, device_counts_datagrams=False))
    assert ledger.balanced
    assert counts(ledger) == {REFUSED: 64}


def test_an_account_grows_by_the_difference_of_its_totals() -> None:
    earlier = Account(10, 20, {("forwarder", "no_rule"): 3}, {REFUSED: 1})
    later = Account(15, 30, {("forwarder", "no_rule"): 3, ("forwarder", "fragment"): 2}, {REFUSED: 4})
    grown = later.since(earlier)
    assert (grown.matched, grown.copies_due) == (5, 10)
    assert grown.ingress == {("forwarder", "no_rule"): 0, ("forwarder", "fragment"): 2}
    assert grown.egress == {REFUSED: 3}


def test_an_account_is_complete_when_nothing_is_left_to_come() -> None:
    account = Account(matched=5, copies_due=40, ingress={("forwarder", "no_rule"): 2})
    assert account.accounts_for(7)
    assert not account.accounts_for(8)
    assert not replace(account, pending=1).accounts_for(7)


def test_each_worker_that_gets_every_datagram_has_an_account_of_its_own() -> None:
    """Two workers, 100 datagrams, 3 dropped before either: 194 are theirs, and each loses its own."""
    account = Account(matched=190, copies_due=190, ingress={("packet-socket", "ring full"): 4})
    ledger = build(account, outside(offered=100, input_dropped=3, receivers=2, arrived=190))
    assert ledger.balanced
    assert (ledger.ingress.entered, ledger.egress.left) == (200, 190)
    assert counts(ledger)["softnet", "input backlog full"] == 6


def test_the_forwarder_has_no_other_reasons_for_copies() -> None:
    assert set(schema.EGRESS_REASONS) == EGRESS_REASONS


def test_the_generator_alone_has_a_ledger_too() -> None:
    assert direct(outside(offered=100, input_dropped=3, receiver_dropped=2, arrived=95)).balanced
    assert not direct(outside(offered=100, input_dropped=3, arrived=95)).balanced


@pytest.mark.parametrize("reason", sorted(EGRESS_REASONS))
def test_mcrds_reasons_for_copies_are_booked_on_the_way_out(reason: str) -> None:
    totals = {"matched": 5, "pending": 6, "dropped": {reason: 2, "no_rule": 1}}
    interfaces = [{"kernel_drops": 3}, {"kernel_drops": 4}]
    account = account_of({"totals": totals, "interfaces": interfaces}, outputs_per_rule=8)
    assert (account.copies_due, account.pending) == (40, 6)
    assert sum(account.egress.values()) == 2
    assert account.ingress == {("packet-socket", "ring full"): 7, ("forwarder", "no_rule"): 1}


def test_what_the_driver_dropped_early_is_booked_on_the_way_in_and_nothing_where_it_is_unknown() -> None:
    stats = {"totals": {"matched": 5, "pending": 0, "dropped": {}}}
    interfaces = [{"kernel_drops": 3, "early_drops": 4}, {"kernel_drops": 0, "early_drops": 5}]
    account = account_of({**stats, "interfaces": interfaces}, outputs_per_rule=1)
    assert account.ingress == {("packet-socket", "ring full"): 3, ("xdp", "dropped early"): 9}
    assert build(account, outside(offered=17, arrived=5)).balanced
    of_old = account_of({**stats, "interfaces": [{"kernel_drops": 3}]}, outputs_per_rule=1)
    assert of_old.ingress == {("packet-socket", "ring full"): 3}


def test_with_bursts_in_one_frame_what_is_lost_on_the_way_in_is_counted_in_datagrams() -> None:
    """1,600 datagrams in 100 frames: 3 frames in the backlog, 7 in a ring."""
    account = Account(matched=1440, copies_due=1440, ingress={("packet-socket", "ring full"): 7})
    ledger = build(account, outside(offered=1600, input_dropped=3, arrived=1440, frame_datagrams=16))
    assert ledger.balanced
    assert counts(ledger) == {("softnet", "input backlog full"): 48, ("packet-socket", "ring full"): 112}


@pytest.mark.parametrize(("open_copies", "unattributed"), [(2, 0), (128, 0), (129, 1), (1, -1)])
def test_frames_that_a_receiver_lost_held_as_many_datagrams_as_a_frame_can(
    open_copies: int, unattributed: int
) -> None:
    """Two frames, each of 1 to 64 copies: what is open beyond that was lost elsewhere."""
    account = Account(matched=500, copies_due=500)
    arrived = 500 - open_copies
    seen = outside(offered=500, arrived=arrived, receiver_dropped=2, device_counts_datagrams=False)
    seen = replace(seen, frame_datagrams_max=64)
    assert build(account, seen).egress.unattributed == unattributed


def test_what_a_subject_had_when_it_ended_went_with_it() -> None:
    ledger = ended(outside(offered=100, input_dropped=4, arrived=50, output_dropped=3), 2, "socat")
    assert ledger.balanced
    assert counts(ledger) == {("softnet", "input backlog full"): 4, ("socat", "ended"): 139, BACKLOG_OUT: 3}


def test_what_waits_in_the_backlogs_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    line = "205bdf28 00000001 00000038 0 0 0 0 0 0 000843f0 00000000 {:08x} {:08x} 00000009 00000003"
    (tmp_path / "softnet_stat").write_text(f"{line.format(12, 0)}\n{line.format(300, 3)}\n")
    assert read_waiting(tmp_path / "softnet_stat") == 312
    assert read_received(tmp_path / "softnet_stat") == {0: 0x205BDF28, 3: 0x205BDF28}


def test_what_came_while_a_subject_was_restarted_is_booked_as_that_and_only_then() -> None:
    before = Account(matched=40, copies_due=40, ingress={("forwarder", "no_rule"): 2}, egress={REFUSED: 1})
    after = Account(matched=10, copies_due=10, ingress={("forwarder", "no_rule"): 1}, pending=3)
    whole = after.with_past(before)
    assert whole == Account(50, 50, {("forwarder", "no_rule"): 3}, {REFUSED: 1}, 3, absences=1)
    assert whole.since(before) == Account(10, 10, {("forwarder", "no_rule"): 1}, {REFUSED: 0}, 3, absences=1)
    met = build(whole, outside(offered=100, input_dropped=5, arrived=49))
    assert met.balanced
    assert counts(met)[ABSENT] == 100 - 50 - 3 - 5
    present = build(replace(whole, absences=0), outside(offered=100, input_dropped=5, arrived=49))
    assert ABSENT not in counts(present)
    assert doubts(present) == ["ingress: 42 of 100 datagrams unaccounted for"]
