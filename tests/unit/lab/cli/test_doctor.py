"""What ``mcastlab doctor`` says of a machine."""

from __future__ import annotations

from lab.cli.doctor import CHECKUPS, Checkup, Finding, check, judged, report_lines
from lab.measure.conditions import Condition


def missing() -> str:
    raise RuntimeError("0 of 2")


def test_a_check_that_fails_says_what_was_found_and_what_to_do() -> None:
    failed = Finding("CPUs", ok=False, needed=True, found="0 of 2", remedy="give it two")
    assert check(Checkup("CPUs", missing, "give it two")) == failed
    assert check(Checkup("CPUs", lambda: "2", "give it two")) == Finding("CPUs", True, True, "2")


def test_every_check_has_a_remedy_and_a_name_of_its_own() -> None:
    assert all(checkup.remedy for checkup in CHECKUPS)
    assert len({checkup.name for checkup in CHECKUPS}) == len(CHECKUPS)


def test_what_is_missing_is_named_with_its_remedy_below() -> None:
    findings = [
        Finding("root", True, True, "user id 0"),
        Finding("veth", False, True, "Operation not supported", "modprobe veth"),
        Finding("multicast routing", False, False, "Protocol not available", "another kernel"),
    ]
    assert [line.rstrip() for line in report_lines(findings)] == [
        "ok       root               user id 0",
        "MISSING  veth               Operation not supported",
        "                            → modprobe veth",
        "absent   multicast routing  Protocol not available",
        "                            → another kernel",
        "not ready: veth missing",
    ]
    assert list(report_lines(findings[:1]))[-1].startswith("ready")


def test_what_bends_figures_is_said_and_stops_nothing() -> None:
    quiet = judged(Condition("turbo", "off", remedy="switch it off"))
    bent = judged(Condition("DAMON", "on: kdamond.0", "DAMON watches memory", "switch it off"))
    assert [line.rstrip() for line in report_lines([quiet, bent])] == [
        "ok       turbo  off",
        "bends    DAMON  DAMON watches memory",
        "                → switch it off",
        "ready: all that a run needs is here; 1 that bend figures (runs are marked with them)",
    ]
