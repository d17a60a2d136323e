"""Elastic groups: workers join and leave under load, also while other things change or fail.

Nothing is lost or repeated, and nothing reordered in a flow that keeps its worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kernel_support.mcrd import (
    RING_FRAMES,
    Client,
    Relay,
    assert_delivered,
    counts,
    eventually,
    forwarded,
    leave_descriptors,
    load,
    mcrctl,
    no_more_processes,
    pid_of,
    program,
    relay,
    rule,
    running_pid,
    runs_again,
    some_cpus,
)
from kernel_support.traffic import Bench, streams
from kernel_support.wires import Port, Wiring
from process_support import children

from forwarder.plan.placement import flow_owner
from lab.load.jobs import ReceiverJob, SenderJob, Stream
from lab.peers.base import PeerError

PIDFD_GETFD = 438
"""Of every architecture."""
NEVER = ("--scale-threshold-pps", "1000000000")
"""Only who asks resizes."""


def stays(stream: Stream, sizes: Sequence[int]) -> bool:
    """Whether a stream has the same worker in groups of all these sizes."""
    flow = (int(stream.source), int(stream.group), stream.source_port, stream.port)
    return len({flow_owner(*flow, size) for size in sizes}) == 1


@contextmanager
def dynamic(
    bench: Bench, of: Sequence[Stream], *options: str, interface: str = "in0", least: int = 1
) -> Iterator[Relay]:
    """``dynamic`` on one interface, ``least`` to three workers.

    Without load a group goes back to its least within some seconds, so what must not change is that.
    """
    bounds = ("--min-workers-per-interface", str(least), "--max-workers-per-interface", "3")
    rules = [rule(stream, input_interface=interface) for stream in of]
    with relay(
        bench, interface, *rules, strategy="dynamic", workers=0, options=(*bounds, *options)
    ) as running:
        yield running


def per_worker(of: Sequence[Stream], size: int, each: int) -> tuple[int, ...]:
    """Datagrams that come to each worker of a group of ``size``, of ``each`` of these streams."""
    owners = Counter(
        flow_owner(int(one.source), int(one.group), one.source_port, one.port, size) for one in of
    )
    return tuple(owners[slot] * each for slot in range(size))


def said(running: Relay) -> str:
    """All that a forwarder has logged."""
    return (running.forwarder.directory / "stderr").read_text()


def matched(running: Relay) -> int:
    return counts(running.forwarder.stats()).matched


def scaling(running: Relay) -> dict[str, Any]:
    (group,) = running.forwarder.stats()["scaling"]
    return dict(group)


@pytest.mark.serial
def test_workers_join_and_leave_under_load_and_no_datagram_is_lost(mcrd_bench: Bench) -> None:
    of = streams(32)
    job, receiver = load(of, 10_000, 16_000)
    with dynamic(mcrd_bench, of, *NEVER) as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: matched(running), "the first datagram is forwarded")
            for workers in (2, 3, 1, 3, 2):
                assert running.ask("resize", group=0, workers=workers)["after"] == workers
                assert running.ask("list-workers")["distribution"][0]["workers"] == workers
                assert scaling(running)["workers"] == workers
            plan, workers = running.ask("plan"), running.ask("list-workers")["workers"]
            transfer.stop()
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert transfer.offered < 320_000, "all of that was under load"
        assert (counted.received, counted.sent, counted.dropped) == (transfer.offered, transfer.offered, {})
        assert (sum(seen.lost), sum(seen.duplicated), sum(seen.corrupted)) == (0, 0, 0)
        kept = [number for number, stream in enumerate(of) if stays(stream, (1, 2, 3))]
        assert 0 < len(kept) < len(of)
        assert [seen.reordered[number] for number in kept] == [0] * len(kept)
        stats = running.forwarder.stats()
        assert [worker["state"] for worker in workers] == ["running", "running", "parked"]
        assert all(worker["counters"]["matched"] for worker in stats["workers"]), "each had its part"
        changes = [(c["before"], c["after"], c["failed"]) for c in scaling(running)["changes"]]
        assert changes[:5] == [(1, 2, None), (2, 3, None), (3, 1, None), (1, 3, None), (3, 2, None)]
        assert [group["workers"] for group in plan["groups"]] == [2]
        assert [worker["worker_id"] for worker in plan["workers"]] == [0, 1]


@pytest.mark.serial
def test_a_hot_interface_gets_workers_and_an_idle_one_gives_them_back(mcrd_bench: Bench) -> None:
    of = streams(16)
    job, receiver = load(of, 10_000, 16_000)
    with dynamic(mcrd_bench, of, "--scale-threshold-pps", "2000") as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: scaling(running)["workers"] == 3, "a load for eight workers makes three")
            transfer.stop()
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (counted.dropped, sum(seen.lost), sum(seen.duplicated)) == ({}, 0, 0)
        assert counted.sent == transfer.offered
        eventually(lambda: scaling(running)["workers"] < 3, "without load there is one less")
        first = scaling(running)["changes"][0]
        assert "datagrams/s, more than 1 × 2,000" in first["reason"]
        top = mcrctl(running.forwarder.control_path, "top", "--interval", "0.1", "--json")
        assert json.loads(top.stdout)["scaling"][0]["changes"][0] == first
        for one in scaling(running)["changes"]:
            sentence = f"from {one['before']} to {one['after']} workers in "
            assert any(sentence in line and one["reason"] in line for line in said(running).splitlines())


def test_a_worker_that_dies_while_it_joins_is_replaced_and_none_is_left_when_the_group_shrinks(
    mcrd_bench: Bench,
) -> None:
    of = streams(8)
    with dynamic(mcrd_bench, of, *NEVER) as running:
        running.ask("resize", group=0, workers=3)
        victim = running.ask("list-workers")["workers"][2]["pid"]
        os.kill(victim, signal.SIGKILL)
        running.ask("resize", group=0, workers=1)
        pids = [worker["pid"] for worker in running.ask("list-workers")["workers"]]
        assert [pid is not None for pid in pids] == [True, False, False]
        job = SenderJob(interface="g0", streams=of, count=800, rate_dps=8000)
        offered, seen, counted = running.transfer(
            [job], ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)
        )
        assert (counted.sent, sum(seen.lost), sum(seen.reordered)) == (offered, 0, 0)


def _leads_to(entry: Path) -> str:
    """Where a symbolic link leads, if it is one, and still there."""
    with suppress(OSError):
        return str(entry.readlink())
    return ""


@contextmanager
def held_open(pid: int, sockets: int) -> Iterator[None]:
    """Have all receive sockets of a process open elsewhere, as the kernel does for a while.

    ``sockets``: how many it has. Other forwarders in its namespace may have more.
    """
    _, *lines = Path(f"/proc/{pid}/net/packet").read_text().splitlines()
    bound = {f"socket:[{line.split()[8]}]" for line in lines if line.split()[4] != "0"}
    process = os.pidfd_open(pid)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    held = [
        syscall(PIDFD_GETFD, process, int(entry.name), 0)
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if _leads_to(entry) in bound
    ]
    os.close(process)
    try:
        assert len(held) == sockets
        assert min(held) > 0
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_a_group_has_shrunk_when_the_kernel_has_given_up_the_place(mcrd_bench: Bench) -> None:
    of = streams(32)
    job, receiver = load(of, 100, 16_000)
    with dynamic(mcrd_bench, of, *NEVER) as running, ThreadPoolExecutor(1) as pool:
        running.ask("resize", group=0, workers=2)
        with held_open(running.forwarder.process.pid, sockets=2):
            shrinks = pool.submit(running.ask, "resize", group=0, workers=1)
            eventually(lambda: running_pid(running, 1) == 0, "the worker has ended")
            time.sleep(0.2)
            assert not shrinks.done()
        assert shrinks.result()["after"] == 1
        running.ask("resize", group=0, workers=2)
        offered, seen, counted = running.transfer([job], receiver)
        assert (counted.sent, counted.dropped, sum(seen.lost)) == (offered, {}, 0)


def test_those_who_came_together_and_leave_one_by_one_leave_their_places_for_others(
    mcrd_bench: Bench,
) -> None:
    of = streams(32)
    job, receiver = load(of, 10_000, 16_000)
    with dynamic(mcrd_bench, of, *NEVER) as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: matched(running), "the first datagram is forwarded")
            for workers in (3, 2, 3):
                before = counts(running.forwarder.stats()).per_worker
                running.ask("resize", group=0, workers=workers)
            eventually(
                lambda: counts(running.forwarder.stats()).per_worker[2] > before[2], "the last has its part"
            )
            transfer.stop()
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert transfer.offered < 320_000, "all of that was under load"
        assert (counted.sent, counted.dropped, sum(seen.lost)) == (transfer.offered, {}, 0)


def test_a_resize_that_cannot_be_is_refused(mcrd_bench: Bench) -> None:
    with dynamic(mcrd_bench, streams(1), *NEVER) as running:
        path = running.forwarder.control_path
        for arguments, complaint in (
            (("--group", "0", "--workers", "4"), "workers: 4; allowed: an integer from 1 to 3"),
            (("--group", "7", "--workers", "2"), "group: 7; allowed: the id of an elastic group: 0"),
        ):
            refused = mcrctl(path, "resize", *arguments)
            assert refused.returncode == 2
            assert complaint in refused.stderr


def test_resizes_and_rule_changes_at_once_take_their_turns(mcrd_bench: Bench) -> None:
    of = streams(32)
    job, receiver = load(of, 1000, 16_000)
    others = [rule(stream) for stream in streams(8, 100)]

    def resize(sizes: Sequence[int]) -> list[dict[str, Any]]:
        return [running.ask("resize", group=0, workers=size) for size in sizes]

    def change_rules() -> None:
        for _ in range(3):
            with running.rules(*others):
                pass

    with dynamic(mcrd_bench, of, *NEVER) as running, ThreadPoolExecutor(3) as pool:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: matched(running), "the first datagram is forwarded")
            asked = [pool.submit(resize, sizes) for sizes in ((3, 1, 2), (2, 3, 1))]
            pool.submit(change_rules).result()
            assert [answer["after"] for task in asked for answer in task.result()] == [3, 1, 2, 2, 3, 1]
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (counted.sent, counted.dropped) == (32_000, {})
        assert (sum(seen.lost), sum(seen.duplicated)) == (0, 0)
        changes = scaling(running)["changes"]
        assert all(one["failed"] is None for one in changes)
        assert changes[0]["before"] == 1
        assert all(one["after"] == other["before"] for one, other in pairwise(changes))


@pytest.mark.parametrize("least", [1, 2])
def test_an_interface_that_comes_back_is_served_by_those_who_are_in_the_group_by_then(
    mcrd_bench: Bench, wires: Wiring, least: int
) -> None:
    of = streams(32)
    near, far = Port(mcrd_bench.lab.gen, "flap-g"), Port(mcrd_bench.lab.fwd, "flap", "10.60.0.2")
    job = SenderJob(interface="flap-g", streams=of, count=3200, rate_dps=16_000, cpu=some_cpus()[0])
    receiver = ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)

    def served() -> bool:
        return all(entry["state"] == "running" for entry in running.forwarder.stats()["rules"])

    def gone() -> bool:
        return not any(worker["sockets"] for worker in running.forwarder.stats()["workers"])

    with dynamic(mcrd_bench, of, *NEVER, interface="flap", least=least) as running:
        with wires.wire(near, far):
            eventually(served, "the interface is served")
            running.ask("resize", group=0, workers=3)
            if least == 1:
                running.ask("resize", group=0, workers=least)
        eventually(gone, "the interface is gone")
        running.ask("resize", group=0, workers=least)
        with wires.wire(near, far):
            eventually(served, "the interface is served again")
            offered, seen, counted = running.transfer([job], receiver)
            assert_delivered(offered, seen, counted)
            assert counted.per_worker == (*per_worker(of, least, 100), *[0] * (3 - least))


def test_an_interface_that_goes_and_comes_while_its_group_is_resized_is_served_in_the_end(
    mcrd_bench: Bench, wires: Wiring
) -> None:
    of = streams(32)
    near, far = Port(mcrd_bench.lab.gen, "flap-g"), Port(mcrd_bench.lab.fwd, "flap", "10.60.0.2")
    job = SenderJob(interface="flap-g", streams=of, count=3200, rate_dps=16_000, cpu=some_cpus()[0])
    receiver = ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)
    over = threading.Event()

    def served() -> bool:
        return all(entry["state"] == "running" for entry in running.forwarder.stats()["rules"])

    def resize() -> list[str]:
        refusals = []
        with Client(running.forwarder.control_path) as client:
            while not over.is_set():
                for size in (3, 1, 2):
                    answer = client.ask("resize", group=0, workers=size)
                    refusals += [problem["allowed"] for problem in answer.get("errors", ())]
        return refusals

    with dynamic(mcrd_bench, of, *NEVER, interface="flap") as running, ThreadPoolExecutor(1) as pool:
        resizing = pool.submit(resize)
        try:
            for moment in range(5):
                with wires.wire(near, far):
                    eventually(served, "the interface is served")
                    time.sleep(moment * 0.07)
        finally:
            over.set()
        assert all("the group is unchanged" in refusal for refusal in resizing.result())
        with wires.wire(near, far):
            eventually(served, "the interface is served")
            offered, seen, counted = running.transfer([job], receiver)
            assert (counted.sent, counted.dropped, sum(seen.lost)) == (offered, {}, 0)
        assert "Traceback" not in said(running)


def test_what_the_ring_of_a_dead_worker_holds_is_forwarded_before_its_place_is_given_up(
    mcrd_bench: Bench,
) -> None:
    of = streams(16)
    job, receiver = load(of, 100, 16_000)
    with dynamic(mcrd_bench, of, *NEVER) as running:
        running.transfer([job], receiver)  # sender and receiver stand: a group that is idle for long shrinks
        before = matched(running)
        running.ask("resize", group=0, workers=2)
        first = per_worker(of, 2, 100)[0]
        victim = pid_of(running, 1)
        os.kill(victim, signal.SIGSTOP)
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(
                lambda: matched(running) - before == first, "all but the stopped worker's are forwarded"
            )
            os.kill(victim, signal.SIGKILL)
            assert running.ask("resize", group=0, workers=1)["after"] == 1
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (counted.matched - before, counted.dropped, sum(seen.lost)) == (1600, {}, 0)


def test_a_worker_that_died_has_its_place_in_the_group_again(mcrd_bench: Bench) -> None:
    of = streams(32)
    job, receiver = load(of, 100, 16_000)
    with dynamic(mcrd_bench, of, *NEVER, least=2) as running:
        running.ask("resize", group=0, workers=3)
        for victim in (0, 1):
            before = pid_of(running, victim)
            os.kill(before, signal.SIGKILL)
            eventually(partial(runs_again, running, victim, before), "another one runs")
            running.ask("resize", group=0, workers=2)
            offered, seen, counted = running.transfer([job], receiver)
            assert_delivered(offered, seen, counted)
            assert counted.per_worker == (*per_worker(of, 2, 100), 0)


def test_a_worker_that_is_killed_as_soon_as_it_is_born_joins_all_the_same(mcrd_bench: Bench) -> None:
    of = streams(8)
    job, receiver = load(of, 20_000, 8000)
    with dynamic(mcrd_bench, of, *NEVER) as running, ThreadPoolExecutor(1) as pool:
        supervisor = running.forwarder.process.pid
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: matched(running), "the first datagram is forwarded")
            before = children(supervisor)
            asked = pool.submit(running.ask, "resize", group=0, workers=2)
            (born,) = eventually(lambda: children(supervisor) - before, "a worker is born")
            os.kill(born, signal.SIGKILL)
            assert asked.result()["after"] == 2
            eventually(partial(runs_again, running, 1, born), "another one runs in its place")
            eventually(lambda: counts(running.forwarder.stats()).per_worker[1], "it has its part")
            transfer.stop()
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert transfer.offered < 160_000, "all of that was under load"
        assert (counted.sent, counted.dropped, sum(seen.lost)) == (transfer.offered, {}, 0)
        assert counted.per_worker[1], "it has its part"


def test_a_worker_that_gets_no_memory_for_its_rings_is_replaced_until_one_does(mcrd_bench: Bench) -> None:
    of = streams(8)
    job = SenderJob(interface="g0", streams=of, count=800, rate_dps=8000, cpu=some_cpus()[0])
    with dynamic(mcrd_bench, of, *NEVER) as running:
        supervisor, victim = running.forwarder.process.pid, pid_of(running, 0)
        pages = int(Path(f"/proc/{supervisor}/statm").read_text().split()[0])
        before = resource.prlimit(supervisor, resource.RLIMIT_AS)
        # Enough for a process, and not for the 64 MiB of a ring.
        enough = pages * resource.getpagesize() + (32 << 20)
        resource.prlimit(supervisor, resource.RLIMIT_AS, (enough, before[1]))
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: said(running).count("could not be set up") > 1, "it is tried more than once")
        resource.prlimit(supervisor, resource.RLIMIT_AS, before)
        eventually(partial(runs_again, running, 0, victim), "another one runs")
        receiver = ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)
        assert_delivered(*running.transfer([job], receiver))


@pytest.mark.serial
def test_where_no_worker_can_be_had_the_group_stays_and_it_is_tried_again_later_and_later(
    mcrd_bench: Bench,
) -> None:
    of = streams(16)
    job, receiver = load(of, 10_000, 16_000)
    with dynamic(mcrd_bench, of, "--scale-threshold-pps", "2000") as running:
        supervisor = running.forwarder.process.pid
        with Client(running.forwarder.control_path) as client:

            def changes() -> list[dict[str, Any]]:
                return list(client.ask("stats")["result"]["scaling"][0]["changes"])

            assert client.ask("ping")["ok"]
            before = leave_descriptors(supervisor, 2)
            refused = client.ask("resize", group=0, workers=2)
            assert refused["errors"][0]["field"] == "workers"
            assert "the group is unchanged" in refused["errors"][0]["allowed"]
            with mcrd_bench.transferring([job], receiver) as transfer:
                tried = eventually(lambda: found if len(found := changes()) > 2 else None, "two more tries")
                assert all("Too many open files" in one["failed"] for one in tried)
                own = [one["at_ns"] for one in tried[1:]]
                assert own[1] - own[0] >= 1_000_000_000
                resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
                eventually(lambda: changes()[-1]["failed"] is None, "it could be done now")
                assert (changes()[-1]["before"], changes()[-1]["after"]) == (1, 3)
                transfer.stop()
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (counted.sent, counted.dropped, sum(seen.lost)) == (transfer.offered, {}, 0)
        failures = [line for line in said(running).splitlines() if " failed, it has 1: " in line]
        assert len(failures) == len([one for one in scaling(running)["changes"] if one["failed"]])


def test_where_fork_is_refused_nothing_changes_and_a_dead_worker_is_replaced_when_it_is_not(
    mcrd_bench: Bench,
) -> None:
    of = streams(8)
    job, receiver = load(of, 100, 8000)
    refusal = "Resource temporarily unavailable"
    with dynamic(mcrd_bench, of, *NEVER) as running:
        supervisor, victim = running.forwarder.process.pid, pid_of(running, 0)
        config = {"interfaces": ["in0"], "strategy": "pool", "num_workers": 1, "ring_frames": RING_FRAMES}
        with no_more_processes(supervisor):
            for command, asked in (("resize", {"group": 0, "workers": 2}), ("apply", {"config": config})):
                with pytest.raises(PeerError, match=f"(unchanged|as it was): .*{refusal}") as refused:
                    running.ask(command, **asked)
                assert "first" not in str(refused.value)
            assert children(supervisor) == {victim}
            assert_delivered(*running.transfer([job], receiver))
            os.kill(victim, signal.SIGKILL)
            eventually(
                lambda: len(re.findall(f"no process could be started .*{refusal}", said(running))) > 1,
                "it is tried again",
            )
        eventually(partial(runs_again, running, 0, victim), "another one runs")
        assert_delivered(*running.transfer([job], receiver))
        assert running.ask("resize", group=0, workers=2)["after"] == 2


def test_a_resize_that_another_plan_overtakes_is_refused(mcrd_bench: Bench) -> None:
    of = streams(16)
    config = {"interfaces": ["in0"], "strategy": "fanout", "num_workers": 2, "ring_frames": 32_768}
    with dynamic(mcrd_bench, of, *NEVER) as running:
        path = running.forwarder.control_path
        with Client(path) as applying, Client(path) as resizing:
            assert applying.ask("ping")["ok"]
            assert resizing.ask("ping")["ok"]
            for client, request in (
                (applying, {"command": "apply", "config": config}),
                (resizing, {"command": "resize", "group": 0, "workers": 3}),
            ):
                client.socket.sendall(json.dumps(request).encode() + b"\n")
            assert applying.answer()["result"]["workers_relieved"]
            answer = resizing.answer()
            # It may have come first; then the plan relieves three.
            assert answer["ok"] or "another plan" in answer["errors"][0]["allowed"]
        job, receiver = load(of, 100, 16_000)
        assert_delivered(*running.transfer([job], receiver))
        assert running.ask("ping")["workers"] == 2


def test_a_forwarder_that_is_stopped_while_it_resizes_ends_in_order(mcrd_bench: Bench) -> None:
    with dynamic(mcrd_bench, streams(1), *NEVER) as running:
        process = running.forwarder.process
        with Client(running.forwarder.control_path) as one, Client(running.forwarder.control_path) as other:
            for client, workers in ((one, 3), (other, 2)):
                assert client.ask("ping")["ok"]
                line = json.dumps({"command": "resize", "group": 0, "workers": workers})
                client.socket.sendall(line.encode() + b"\n")
            process.terminate()
            assert process.wait(60) == 0
        assert "Traceback" not in said(running)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--min-workers-per-interface", "3", "--max-workers-per-interface", "2"), "the least, 3, or more"),
        (("--scale-threshold-pps", "0"), "--scale-threshold-pps: '0'; allowed: an integer from 1"),
    ],
)
def test_bounds_that_cannot_be_are_refused(options: Sequence[str], complaint: str) -> None:
    command = [program("mcrd"), "supervisor", "--auto-scale", "--interface", "in0", *options]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert complaint in refused.stderr
