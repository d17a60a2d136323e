"""Processes that are killed and forwarders that are stopped under load: every datagram is accounted for."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kernel_support.mcrd import (
    Client,
    Counts,
    Relay,
    counts,
    eventually,
    forwarded,
    groups_joined,
    mcrctl,
    program,
    prompt_answers,
    relay,
    rule,
    some_cpus,
    spread,
)
from kernel_support.traffic import Bench, Transfer, bench, streams
from kernel_support.wires import Port, Wiring
from process_support import children

from lab.load.jobs import ReceiverJob, SenderJob
from lab.load.topology import Topology
from lab.netns import namespaces as netns

OF = streams(8)
RULES = [rule(stream, "out0", "out1") for stream in OF]


@pytest.fixture(scope="module")
def faulty_bench() -> Iterator[Bench]:
    """A bench of its own: nothing else is to run in the forwarder's namespace."""
    with bench(Topology(outputs=2), "faults") as made:
        yield made


def worker_pids(running: Relay) -> list[int]:
    """The workers' processes; a slot whose process is yet to come has none."""
    return [worker["pid"] for worker in running.forwarder.stats()["workers"] if worker["pid"]]


def await_end(pids: Sequence[int], timeout_s: float = 10.0) -> None:
    """Until these processes, which are not this one's children, are gone."""
    poller = select.poll()
    left = {}
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        left[descriptor] = pid
        poller.register(descriptor, select.POLLIN)
    try:
        while left:
            ended = poller.poll(timeout_s * 1000)
            assert ended, f"still there after {timeout_s:g} s: {sorted(left.values())}"
            for descriptor, _ in ended:
                poller.unregister(descriptor)
                os.close(descriptor)
                del left[descriptor]
    finally:
        for descriptor in left:
            os.close(descriptor)


def refused_by_devices(wires: Wiring, of: Bench) -> int:
    """Copies that the kernel had no room for behind the outputs: a machine that is too busy (tx_dropped)."""
    ports = [Port(of.lab.fwd, link.sender.interface) for link in of.lab.outputs]
    return sum(wires.statistics(port)["tx_dropped"] for port in ports)


def assert_received(transfer: Transfer, counted: Counts, refused: int) -> None:
    """Every copy that is counted as sent arrived, once, whole and in order, or was refused by a device."""
    seen = transfer.seen
    assert sum(seen.received) + refused == counted.sent
    assert (sum(seen.duplicated), sum(seen.reordered), sum(seen.corrupted)) == (0, 0, 0)
    assert (seen.unexpected, seen.malformed, sum(seen.drops.values())) == (0, 0, 0)


