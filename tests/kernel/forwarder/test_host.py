"""What a forwarder asks of its machine: a priority, and datagrams kept from the host's stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from kernel_support import udp_receiver, udp_sender
from kernel_support.mcrd import Relay, assert_delivered, eventually, forwarded, relay, rule
from kernel_support.traffic import Bench, streams

from lab.load.jobs import ReceiverJob, SenderJob
from lab.netns import namespaces as netns

GROUP, PORT = "239.1.0.0", 5001
LOCAL_GROUP = "224.0.0.251"
PAYLOADS = [bytes([number]) * 20 for number in range(50)]


def heard_by_the_host(bench: Bench, group: str = GROUP) -> list[bytes]:
    """What an ordinary socket on the forwarder's machine receives of ``PAYLOADS`` sent to its input."""
    receive = [sys.executable, udp_receiver.__file__, "10.10.0.2", group, str(PORT)]
    send = [sys.executable, udp_sender.__file__, "10.10.0.1", group, str(PORT), "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with netns.spawn(bench.lab.fwd, receive, text=True, **pipes) as receiver:
        assert receiver.stdout
        assert receiver.stdout.readline() == "ready\n"
        netns.run(bench.lab.gen, send, input="".join(payload.hex() + "\n" for payload in PAYLOADS))
        heard, _ = receiver.communicate(timeout=30)
    return [bytes.fromhex(line) for line in heard.split()]


def assert_relays(running: Relay) -> None:
    of = streams(1)
    offered, seen, counted = running.transfer(
        SenderJob(interface="g0", streams=of, count=2000, rate_dps=20_000),
        ReceiverJob(flows=forwarded(of, 2000), payload_bytes=64),
    )
    assert offered == 2000
    assert_delivered(offered, seen, counted)


def test_the_host_hears_what_is_forwarded_unless_its_stack_is_skipped(mcrd_bench: Bench) -> None:
    of = streams(1)
    with relay(mcrd_bench, "in0", rule(of[0])) as running:
        assert heard_by_the_host(mcrd_bench) == PAYLOADS
        assert_relays(running)
    with relay(mcrd_bench, "in0", rule(of[0]), options=["--skip-host-stack"]) as running:
        assert heard_by_the_host(mcrd_bench) == []
        assert heard_by_the_host(mcrd_bench, LOCAL_GROUP) == PAYLOADS
        assert_relays(running)
    assert heard_by_the_host(mcrd_bench) == PAYLOADS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_forwarder_that_ends_leaves_the_stack_as_it_was(mcrd_bench: Bench, number: int) -> None:
    with relay(mcrd_bench, "in0", rule(streams(1)[0]), options=["--skip-host-stack"]) as running:
        assert heard_by_the_host(mcrd_bench) == []
        running.forwarder.process.send_signal(number)
        running.forwarder.process.wait(60)
        # The last copy of the attachment is closed with the last process that inherited it.
        eventually(lambda: heard_by_the_host(mcrd_bench) == PAYLOADS, "the host hears again")


def test_the_stack_is_skipped_where_rules_go_and_only_there(mcrd_bench: Bench) -> None:
    with relay(mcrd_bench, "", strategy="pool", options=["--skip-host-stack"]) as running:
        assert heard_by_the_host(mcrd_bench) == PAYLOADS
        with running.rules(rule(streams(1)[0])):
            assert heard_by_the_host(mcrd_bench) == []
            assert_relays(running)
        assert heard_by_the_host(mcrd_bench) == PAYLOADS


def test_an_interface_that_another_plan_does_without_is_the_hosts_again(mcrd_bench: Bench) -> None:
    strategy: dict[str, object] = {"strategy": "pool", "num_workers": 1}
    with relay(mcrd_bench, "in0,in1", strategy="pool", options=["--skip-host-stack"]) as running:
        assert heard_by_the_host(mcrd_bench) == []
        running.ask("apply", config={**strategy, "interfaces": ["in1"]})
        assert heard_by_the_host(mcrd_bench) == PAYLOADS
        running.ask("apply", config={**strategy, "interfaces": ["in0", "in1"]})
        assert heard_by_the_host(mcrd_bench) == []


def test_workers_run_before_ordinary_processes_when_asked_to(mcrd_bench: Bench) -> None:
    options = ["--realtime-priority", "3"]
    with relay(mcrd_bench, "in0", rule(streams(1)[0]), workers=2, options=options) as running:
        supervisor, *workers = running.forwarder.pids
        assert os.sched_getscheduler(supervisor) == os.SCHED_OTHER
        assert [scheduling(pid) for pid in workers] == [(os.SCHED_RR, 3)] * 2
        assert_relays(running)
        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: another_runs(running, workers[0]), "another worker runs")
        assert [scheduling(pid) for pid in running.forwarder.pids[1:]] == [(os.SCHED_RR, 3)] * 2
        assert_relays(running)


def another_runs(running: Relay, killed: int) -> bool:
    """Whether both workers run and ``killed`` is none of them, as one reply says."""
    workers = running.forwarder.stats()["workers"]
    return {worker["state"] for worker in workers} == {"running"} and killed not in {
        w["pid"] for w in workers
    }


def scheduling(pid: int) -> tuple[int, int]:
    return os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority
