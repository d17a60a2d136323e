"""Interfaces that come, go and change under a running forwarder, as inputs and as outputs.

::

    gen  late-g ── late  fwd  far ── far-r  rcv
         g0 ────── in0        out0 ── r0
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernel_support.mcrd import (
    RING_FRAMES,
    Relay,
    assert_delivered,
    assert_intact,
    counts,
    eventually,
    forwarded,
    groups_joined,
    leave_descriptors,
    pid_of,
    relay,
    rule,
    rule_counts,
    runs_again,
    some_cpus,
    spread,
)
from kernel_support.traffic import Bench, streams
from kernel_support.wires import Port, Wiring

from lab.load.jobs import ReceiverJob, SenderJob


@dataclass(frozen=True)
class Changing:
    """A forwarder on ``in0`` and on ``late``, which need not exist; nor need ``far``, an output."""

    relay: Relay
    wires: Wiring
    late: Port
    far: Port

    def late_wire(self) -> AbstractContextManager[None]:
        return self.wires.wire(Port(self.relay.bench.lab.gen, "late-g"), self.late)

    def far_wire(self) -> AbstractContextManager[None]:
        return self.wires.wire(self.far, Port(self.relay.bench.lab.rcv, "far-r"))

    def state(self, rule_id: str) -> tuple[str, str | None]:
        """A rule's state, and why it waits."""
        found = {entry["rule_id"]: entry for entry in self.relay.forwarder.stats()["rules"]}[rule_id]
        return found["state"], found["reason"]

    def await_state(self, rule_id: str, state: str, within_s: float = 60.0) -> None:
        eventually(lambda: self.state(rule_id)[0] == state, f"rule {rule_id} is {state}", within_s)

    def await_reason(self, rule_id: str, reason: str) -> None:
        """A rule waits, and in the end for this: an interface just made has no carrier at first."""
        eventually(lambda: self.state(rule_id) == ("waiting", reason), f"rule {rule_id} waits: {reason}")

    def interface(self, name: str) -> str:
        return str({e["name"]: e["state"] for e in self.relay.forwarder.stats()["interfaces"]}[name])


@pytest.fixture(scope="module")
def changing(mcrd_bench: Bench, wires: Wiring) -> Iterator[Changing]:
    fwd = mcrd_bench.lab.fwd
    with relay(mcrd_bench, "in0,late", workers=2, strategy="fanout-per-interface") as running:
        yield Changing(running, wires, Port(fwd, "late", "10.40.0.2"), Port(fwd, "far", "10.50.0.1"))


OF = streams(1)
LATE = rule(OF[0], input_interface="late")
TO_FAR = rule(OF[0], "far")


def assert_forwards(changing: Changing, sender: str, receiver: str = "r0", count: int = 2000) -> None:
    offered, seen, counted = changing.relay.transfer(
        SenderJob(interface=sender, streams=OF, count=count, rate_dps=20_000),
        ReceiverJob(flows=forwarded(OF, count, receiver), payload_bytes=64),
    )
    assert offered == count
    assert_delivered(offered, seen, counted)


@pytest.mark.serial
def test_a_rule_waits_for_its_input_and_runs_within_a_second(changing: Changing) -> None:
    added = changing.relay.ask("add", rules=[LATE])["added"]
    try:
        assert added == [
            {
                "rule_id": LATE["rule_id"],
                "state": "waiting",
                "reason": "input interface late does not exist",
                "engine": "packet",
                "engine_reason": None,
            }
        ]
        assert changing.interface("late") == "absent"
        with changing.late_wire():
            changing.await_state(LATE["rule_id"], "running", within_s=1)
            assert groups_joined(changing.late.namespace, "late") == {"239.1.0.0"}
            assert_forwards(changing, "late-g")
        changing.await_state(LATE["rule_id"], "waiting")
    finally:
        changing.relay.ask("remove", rule_id=LATE["rule_id"])


def test_an_input_deleted_and_made_again_is_served_again(changing: Changing) -> None:
    with changing.relay.rules(LATE):
        for _ in range(3):
            with changing.late_wire():
                changing.await_state(LATE["rule_id"], "running")
                assert_forwards(changing, "late-g")
                assert groups_joined(changing.late.namespace, "late") == {"239.1.0.0"}
            changing.await_state(LATE["rule_id"], "waiting")
        matched = rule_counts(changing.relay.forwarder.stats())[LATE["rule_id"]]
    assert matched == (6000, 6000)


LATES = -1
"""The last worker, which serves ``late``."""


@contextmanager
def descriptors_denied(running: Relay) -> Iterator[None]:
    """The supervisor gets no more."""
    supervisor = running.forwarder.process.pid
    before = leave_descriptors(supervisor, 0)
    try:
        yield
    finally:
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)


@contextmanager
def memory_denied(running: Relay) -> Iterator[None]:
    """A worker of the interface has no room for a ring."""
    supervisor, born = running.forwarder.process.pid, pid_of(running, LATES)
    pages = int(Path(f"/proc/{supervisor}/statm").read_text().split()[0])
    ring_bytes = RING_FRAMES * 2048
    before = resource.prlimit(supervisor, resource.RLIMIT_AS)
    try:
        # The next process inherits it.
        limit = pages * resource.getpagesize() + ring_bytes // 2
        resource.prlimit(supervisor, resource.RLIMIT_AS, (limit, before[1]))
        os.kill(born, signal.SIGKILL)
        eventually(lambda: runs_again(running, LATES, born), "another one runs")
        yield
    finally:
        resource.prlimit(supervisor, resource.RLIMIT_AS, before)
        os.kill(pid_of(running, LATES), signal.SIGKILL)


@pytest.mark.parametrize(
    ("deny", "refusal"),
    [
        (descriptors_denied, "[Errno 24] Too many open files"),
        (memory_denied, "[Errno 12] late: a worker could not take its socket"),
    ],
    ids=["interfaces cannot be listed", "a worker cannot map its ring"],
)
def test_an_input_that_cannot_be_served_is_tried_again_without_further_word_of_it(
    changing: Changing, deny: Callable[[Relay], AbstractContextManager[None]], refusal: str
) -> None:
    log = changing.relay.forwarder.directory / "stderr"
    said = len(log.read_text())

    def refusals() -> int:
        return log.read_text()[said:].count(f"interfaces could not be opened: {refusal}")

    with changing.relay.rules(LATE), ExitStack() as denied:
        denied.enter_context(deny(changing.relay))
        with changing.late_wire():
            eventually(refusals, "it is refused")
            # Later than the kernel tells of its carrier and of its address.
            tried = refusals()
            eventually(lambda: refusals() > tried + 2, "it is tried again")
            denied.close()
            changing.await_state(LATE["rule_id"], "running")
            assert_forwards(changing, "late-g")
        changing.await_state(LATE["rule_id"], "waiting")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGCONT])
def test_what_the_ring_of_an_input_holds_when_it_goes_is_forwarded_or_counted(
    changing: Changing, end: signal.Signals
) -> None:
    def counted() -> tuple[int, int]:
        stats = changing.relay.forwarder.stats()
        late = next(entry for entry in stats["interfaces"] if entry["name"] == "late")
        return stats["totals"]["received"], late["abandoned_frames"]

    with changing.relay.rules(LATE), ExitStack() as stack:
        with changing.late_wire():
            changing.await_state(LATE["rule_id"], "running")
            time.sleep(0.5)  # so that nothing is still to be told about the new interface
            before = sum(counted())
            worker = pid_of(changing.relay, LATES)
            os.kill(worker, signal.SIGSTOP)
            stack.callback(_go_on, worker)  # whatever the test comes to
            job = SenderJob(interface="late-g", streams=OF[:1], count=40, rate_dps=4000)
            receiver = ReceiverJob(flows=forwarded(OF, 40), payload_bytes=64)
            with changing.relay.bench.transferring([job], receiver):
                pass
        changing.await_state(LATE["rule_id"], "waiting")
        os.kill(worker, end)
        eventually(lambda: sum(counted()) == before + 40, "all are accounted for")


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_an_input_replaced_at_once_is_noticed(changing: Changing) -> None:
    """The name never seems to be gone: only the index tells."""
    with changing.relay.rules(LATE):
        with changing.late_wire():
            changing.await_state(LATE["rule_id"], "running")
        with changing.late_wire():
            index = changing.wires.index(changing.late)
            eventually(
                lambda: groups_joined(changing.late.namespace, "late") == {"239.1.0.0"},
                f"the group joined on index {index}",
            )
            assert_forwards(changing, "late-g")