@pytest.mark.serial
@pytest.mark.parametrize("rate_dps", [10_000, 60_000])
def test_workers_killed_under_load(faulty_bench: Bench, wires: Wiring, rate_dps: int) -> None:
    refused = refused_by_devices(wires, faulty_bench)
    offered = rate_dps * 2
    job = SenderJob(interface="g0", streams=OF, count=offered, rate_dps=rate_dps)
    receiving = ReceiverJob(flows=forwarded(OF, offered // len(OF), "r0", "r1"), payload_bytes=64)
    with relay(faulty_bench, "in0", *RULES, workers=len(some_cpus())) as running:
        first = worker_pids(running)

        def matched(least: int) -> bool:
            return counts(running.forwarder.stats()).matched >= least

        def accounted() -> int:
            now = counts(running.forwarder.stats())
            return now.received + now.dropped.get("kernel", 0)

        def replaced(killed: list[int]) -> bool:
            workers = running.ask("list-workers")["workers"]
            states = {worker["state"] for worker in workers}
            return states == {"running"} and not {worker["pid"] for worker in workers} & set(killed)

        with (
            prompt_answers(running),
            faulty_bench.transferring(spread(job), receiving) as transfer,
        ):
            for at, victims in ((offered // 6, 1), (offered // 3, len(first)), (offered // 2, len(first))):
                eventually(partial(matched, at), f"{at:,} datagrams matched")
                killed = worker_pids(running)[:victims]
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                eventually(partial(replaced, killed), "all workers run again")
                assert matched(at)
            eventually(lambda: accounted() >= offered, "everything accounted for")
        stats = running.forwarder.stats()
        listed = running.ask("list")["rules"]
    assert not set(first) & {worker["pid"] for worker in stats["workers"]}
    assert sum(worker["restarts"] for worker in stats["workers"]) == 1 + 2 * len(first)
    assert stats["totals"]["pending"] == 0
    assert [one["rule_id"] for one in listed] == [one["rule_id"] for one in RULES]
    counted = counts(stats)
    assert set(counted.dropped) <= {"kernel", "interrupted"}
    assert sum(one["matched"] for one in stats["rules"]) == counted.matched
    assert transfer.offered == offered
    assert offered == counted.received + counted.dropped.get("kernel", 0)
    assert 2 * counted.matched == counted.sent + counted.copies_lost
    assert_received(transfer, counted, refused_by_devices(wires, faulty_bench) - refused)


def test_a_killed_supervisor_leaves_no_worker_and_its_place_can_be_taken(faulty_bench: Bench) -> None:
    with relay(faulty_bench, "in0", *RULES, workers=3) as killed:
        workers = worker_pids(killed)
        assert len(workers) == 3
        job = SenderJob(interface="g0", streams=OF, count=20_000, rate_dps=20_000)
        with faulty_bench.transferring(spread(job), ReceiverJob(interfaces=("r0", "r1"))) as transfer:
            eventually(lambda: counts(killed.forwarder.stats()).matched > 1000, "traffic flows")
            killed.forwarder.process.kill()
            await_end(workers)
            assert killed.forwarder.process.wait() == -signal.SIGKILL
            transfer.stop()
        assert netns.processes(faulty_bench.lab.fwd) == []
        path = killed.forwarder.control_path
        assert path.is_socket()
        with relay(faulty_bench, "in0", options=["--control-socket-path", str(path)]) as successor:
            assert killed.ask("ping")["pid"] == successor.forwarder.process.pid


@contextmanager
def hasty_forwarder(
    lab: Bench, directory: Path, *options: str, first: str = ""
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """One with less patience than usual that does ``first``, and its control socket."""
    impatient = (
        "import os, signal, sys; from forwarder.cli import mcrd\n"
        "from forwarder.supervisor import supervisor; from forwarder.workers import entry_point, handle\n"
        "supervisor.UPKEEP_S, handle.HANGING_AFTER_S, handle.START_HANGS_AFTER_S = 0.5, 2.0, 3.0\n"
        f"{first}sys.argv[0] = 'mcrd'; mcrd.app()"
    )
    path = directory / "control"
    command = [sys.executable, "-c", impatient, "supervisor", *options, "--control-socket-path", str(path)]
    with netns.spawn(lab.lab.fwd, command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, path
        finally:
            process.kill()


def workers_of(supervisor: int) -> set[int]:
    """Not a process that compiles for it."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(supervisor)}
    return {pid for pid, command in commands.items() if b"forwarder.workers.compilation" not in command}


def all_running(client: Client) -> list[dict[str, Any]]:
    found = client.ask("list-workers")["result"]["workers"]
    return found if all(worker["state"] == "running" for worker in found) else []


def said_at_the_end(process: subprocess.Popen[str]) -> str:
    process.terminate()
    return process.communicate(timeout=30)[1]


def test_a_worker_that_hangs_is_found_out_without_a_change_that_waits_for_it(
    faulty_bench: Bench, tmp_path: Path
) -> None:
    (rules := tmp_path / "rules.json").write_text(json.dumps({"rules": [RULES[0]]}))
    options = ("--interface", "in0", "--rules", str(rules))
    with hasty_forwarder(faulty_bench, tmp_path, *options) as (process, path):
        eventually(lambda: mcrctl(path, "ping").returncode == 0, "the supervisor answers")
        with Client(path, timeout_s=60) as client:
            hanging, *others = eventually(partial(all_running, client), "all run")
            os.kill(hanging["pid"], signal.SIGSTOP)
            eventually(
                lambda: client.ask("list-workers")["result"]["workers"][0]["restarts"], "it was killed"
            )
            now = eventually(partial(all_running, client), "another process is in its place")
            assert now[0]["pid"] != hanging["pid"]
            assert now[1:] == others, "they have answered"
        said = said_at_the_end(process)
    assert f"process {hanging['pid']} did not answer for 2 s and was killed by SIGKILL" in said


def test_a_worker_that_hangs_before_it_was_told_anything_is_replaced(
    faulty_bench: Bench, tmp_path: Path
) -> None:
    options = ("--interface", "in0", "--num-workers", "1")
    mark = tmp_path / "the first one hangs"
    hangs = (
        "begin = entry_point.main\n"
        "def hang_once(*start):\n"
        f"    try: os.mkdir({str(mark)!r})\n"
        "    except FileExistsError: return begin(*start)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "entry_point.main = hang_once\n"
    )
    with hasty_forwarder(faulty_bench, tmp_path, *options, first=hangs) as (process, path):
        eventually(mark.exists, "a worker is born")
        (born,) = workers_of(process.pid)
        eventually(lambda: mcrctl(path, "ping").returncode == 0, "the supervisor answers")
        with Client(path, timeout_s=60) as client:
            (now,) = eventually(partial(all_running, client), "it runs")
        said = said_at_the_end(process)
    assert (now["pid"] != born, now["restarts"]) == (True, 1)
    assert f"process {born} did not answer for 3 s and was killed by SIGKILL" in said


def test_a_forwarder_that_compiles_tells_of_its_rules_and_is_stopped_at_once(
    faulty_bench: Bench, tmp_path: Path
) -> None:
    (rules := tmp_path / "rules.json").write_text(json.dumps({"rules": RULES}))
    options = ("--interface", "in0", "--rules", str(rules))
    compiles = "import asyncio; supervisor.compile_apart = lambda: asyncio.sleep(90)\n"
    with hasty_forwarder(faulty_bench, tmp_path, *options, first=compiles) as (process, path):
        listed = eventually(lambda: mcrctl(path, "list", "--json").stdout, "it answers")
        assert len(json.loads(listed)["rules"]) == len(RULES)
        stats = json.loads(mcrctl(path, "stats", "--json").stdout)
        assert {(one["matched"], one["sent"]) for one in stats["rules"]} == {(0, 0)}
        began = time.monotonic()
        said = said_at_the_end(process)
        assert process.returncode == 0
    assert time.monotonic() - began < 30
    assert "Traceback" not in said


def test_a_forwarder_is_stopped_while_a_worker_hangs_that_it_cannot_start_without(
    faulty_bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "control"
    command = [program("mcrd"), "supervisor", "--interface", "in0", "--control-socket-path", str(path)]
    process = netns.spawn(faulty_bench.lab.fwd, command, stdout=subprocess.PIPE, text=True)
    born = eventually(partial(workers_of, process.pid), "a worker is born")
    for worker in born:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)
    process.terminate()
    try:
        printed, _ = process.communicate(timeout=30)
    finally:
        process.kill()  # no signal to one that has ended
    assert process.returncode == 0
    assert "received 0 datagrams" in printed
    assert not path.exists()
    assert netns.processes(faulty_bench.lab.fwd) == []


@pytest.mark.serial
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to all", "mcrctl shutdown"])
def test_a_forwarder_stopped_under_load(faulty_bench: Bench, wires: Wiring, how: str) -> None:
    refused = refused_by_devices(wires, faulty_bench)
    job = SenderJob(interface="g0", streams=OF, count=100_000, rate_dps=50_000)
    receiving = ReceiverJob(flows=forwarded(OF, 12_500, "r0", "r1"), payload_bytes=64)
    with relay(faulty_bench, "in0", *RULES, workers=len(some_cpus())) as running, ExitStack() as stack:
        for _ in range(20):  # clients that say nothing must not keep it
            stack.enter_context(Client(running.forwarder.control_path))
        pids = [running.forwarder.process.pid, *worker_pids(running)]
        assert len(groups_joined(faulty_bench.lab.fwd, "in0")) == len(OF)
        with faulty_bench.transferring(spread(job), receiving) as transfer:
            eventually(lambda: counts(running.forwarder.stats()).matched > 20_000, "traffic flows")
            began = time.monotonic()
            if how == "mcrctl shutdown":
                stopped = mcrctl(running.forwarder.control_path, "shutdown")
                assert (stopped.returncode, stopped.stdout) == (0, "stopping\n")
                began = time.monotonic()
            elif how == "SIGTERM":
                running.forwarder.process.terminate()
            else:  # what a terminal does with Ctrl-C
                for pid in pids:
                    with suppress(ProcessLookupError):  # the first may have ended the others by now
                        os.kill(pid, signal.SIGINT)
            status = running.forwarder.process.wait(10)
            took_s = time.monotonic() - began
            transfer.stop()
        printed = (running.forwarder.directory / "stdout").read_text()
        said = (running.forwarder.directory / "stderr").read_text()
        assert not running.forwarder.control_path.exists()
    assert (status, said) == (0, "")
    assert took_s < 2
    assert netns.processes(faulty_bench.lab.fwd) == []
    assert groups_joined(faulty_bench.lab.fwd, "in0") == set()
    final = json.loads(printed)
    counted = counts(final)
    assert final["totals"]["pending"] == 0
    assert counted.matched > 20_000
    assert counted.dropped == {}
    assert counted.sent == 2 * counted.matched
    assert_received(transfer, counted, refused_by_devices(wires, faulty_bench) - refused)
