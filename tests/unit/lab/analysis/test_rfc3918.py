"""Delays, membership reports, two classes of traffic in one load: the arithmetic behind RFC 3918's tests."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert
from scapy.layers.l2 import Ether

from lab.analysis.delay import Arrival, Change, Seen, delays, reported
from lab.analysis.igmp import membership
from lab.ledger.ledger import Account, Outside, build
from lab.ledger.ledger import mixed as beside_unicast
from lab.load import mixed_traffic as mixed
from lab.load.flows import Request as Asked
from lab.load.flows import receiver_job, sender_job, streams_of
from lab.load.stream_order import order
from lab.results import Setting
from lab.scenario.files import ScenarioError, load_scenarios, parse_scenario
from lab.steps.kinds.delay import DelayStep
from lab.steps.kinds.group_capacity import GroupCapacityStep
from lab.steps.kinds.latency import LatencyStep
from lab.steps.plan import steps
from reports.tables.rfc3918 import percentile

# ------------------------------------------------------------------------------------------------- delays

INTERVAL_NS = 100


def stream(*spans: tuple[int, int], late_ns: int = 5) -> list[Arrival]:
    """Datagrams sent each 100 ns from 0; those sent within a span arrive."""
    return [
        Arrival(sent + late_ns, sent // INTERVAL_NS, sent)
        for first, last in spans
        for sent in range(0, 10_000, INTERVAL_NS)
        if first <= sent <= last
    ]


CHANGES = (
    Change("add", 1000, 1300),
    Change("remove", 2000, 2200),
    Change("add", 4000, 4100),
    Change("remove", 5000, 5050),
)


def test_a_delay_is_from_the_request_to_the_first_datagram_and_to_the_last() -> None:
    seen = delays(CHANGES, stream((1250, 2100), (4000, 4950)), INTERVAL_NS)
    assert seen == Seen(joins=(305, 5), leaves=(105, 0), joins_missed=0, leaves_missed=0, gaps=0, held_back=0)


def test_what_never_came_or_never_ceased_is_missed() -> None:
    nothing = delays(CHANGES, stream((4100, 5000)), INTERVAL_NS)
    assert (nothing.joins, nothing.joins_missed, nothing.leaves_missed) == ((105,), 1, 1)
    for_ever = delays(CHANGES, stream((1000, 3900), (4000, 5000)), INTERVAL_NS)
    assert (len(for_ever.joins), for_ever.leaves, for_ever.leaves_missed) == (2, (5,), 1)
    too_late = delays(CHANGES, stream((2000, 2500), (4000, 4900)), INTERVAL_NS)
    assert (too_late.joins, too_late.joins_missed) == ((5,), 1)


def test_a_stream_that_had_stopped_before_says_nothing_of_the_leave() -> None:
    stalled = delays(CHANGES, stream((1250, 1500), (4100, 5000)), INTERVAL_NS)
    assert (len(stalled.joins), len(stalled.leaves), stalled.leaves_missed) == (2, 1, 1)


def test_lost_between_and_held_back_are_counted() -> None:
    arrivals = stream((1200, 1500), (1800, 2000), (4100, 5000))
    held_back = [Arrival(1150, 3, 300), Arrival(1160, 4, 400)]
    seen = delays(CHANGES, sorted([*arrivals, *held_back], key=lambda each: each.time_ns), INTERVAL_NS)
    assert (seen.gaps, seen.held_back) == (2, 2)
    assert seen.joins[0] == 150


def test_a_report_counts_for_the_request_before_it() -> None:
    reports = [
        (1100, "join"),
        (1900, "join"),
        (2100, "leave"),
        (2600, "leave"),
        (4600, "leave"),
        (5600, "leave"),
    ]
    assert reported(CHANGES, reports, "add") == ((100,), 1)  # type: ignore[arg-type]
    assert reported(CHANGES, reports, "remove") == ((100, 600), 0)  # type: ignore[arg-type]


def test_percentiles_are_values_that_were_seen() -> None:
    values = list(range(1, 201))
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (100, 198, 200)
    assert percentile([7], 0.99) == 7


# ----------------------------------------------------------------------------------------------- reports


def report(message: bytes) -> bytes:
    """An IGMP message as a host sends it, with the router alert option."""
    option = IPOption_Router_Alert()
    return bytes(Ether() / IP(src="10.10.0.2", dst="224.0.0.22", proto=2, options=[option]) / message)


def v3(*records: tuple[int, str, list[str]]) -> bytes:
    """RFC 3376, section 4.2: type, reserved, checksum, reserved, number of records; then the records."""
    message = bytes([0x22, 0, 0, 0, 0, 0, 0, len(records)])
    for kind, group, sources in records:
        message += bytes([kind, 0, 0, len(sources)]) + IPv4Address(group).packed
        message += b"".join(IPv4Address(source).packed for source in sources)
    return report(message)


def old(kind: int, group: str) -> bytes:
    """Versions 1 and 2 (RFC 2236, section 2)."""
    return report(bytes([kind, 0, 0, 0]) + IPv4Address(group).packed)


def test_membership_is_read_from_reports_of_every_version() -> None:
    several = v3(
        (4, "239.1.0.1", []), (3, "239.1.0.2", []), (2, "239.1.0.3", []), (4, "239.1.0.4", ["10.0.0.1"])
    )
    said = [(word, str(group)) for word, group in membership(several)]
    assert said == [("join", "239.1.0.1"), ("leave", "239.1.0.2")]
    for kind, word in ((0x12, "join"), (0x16, "join"), (0x17, "leave")):
        assert list(membership(old(kind, "239.1.0.9"))) == [(word, IPv4Address("239.1.0.9"))]


def test_what_is_no_report_or_cut_short_says_nothing() -> None:
    query = old(0x11, "0.0.0.0")
    datagram = bytes(Ether() / IP(dst="239.1.0.1") / UDP() / b"x")
    whole = v3((4, "239.1.0.1", []), (4, "239.1.0.2", []))
    assert not [*membership(query), *membership(datagram), *membership(b"")]
    assert len(list(membership(whole))) == 2
    for length in range(len(whole)):
        assert len(list(membership(whole[:length]))) <= 1


# ------------------------------------------------------------------------------------ unicast in the load


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 95])
@pytest.mark.parametrize(("flows", "outputs"), [(1, 1), (4, 2), (10, 3)])
def test_the_share_of_unicast_is_exact_in_every_turn(percent: int, flows: int, outputs: int) -> None:
    setting = Setting(payload_bytes=64, flows=flows, rules=flows, outputs=outputs, unicast_percent=percent)
    streams = streams_of(setting)
    unicast = [each for each in streams if each.mac is not None]
    assert [each.stream_id for each in unicast] == list(range(flows, flows + outputs))
    assert [str(each.group) for each in unicast] == [f"10.20.{number}.2" for number in range(outputs)]
    turn = order([each.share for each in streams])
    assert sum(turn >= flows) * 100 == percent * len(turn)


def test_half_and_half_alternate_as_the_rfc_asks() -> None:
    streams = streams_of(Setting(payload_bytes=64, flows=4, rules=4, outputs=2, unicast_percent=50))
    turn = list(order([each.share for each in streams]))
    assert [number >= 4 for number in turn] in ([False, True] * 4, [True, False] * 4)
    assert sorted(turn) == [0, 1, 2, 3, 4, 4, 5, 5]


def test_unicast_is_due_at_one_output_and_multicast_at_all() -> None:
    setting = Setting(payload_bytes=64, outputs=2, unicast_percent=50)
    request = Asked("t", "s", "c", setting, "fixed", 1000, 1.0)
    job = receiver_job(request, ["r0", "r1"], 1500, direct=False)
    assert job.unicast
    assert {(flow.interface, flow.stream_id) for flow in job.flows} == {
        ("r0", 0),
        ("r1", 0),
        ("r0", 1),
        ("r1", 2),
    }
    assert mixed.due(setting, [500, 250, 250], 2) == 1500
    assert mixed.with_unicast(10_000, 90) == 100_000
    assert sum(each.share for each in sender_job(request, 0).streams) == 4


def test_the_ledger_closes_over_both_classes() -> None:
    """Of 1,000, half unicast, the backlog drops 30; the ring has no room for 40, 15 of them unicast."""
    ring = {
        ("packet-socket", "ring full"): 40,
        ("forwarder", "not_multicast"): 475,
        ("forwarder", "no_rule"): 1,
    }
    account = Account(matched=454, copies_due=908, ingress=ring)
    # Routed: 490 of 500, of which the subject has seen 475 as not multicast.
    outside = Outside(1000, 30, 5, 0, arrived=908 + 490 - 5)
    ledger = build(beside_unicast(account, 490), outside)
    assert ledger.balanced
    assert {drop.reason: drop.count for drop in ledger.ingress.drops} == {
        "ring full": 25, "no_rule": 1, "input backlog full": 30,
    }  # fmt: skip
    in_kernel = beside_unicast(Account(matched=480, copies_due=960, ingress={}), 490)
    assert build(in_kernel, Outside(1000, 30, 0, 0, arrived=1450)).balanced


# ---------------------------------------------------------------------------------------------- scenarios

GOOD = """
name = "probes"
title = "Probes"
rfc3918 = ["5.1", "6.1"]
subjects = ["mcrd", "kernel"]
[setting]
outputs = 2
[[case]]
name = "plain"
measure = ["zero-loss"]
[[case]]
name = "mixed"
unicast_percent = 50
[[latency]]
cases = ["plain"]
shares = [0.5, 1.0]
[[delay]]
subjects = ["kernel"]
[[capacity]]
cases = ["plain"]
groups = [10, 100]
[profile.quick]
repetitions = 7
"""


def test_each_table_makes_a_step_for_its_cases_and_subjects() -> None:
    planned = steps([parse_scenario(GOOD, "x.toml")], "quick")
    made = [step for step in planned if isinstance(step, LatencyStep | DelayStep | GroupCapacityStep)]
    assert [step.step_id for step in made] == [
        "probes/plain/mcrd/latency-1",
        "probes/plain/kernel/latency-1",
        "probes/plain/kernel/delay-1",
        "probes/plain/mcrd/capacity-1",
        "probes/plain/kernel/capacity-1",
        "probes/mixed/kernel/delay-1",
    ]
    assert made[2].profile.repetitions == 7
    assert made[-1].setting.unicast_percent == 50
    capacity = made[3]
    assert isinstance(capacity, GroupCapacityStep)
    assert (capacity.setting_of(100).rules, capacity.setting_of(100).flows) == (100, 100)
    assert all(step.seconds > 0 for step in made)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("groups = [10, 100]", "groups = [100, 10]"), "capacity[0]"),
        (("groups = [10, 100]", "groups = []"), "capacity[0].groups"),
        (('cases = ["plain"]\ngroups', 'cases = ["mixed"]\ngroups'), "capacity[0].cases"),
        (('cases = ["plain"]\nshares', 'cases = ["mixed"]\nshares'), "latency[0].shares"),
        (("shares = [0.5, 1.0]", "shares = [1.5]"), "latency[0].shares[0]"),
        (("shares = [0.5, 1.0]", ""), "latency[0]"),
        (('subjects = ["kernel"]', 'subjects = ["socat"]'), "delay[0].subjects"),
        (('subjects = ["kernel"]', 'cases = ["other"]'), "delay[0].cases"),
        (("[[delay]]", "[[delay]]\nhold_ms = 1"), "delay[0].hold_ms"),
        (("[[delay]]", '[[delay]]\ncolour = "red"'), "delay[0].colour"),
        (('rfc3918 = ["5.1", "6.1"]', 'rfc3918 = ["4.4"]'), "rfc3918[0]"),
        (("unicast_percent = 50", "unicast_percent = 96"), "case[1].unicast_percent"),
        (("unicast_percent = 50", "unicast_percent = 50\nburst = 2"), "case[1].burst"),
        (("unicast_percent = 50", "unicast_percent = 95\nflows = 5000\nrules = 5000"), "case[1].flows"),
        (("unicast_percent = 50", 'unicast_percent = 50\negress = "offload"'), "delay[0].cases"),
    ],
)
def test_what_makes_no_sense_is_refused(change: tuple[str, str], key: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(ScenarioError) as raised:
        parse_scenario(text, "x.toml")
    assert key in {problem.field.removeprefix("x.toml: ") for problem in raised.value.problems}


def test_one_name_stands_for_all_that_begin_with_it() -> None:
    found = load_scenarios(["rfc3918"])
    assert len(found) >= 6
    assert all(scenario.name.startswith("rfc3918-") and not scenario.default for scenario in found)
    made = {section for scenario in found for section in scenario.rfc3918}
    assert made == {"4.1", "4.2", "4.3", "5.1", "5.2", "6.1", "6.2", "7.1", "8.1", "8.2"}
    seconds = sum(step.seconds for step in steps(found, "quick"))
    assert seconds < 240