@pytest.mark.parametrize("disturb", ["renamed", "down and up"])
def test_an_input_that_changes_goes_on(changing: Changing, disturb: str) -> None:
    with changing.relay.rules(LATE), changing.late_wire():
        changing.await_state(LATE["rule_id"], "running")
        assert_forwards(changing, "late-g")
        if disturb == "renamed":
            with changing.wires.renamed(changing.late, "later"):
                assert_forwards(changing, "late-g")
        else:
            changing.wires.switch(changing.late, "down")
            changing.await_reason(LATE["rule_id"], "input interface late is down")
            changing.wires.switch(changing.late, "up")
            changing.wires.await_up(changing.late)
            changing.await_state(LATE["rule_id"], "running")
        assert_forwards(changing, "late-g")
        assert groups_joined(changing.late.namespace, "late") == {"239.1.0.0"}


def _down_and_up(changing: Changing) -> None:
    changing.wires.switch(changing.far, "down")
    changing.await_reason(TO_FAR["rule_id"], "output interface far is down")
    changing.wires.switch(changing.far, "up")
    changing.wires.await_up(changing.far)


def _rename(changing: Changing) -> None:
    with changing.wires.renamed(changing.far, "further"):
        assert_forwards(changing, "g0", "far-r")


@pytest.mark.parametrize("disturb", [_down_and_up, _rename])
def test_an_output_that_changes_goes_on(changing: Changing, disturb: Callable[[Changing], None]) -> None:
    with changing.relay.rules(TO_FAR), changing.far_wire():
        changing.await_state(TO_FAR["rule_id"], "running")
        assert_forwards(changing, "g0", "far-r")
        disturb(changing)
        changing.await_state(TO_FAR["rule_id"], "running")
        assert_forwards(changing, "g0", "far-r")


def test_an_output_deleted_and_made_again_is_used_again(changing: Changing) -> None:
    with changing.relay.rules(TO_FAR):
        for _ in range(2):
            with changing.far_wire():
                changing.await_state(TO_FAR["rule_id"], "running")
                assert_forwards(changing, "g0", "far-r")
            changing.await_reason(TO_FAR["rule_id"], "output interface far does not exist")


def test_a_rule_waits_for_its_outputs_address_and_others_go_on(changing: Changing) -> None:
    bare = Port(changing.far.namespace, "far")
    far_r = Port(changing.relay.bench.lab.rcv, "far-r")
    other = streams(1, first=1)[0]
    both = (*OF, other)
    before = changing.relay.forwarder.stats()
    with changing.wires.wire(bare, far_r), changing.relay.rules(TO_FAR, rule(other)):
        changing.await_reason(TO_FAR["rule_id"], "output interface far has no IPv4 address")
        sent, seen = changing.relay.bench.transfer_all(
            spread(SenderJob(interface="g0", streams=both, count=4000, rate_dps=20_000)),
            ReceiverJob(flows=forwarded((other,), 2000), interfaces=("far-r",), payload_bytes=64),
        )
        counted = counts(changing.relay.forwarder.stats(), before)
        assert_intact(seen)
        assert (sum(report.offered for report in sent), seen.received) == (4000, (2000,))
        assert (counted.matched, counted.sent) == (4000, 2000)
        assert counted.dropped == {"output_absent": 2000}
        changing.wires.give_address(bare, "10.50.0.1")
        changing.await_state(TO_FAR["rule_id"], "running")
        assert_forwards(changing, "g0", "far-r")


