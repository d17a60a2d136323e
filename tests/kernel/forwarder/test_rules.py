"""Rules from the first request to the first datagram, and those that a supervisor cannot begin with."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from kernel_support.mcrd import Relay, forwarded, mcrctl, output, program, rule, some_cpus
from kernel_support.traffic import Bench, streams

from lab.load.jobs import ReceiverJob, SenderJob
from lab.netns import namespaces as netns

TIMES = ("in_force_after_ns", "first_datagram_after_ns")


def times(relay: Relay, rule_id: str) -> tuple[Any, ...]:
    """Of a rule, as `stats` has them, and `list`, which must say the same."""
    [entry] = [one for one in relay.forwarder.stats()["rules"] if one["rule_id"] == rule_id]
    found = tuple(entry[name] for name in TIMES)
    assert found == tuple(relay.ask("list")["timing"][rule_id][name] for name in TIMES)
    return found


def test_it_is_known_how_long_a_rule_took_and_its_first_datagram(shared_relay: Relay) -> None:
    of = streams(8)
    first = rule(of[0])
    asking = time.monotonic_ns()
    with shared_relay.rules(*map(rule, of)):
        answered = time.monotonic_ns()
        in_force, nothing = times(shared_relay, first["rule_id"])
        assert 0 < in_force < answered - asking
        assert nothing is None
        sending = time.monotonic_ns()
        shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=800, rate_dps=8000),
            ReceiverJob(flows=forwarded(of, 100), payload_bytes=64),
        )
        received = time.monotonic_ns()
        for one in map(rule, of):
            since = times(shared_relay, one["rule_id"])
            assert sending - answered < since[1] < received - asking
        once = times(shared_relay, first["rule_id"])
        shared_relay.transfer(
            SenderJob(interface="g0", streams=of, count=800, rate_dps=8000),
            ReceiverJob(flows=forwarded(of, 100), payload_bytes=64),
        )
        assert times(shared_relay, first["rule_id"]) == once
        shown = mcrctl(shared_relay.forwarder.control_path, "list").stdout
        assert "first datagram after" in shown
        assert f"{once[1] / 1e6:,.1f} ms" in shown
    with shared_relay.rules(first):
        assert times(shared_relay, first["rule_id"])[1] is None


def test_time_to_live_and_source_are_options_of_each_output(shared_relay: Relay) -> None:
    path = shared_relay.forwarder.control_path
    outputs = "239.2.2.2:5:out0:ttl=9:source=preserve,239.2.2.3:5:out0:source=192.0.2.7,239.2.2.4:1:out0"
    rule_words = ["--input-interface", "in0", "--input-group", "239.1.1.1", "--input-port", "5001"]
    answer = mcrctl(path, "add", *rule_words, "--outputs", outputs, "--rule-id", "r")
    assert answer.returncode == 0, answer.stderr
    try:
        [listed] = shared_relay.ask("list")["rules"]
        assert [(one["ttl"], one["source"]) for one in listed["outputs"]] == [
            (9, "preserve"),
            (None, "192.0.2.7"),
            (None, None),
        ]
        assert set(outputs.split(",")) <= set(mcrctl(path, "list").stdout.split())
    finally:
        shared_relay.ask("remove", rule_id="r")
    wrong = "239.2.2.2:5002:out0:ttl=0,239.2.2.2:1:out0:dscp=1"
    refused = mcrctl(path, "add", *rule_words, "--outputs", wrong)
    assert refused.returncode == 2
    assert "outputs[1]: '239.2.2.2:1:out0:dscp=1'" in refused.stderr
    assert ":source=preserve" in refused.stderr


def test_rules_that_the_workers_cannot_hold_end_the_start(mcrd_bench: Bench, tmp_path: Path) -> None:
    """Three hundred output interfaces are more than a worker's link table has."""
    of = streams(15)
    rules = [
        rule(stream, outputs=[output("239.9.9.9", f"x{number}-{place}") for place in range(20)])
        for number, stream in enumerate(of)
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"rules": rules}))
    control = tmp_path / "control"
    before = netns.processes(mcrd_bench.lab.fwd)
    options = ["--interface", "in0", "--num-workers", str(len(some_cpus())), "--rules", "rules.json"]
    process = netns.spawn(
        mcrd_bench.lab.fwd,
        [program("mcrd"), "supervisor", *options, "--control-socket-path", str(control)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: rules: 300 output interfaces; allowed: at most 256 of them" in errors
    assert "Traceback" not in errors
    assert not control.exists()
    assert netns.processes(mcrd_bench.lab.fwd) == before
