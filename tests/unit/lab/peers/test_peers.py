"""Peers as scenarios know them, and the accounts of those that keep none of their own."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.cli.doctor import CHECKUPS, check
from lab.ledger import ledger
from lab.load.flows import Rule
from lab.netns import procnet
from lab.peers import PEERS, mcr, socat
from lab.peers.base import Located, fate
from lab.run.peer_availability import PeerOptionError, find_peers, parse_options
from lab.scenario.files import ScenarioError, parse_scenario
from lab.scenario.model import Scenario
from lab.steps.kinds.compare import CompareStep
from lab.steps.kinds.expect import ExpectStep
from lab.steps.kinds.search import SearchStep
from lab.steps.plan import steps

TEXT = """
name = "peers"
title = "All of them"
seed = "test"
subjects = ["mcrd", "kernel", "socat", "mcr"]
measure = ["zero-loss"]
[setting]
rules = 4
flows = 4
outputs = 8
[receive]
socat = ["in turn"]
[[case]]
name = "1→8"
[[expect]]
case = "1→8"
subject = "socat"
lost = 0
[[expect]]
case = "1→8"
lost = 0
[[compare]]
metric = "zero-loss rate"
a = "mcrd"
b = "socat"
[[compare]]
metric = "zero-loss rate"
a = "mcrd"
b = "kernel"
"""


def scenario(*changes: tuple[str, str]) -> Scenario:
    text = TEXT
    for change in changes:
        text = text.replace(*change)
    return parse_scenario(text, "x.toml")


def refused(*changes: tuple[str, str]) -> dict[str, str]:
    with pytest.raises(ScenarioError) as caught:
        scenario(*changes)
    return {problem.field.removeprefix("x.toml: "): problem.allowed for problem in caught.value.problems}


def test_every_peer_has_the_name_that_scenarios_know() -> None:
    assert set(PEERS) == {"kernel", "mcr", "mcrd", "socat"}
    assert {name: peer.name for name, peer in PEERS.items()} == {name: name for name in PEERS}
    assert {name for name, peer in PEERS.items() if isinstance(peer, Located)} == {"mcr", "socat"}


def test_who_receives_is_said_for_each_subject_and_goes_first_for_the_others() -> None:
    made = scenario()
    assert (made.receive_of("socat"), made.receive_of("mcr")) == (["in turn"], ["first"])
    searches = [
        (step.subject, step.receive) for step in steps([made], "quick") if isinstance(step, SearchStep)
    ]
    assert [receive for subject, receive in searches if subject == "socat"] == ["in turn"]
    assert "receive.netcat" in str(refused(("[receive]\nsocat", "[receive]\nnetcat")))


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (("outputs = 8", "outputs = 32"), "case[0].outputs", "the subject kernel"),
        (("rules = 4\n", "rules = 33\n"), "case[0].rules", "at most 32 with outputs = 8"),
        (
            ("outputs = 8", 'outputs = 8\negress = "offload"\nburst = 2'),
            "case[0].burst",
            "egress = 'offload'",
        ),
    ],
)
def test_what_a_peer_cannot_do_is_refused(change: tuple[str, str], key: str, words: str) -> None:
    assert words in refused(change)[key]


def test_ten_thousand_rules_are_refused_for_socat_and_not_for_the_others() -> None:
    many = ("rules = 4\n", "rules = 10000\n")
    without = ('subjects = ["mcrd", "kernel", "socat", "mcr"]', 'subjects = ["mcrd", "kernel"]')
    assert "rules" in str(refused(many))
    text = TEXT.replace(*many).replace(*without).replace('"socat"', '"mcrd"').replace("socat = ", "mcrd = ")
    text = text.replace('a = "mcrd"\nb = "mcrd"', 'a = "mcrd"\nb = "kernel"')
    assert parse_scenario(text, "x.toml").setting.rules == 10_000


def test_an_absent_peer_is_left_out_of_searches_comparisons_and_expectations() -> None:
    made = scenario()
    planned = steps([made], "quick", absent={"socat", "mcr"})
    assert {step.subject for step in planned if isinstance(step, SearchStep)} == {"mcrd", "kernel"}
    assert [step.compare.b for step in planned if isinstance(step, CompareStep)] == ["kernel"]
    assert [step.number for step in planned if isinstance(step, ExpectStep)] == [2], "numbered as with it"
    assert not steps([made], "quick", absent=set(PEERS))


def test_what_is_left_out_is_named_with_its_scenarios_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    present = find_peers({})
    assert set(present.absent) == {"socat", "mcr"}
    assert present.skipped([scenario()]) == [
        "socat in peers: socat is not installed: apt-get install socat",
        "mcr in peers: upstream's binaries are not here: --peer mcr=PATH says where",
    ]
    for name in ("mcrd", "mcrctl"):
        (tmp_path / name).touch(mode=0o755)
    chosen = find_peers(parse_options([f"mcr={tmp_path}"]))
    assert set(chosen.absent) == {"socat"}
    assert chosen.peers["mcr"] == mcr.PEER.at(tmp_path)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("mcr", "NAME=PATH"),
        ("mcr=", "NAME=PATH"),
        ("kernel=/usr", "a path for one of mcr, socat"),
        ("netcat=/usr", "a path for one of mcr, socat"),
        ("mcr=/nowhere", "no program is at /nowhere"),
        ("socat=/nowhere", "/nowhere: no program is there"),
    ],
)
def test_a_path_that_cannot_be_used_is_bad_input(option: str, words: str) -> None:
    with pytest.raises(PeerOptionError, match=words):
        find_peers(parse_options([option]))
    with pytest.raises(PeerOptionError, match="once"):
        parse_options(["mcr=/a", "mcr=/b"])


def test_the_doctor_says_which_programs_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    findings = {one.name: check(one) for one in CHECKUPS if one.name.startswith("subject")}
    assert set(findings) == {"subject mcr", "subject socat"}
    assert findings["subject socat"].found == "socat is not installed: apt-get install socat"
    assert not findings["subject socat"].needed


RULE = Rule("r", "239.1.0.0", 5001, "10.10.0.1", "in0", ("out0", "out1"))


def test_the_command_line_of_socat() -> None:
    *words, receives, sends = socat.command("socat", RULE, "10.20.1.1", 1500)
    assert words == ["socat", "-u", "-b", "1472"]
    assert receives.startswith("UDP4-RECV:5001,bind=239.1.0.0,")
    assert "ip-add-membership=239.1.0.0:in0," in receives
    assert sends.startswith("UDP4:239.1.0.0:5001,ip-multicast-if=10.20.1.1,")


def test_the_command_line_of_mcrctl() -> None:
    expected = (
        "--socket-path /run/control add --input-interface in0 --input-group 239.1.0.0 --input-port 5001 "
        "--outputs 239.1.0.0:5001:out0,239.1.0.0:5001:out1"
    )
    assert " ".join(mcr.words(Path("/run/control"), RULE)) == expected


def test_a_path_is_a_directory_or_a_program_and_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "--peer mcr=PATH" in (mcr.PEER.missing() or "")
    absent = mcr.PEER.at(tmp_path).missing()
    assert absent == f"no program is at {tmp_path}/mcrd, {tmp_path}/mcrctl"
    for name in ("mcrd", "mcrctl", "socat"):
        (tmp_path / name).touch(mode=0o755)
    assert mcr.PEER.at(tmp_path).missing() is None
    assert mcr.PEER.at(tmp_path / "mcrd") == mcr.PEER.at(tmp_path)
    assert socat.PEER.at(tmp_path).missing() is None
    (tmp_path / "socat").chmod(0o644)
    assert socat.PEER.at(tmp_path).missing() == f"{tmp_path}/socat: no program is there"


def test_what_is_not_installed_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert socat.PEER.missing() == "socat is not installed: apt-get install socat"


def test_how_a_process_ended_in_words() -> None:
    assert fate(1, "no route") == "exited 1: no route"
    assert fate(-9) == "killed by SIGKILL"
    assert fate(-40) == "killed by signal 40"


UDP = dict.fromkeys(
    ("InDatagrams", "NoPorts", "InErrors", "OutDatagrams", "RcvbufErrors", "SndbufErrors", "InCsumErrors",
     "IgnoredMulti", "MemErrors"),
    0,
)  # fmt: skip


def test_socat_has_an_account_in_which_each_copy_is_somewhere() -> None:
    """100 datagrams came in, 10 for no rule; of 180 copies 60 found no room, one was damaged, 5 not sent."""
    udp = UDP | {"IgnoredMulti": 10, "RcvbufErrors": 55, "MemErrors": 5, "InCsumErrors": 1}
    udp |= {"InDatagrams": 119, "OutDatagrams": 112, "SndbufErrors": 2}
    account = socat.account_of(udp, received=100, outputs_per_rule=2)
    assert (account.matched, account.copies_due, account.pending) == (90, 180, 5)
    outside = ledger.Outside(offered=103, input_dropped=3, output_dropped=2, receiver_dropped=0, arrived=112)
    booked = ledger.build(account, outside)
    assert booked.balanced, booked
    lost = {drop.reason: drop.count for drop in booked.egress.drops}
    assert lost == {"buffer full": 60, "bad checksum": 1, "taken, not sent": 5, "output backlog full": 2}
    udp |= {"InDatagrams": 118, "OutDatagrams": 113, "SndbufErrors": 0}
    gone = ledger.build(socat.account_of(udp, 100, 2), ledger.Outside(103, 3, 2, 0, 111))
    assert gone.egress.unattributed == 1


def test_the_account_of_a_peer_without_statistics_is_that_of_its_interfaces() -> None:
    account = mcr.account_of(received=100, handed_on=194, outputs=2, still=True)
    assert (account.matched, account.copies_due, account.pending) == (100, 200, 0)
    assert account.egress == {("mcr", "received, not sent"): 6}
    booked = ledger.build(account, ledger.Outside(100, 0, 4, 0, arrived=189))
    assert booked.egress.unattributed == 1, "a copy that was sent and never arrived must show"
    assert mcr.account_of(100, 194, 2, still=False).pending == 6, "it may still send them"


def test_counters_are_read_as_the_kernel_writes_them() -> None:
    dev = (
        "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|"
        "bytes packets errs drop fifo colls carrier compressed\n"
        "    lo:       1       2    0    0    0     0          0         0        3       4    0    0    0"
        "     0       0          0\n"
        "  out0: 1200      12    1    2    0     0          0         0     3400      34    5    6    0"
        "     0       0          0\n"
    )
    assert procnet.interfaces(dev)["out0"] == procnet.Frames(received=12, sent=34, send_dropped=6)
    snmp = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts\nUdp: 7 8\nUdpLite: InDatagrams\nUdpLite: 9\n"
    assert procnet.counters(snmp, "Udp") == {"InDatagrams": 7, "NoPorts": 8}
    udp = (
        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        " 5212: 0100140A:891F 000001EF:1389 01 00000000:00000000 00:00000000 00000000     0        0 1 2 0"
        " 17\n"
    )
    (entry,) = procnet.udp_sockets(udp)
    assert entry.local == (IPv4Address("10.20.0.1"), 0x891F)
    assert entry.remote == (IPv4Address("239.1.0.0"), 5001)
    assert (entry.state, entry.drops) == (procnet.ESTABLISHED, 17)