def test_rules_on_a_third_interface_while_two_carry_traffic(mcrd_bench: Bench, wires: Wiring) -> None:
    of = streams(3)
    rules = [
        rule(stream, input_interface=name) for name, stream in zip(("in0", "in1", "late"), of, strict=True)
    ]
    first, second, third = (
        SenderJob(interface=name, streams=(stream,), count=count, rate_dps=10_000, cpu=some_cpus()[0])
        for name, stream, count in zip(("g0", "g1", "late-g"), of, (100_000, 100_000, 1000), strict=True)
    )
    expected = (*forwarded(of[:2], 100_000), *forwarded(of[2:], 1000))
    late = Port(mcrd_bench.lab.fwd, "late", "10.40.0.2")
    with relay(mcrd_bench, "in0,in1,late", *rules[:2], workers=2, strategy="fanout-per-interface") as running:
        before = running.forwarder.stats()

        def sockets() -> int:
            workers = running.forwarder.stats()["workers"]
            return sum(entry["interface"] == "late" for worker in workers for entry in worker["sockets"])

        def served() -> bool:
            states = {one["rule_id"]: one["state"] for one in running.forwarder.stats()["rules"]}
            return sockets() == 2 and states[rules[2]["rule_id"]] == "running"

        assert sockets() == 0
        with mcrd_bench.transferring([first, second], ReceiverJob(flows=expected)) as transfer:
            eventually(lambda: counts(running.forwarder.stats(), before).matched > 1000, "traffic flows")
            with wires.wire(Port(mcrd_bench.lab.gen, "late-g"), late):
                assert running.ask("add", rules=[rules[2]])
                eventually(served, "two workers serve the third interface")
                sender = mcrd_bench.sender(third, number=2)
                sender.ready()
                sender.go()
                assert sender.report().offered == 1000
                eventually(
                    lambda: rule_counts(running.forwarder.stats()).get(rules[2]["rule_id"]) == (1000, 1000),
                    "all of it forwarded",
                )
            transfer.stop()
        counted = counts(running.forwarder.stats(), before)
    assert transfer.offered < 200_000, "all of that was under load"
    assert_delivered(transfer.offered + 1000, transfer.seen, counted)
    assert transfer.seen.received == (*(report.offered for report in transfer.sent), 1000)


def test_more_changes_than_can_be_told_are_noticed(changing: Changing) -> None:
    """A supervisor that is held up misses word of changes: the kernel's queue for it overflows."""
    loopback = Port(changing.late.namespace, "lo")
    supervisor = changing.relay.forwarder.process.pid
    with changing.relay.rules(LATE):
        os.kill(supervisor, signal.SIGSTOP)
        try:
            for number in range(2000):
                changing.wires.set_mtu(loopback, 60_000 + number % 2)
        finally:
            os.kill(supervisor, signal.SIGCONT)
        with changing.late_wire():
            changing.await_state(LATE["rule_id"], "running")
            assert_forwards(changing, "late-g")


def test_workers_killed_while_their_input_is_replaced(changing: Changing) -> None:
    """Successors must serve the interface that is there when they start, and get each socket once."""
    with changing.relay.rules(LATE):
        for order in range(4):
            with changing.late_wire():
                changing.await_state(LATE["rule_id"], "running")
                if order % 2:
                    _kill_workers(changing.relay)
            if order < 2:
                _kill_workers(changing.relay)
        with changing.late_wire():
            killed = _kill_workers(changing.relay)
            changing.await_state(LATE["rule_id"], "running")
            eventually(lambda: _replaced(changing.relay, killed), "others run in all places")
            assert_forwards(changing, "late-g")
    with changing.relay.rules(rule(OF[0])):
        assert_forwards(changing, "g0")


def _kill_workers(running: Relay) -> set[int]:
    """Those of a moment before may be among them: listed until the supervisor hears that they have ended."""
    killed = {worker["pid"] for worker in running.forwarder.stats()["workers"] if worker["pid"]}
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return killed


def _replaced(running: Relay, killed: set[int]) -> bool:
    workers = running.forwarder.stats()["workers"]
    return all(one["state"] == "running" and one["pid"] not in killed for one in workers)
