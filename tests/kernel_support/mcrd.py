"""Forwarders in a lab: rules, what they counted, what must hold between the counts."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

import pytest
from process_support import children
from typer.testing import CliRunner

from forwarder.cli.mcrctl import app as mcrctl_app
from kernel_support.traffic import Bench
from lab.load.jobs import Flow, ReceiverJob, ReceiverReport, SenderJob, Stream
from lab.netns import namespaces as netns
from lab.peers.base import PeerError
from lab.peers.mcrd import EGRESS_REASONS, Forwarder, start_forwarder

Rule = dict[str, Any]
Value = TypeVar("Value")

OUTPUT_OFFSET = 1 << 16
"""From an input group to the group that a test's rule sends to: 239.1.0.0 becomes 239.2.0.0."""
OUTPUT_PORT = 5002

RING_FRAMES = 32_768
"""A third of a second of 100k/s: a worker that a busy machine holds up for less must lose nothing."""


def output_group(group: IPv4Address | str) -> IPv4Address:
    return IPv4Address(group) + OUTPUT_OFFSET


def output(group: IPv4Address | str, interface: str = "out0", **fields: Any) -> dict[str, Any]:
    return {"group": str(group), "port": OUTPUT_PORT, "interface": interface, **fields}


def rule(stream: Stream, *interfaces: str, input_interface: str = "in0", **fields: Any) -> Rule:
    """A rule for ``stream``, to its output group on each of ``interfaces`` (``out0`` when none is named)."""
    return {
        "rule_id": f"{input_interface}-{stream.group}",
        "input_interface": input_interface,
        "input_group": str(stream.group),
        "input_port": stream.port,
        "outputs": [output(output_group(stream.group), name) for name in interfaces or ("out0",)],
        **fields,
    }


def forwarded(of: Sequence[Stream], sequences: int, *interfaces: str) -> tuple[Flow, ...]:
    """``of`` as they come out of the rules of :func:`rule`, at each of ``interfaces`` (``r0``)."""
    return tuple(
        Flow(
            interface=interface,
            group=output_group(stream.group),
            port=OUTPUT_PORT,
            stream_id=stream.stream_id,
            sequences=sequences,
        )
        for interface in interfaces or ("r0",)
        for stream in of
    )


def some_cpus() -> tuple[int, ...]:
    """Four CPUs that tests send from and place workers on, or as many as there are."""
    return tuple(sorted(os.sched_getaffinity(0))[:4])


def load(of: Sequence[Stream], each: int, rate_dps: int) -> tuple[SenderJob, ReceiverJob]:
    """``each`` datagrams of every stream into ``in0``, from one CPU, and who is to get them forwarded."""
    job = SenderJob(interface="g0", streams=of, count=each * len(of), rate_dps=rate_dps, cpu=some_cpus()[0])
    return job, ReceiverJob(flows=forwarded(of, each), payload_bytes=64)


def spread(job: SenderJob) -> list[SenderJob]:
    """``job`` as one for each CPU, each with its share of the streams.

    A veth pair hands a datagram over on the CPU that it was sent from, so a sender that stays there fills one
    worker's ring, in order, and cannot outrun the kernel. Receive packet steering could do the spreading, but
    its queue of 1,000 datagrams a CPU (net.core.netdev_max_backlog) overflows on a busy machine, where no
    forwarder sees what is lost.
    """
    cpus = some_cpus()
    if job.frames:
        return [job.model_copy(update={"cpu": cpus[0]})]
    shares = [job.streams[place :: len(cpus)] for place in range(len(cpus))]
    total = len(job.streams)
    assert job.count is None or job.count % total == 0
    return [
        job.model_copy(
            update={
                "streams": share,
                "count": job.count and job.count * len(share) // total,
                "rate_dps": job.rate_dps and job.rate_dps * len(share) // total,
                "cpu": cpu,
            }
        )
        for share, cpu in zip(shares, cpus, strict=True)
        if share
    ]


def pinned(jobs: Sequence[SenderJob]) -> list[SenderJob]:
    """``jobs``, those without a CPU on one each in turn.

    A sender that the kernel moves to another CPU sends into another worker's ring from then on, and overtakes
    what waits in the one before.
    """
    cpus = some_cpus()
    return [
        job if job.cpu is not None else job.model_copy(update={"cpu": cpus[number % len(cpus)]})
        for number, job in enumerate(jobs)
    ]


@dataclass(frozen=True)
class Counts:
    """A forwarder's exact counters over some time: datagrams in, copies out, and what became of the rest."""

    received: int
    matched: int
    matched_bytes: int
    sent: int
    sent_bytes: int
    dropped: dict[str, int]
    """By reason, those that are not zero; ``kernel``: frames that found no free slot in a ring; ``early``:
    datagrams that the driver dropped before."""
    per_worker: tuple[int, ...]
    """Datagrams matched by each worker."""

    @property
    def copies_lost(self) -> int:
        return sum(count for reason, count in self.dropped.items() if reason in EGRESS_REASONS)

    @property
    def datagrams_lost(self) -> int:
        return sum(self.dropped.values()) - self.copies_lost


def counts(stats: dict[str, Any], before: dict[str, Any] | None = None) -> Counts:
    """What ``stats`` says beyond ``before``; fails when its own sums do not add up."""
    now, then = _flat(stats), _flat(before) if before else {}
    change = {name: value - then.get(name, 0) for name, value in now.items()}
    dropped = {
        name.removeprefix("dropped."): value
        for name, value in change.items()
        if name.startswith("dropped.") and value
    }
    found = Counts(
        **{name: change[name] for name in ("received", "matched", "matched_bytes", "sent", "sent_bytes")},
        dropped=dropped,
        per_worker=tuple(change[f"worker.{worker['worker_id']}"] for worker in stats["workers"]),
    )
    assert sum(found.per_worker) == found.matched
    before_workers = dropped.get("kernel", 0) + dropped.get("early", 0)
    assert found.received == found.matched + found.datagrams_lost - before_workers
    return found


def _flat(stats: dict[str, Any]) -> dict[str, int]:
    totals = stats["totals"]
    return {
        **{name: totals[name] for name in ("received", "matched", "matched_bytes", "sent", "sent_bytes")},
        **{f"dropped.{reason}": count for reason, count in totals["dropped"].items()},
        "dropped.kernel": sum(entry["kernel_drops"] for entry in stats["interfaces"]),
        "dropped.early": sum(entry["early_drops"] for entry in stats["interfaces"]),
        **{f"worker.{entry['worker_id']}": entry["counters"]["matched"] for entry in stats["workers"]},
    }


def rule_counts(stats: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(matched, sent) of each rule by its id."""
    return {entry["rule_id"]: (entry["matched"], entry["sent"]) for entry in stats["rules"]}


class Relay:
    """A forwarder on a bench, for one test after another."""

    def __init__(self, bench: Bench, forwarder: Forwarder) -> None:
        self.bench = bench
        self.forwarder = forwarder

    def ask(self, command: str, **fields: Any) -> Any:
        return self.forwarder.ask(command, **fields)

    def owes_nothing(self) -> bool:
        """No datagram in a ring, no copy still to be sent; or it has ended."""
        try:
            stats = self.forwarder.stats()
        except PeerError:
            return True
        waiting = sum(entry["waiting_frames"] for one in stats["workers"] for entry in one["sockets"])
        return not waiting and not stats["totals"]["pending"]

    @contextmanager
    def rules(self, *rules: Rule) -> Iterator[None]:
        """``rules`` in force for the length of a ``with`` block."""
        self.ask("add", rules=list(rules))
        try:
            yield
        finally:
            for one in rules:
                self.ask("remove", rule_id=one["rule_id"])

    def transfer(
        self, jobs: SenderJob | Sequence[SenderJob], receiver_job: ReceiverJob
    ) -> tuple[int, ReceiverReport, Counts]:
        """Send and receive: datagrams offered, the receiver's report, what the forwarder counted.

        A single job is spread over the CPUs (:func:`spread`), several have one each (:func:`pinned`).
        """
        before = self.forwarder.stats()
        listed = spread(jobs) if isinstance(jobs, SenderJob) else pinned(jobs)
        sent, seen = self.bench.transfer_all(listed, receiver_job)
        assert not sum(seen.drops.values()), f"the receiver itself dropped frames: {seen.drops}"
        offered = sum(report.offered for report in sent)
        return offered, seen, counts(self.forwarder.stats(), before)


@contextmanager
def relay(
    bench: Bench,
    interfaces: str,
    *rules: Rule,
    workers: int = 1,
    strategy: str = "fanout",
    options: Sequence[str] = (),
) -> Iterator[Relay]:
    """A forwarder of its own for the length of a ``with`` block.

    ``interfaces``: inputs, commas between; none for those that rules name.
    """
    forwarder = start_forwarder(
        bench.lab.fwd,
        interfaces.split(",") if interfaces else [],
        {"rules": list(rules)},
        strategy=strategy,
        workers=workers,
        options=("--ring-frames", str(RING_FRAMES), *options),
    )
    made = Relay(bench, forwarder)
    bench.settled.append(made.owes_nothing)
    try:
        yield made
    finally:
        bench.settled.remove(made.owes_nothing)
        forwarder.stop()


def assert_delivered(offered: int, seen: ReceiverReport, counted: Counts, copies: int = 1) -> None:
    """Every datagram matched, every copy sent and received once, in order, and nothing dropped anywhere."""
    assert counted.dropped == {}
    assert (counted.received, counted.matched, counted.sent) == (offered, offered, offered * copies)
    assert_intact(seen)
    assert sum(seen.received) == counted.sent


def assert_intact(seen: ReceiverReport) -> None:
    """Nothing lost, repeated, out of order or damaged, and nothing that was not sent."""
    assert (sum(seen.lost), sum(seen.duplicated), sum(seen.reordered), sum(seen.corrupted)) == (0, 0, 0, 0)
    assert (seen.unexpected, seen.malformed) == (0, 0)


def eventually(probe: Callable[[], Value], what: str, within_s: float = 60.0) -> Value:
    """The first true value of ``probe``, asked again and again; fails with ``what`` when time is up.

    Long by default: only a test that fails waits for it.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}; last seen: {value!r}"
        time.sleep(0.01)


def running_pid(running: Relay, worker: int) -> int:
    """The process of a worker that runs, 0 if it does not."""
    listed: dict[str, Any] = running.ask("list-workers")["workers"][worker]
    return int(listed["pid"]) if listed["state"] == "running" else 0


def pid_of(running: Relay, worker: int) -> int:
    """The process of a worker, once it runs: never 0, which to os.kill is the whole group of the tests."""
    return eventually(lambda: running_pid(running, worker), f"worker {worker} runs")


def runs_again(running: Relay, worker: int, before: int) -> bool:
    return running_pid(running, worker) not in (0, before)


def leave_descriptors(pid: int, count: int) -> tuple[int, int]:
    """Have a process get no more than ``count`` descriptors beside those that it has; the limit before."""
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = [number for number in range(len(taken) + count + 1) if number not in taken]
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    return resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[count], most))


@contextmanager
def no_more_processes(pid: int) -> Iterator[None]:
    """Have fork(2) and clone(2) fail (EAGAIN) in a process and all its children, in a cgroup of theirs.

    No resource limit does that to root (``copy_process`` in ``kernel/fork.c``). Skips the test where no
    controller of processes is there to be used.
    """
    hierarchies = Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")
    home = next((one for one in hierarchies if _counts_processes(one)), None)
    if home is None:
        pytest.skip("no cgroup controller of processes here to set a limit with")
    members = [pid, *children(pid)]
    [before] = {_cgroup(home, member) for member in members}
    group = home / f"mcrd-{pid}"
    group.mkdir()
    try:
        for member in members:
            (group / "cgroup.procs").write_text(str(member))
        (group / "pids.max").write_text("0")
        yield
    finally:
        # Still under the limit: nobody can be born in the group any more.
        for line in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (before / "cgroup.procs").write_text(line)
        group.rmdir()


def _counts_processes(hierarchy: Path) -> bool:
    """Whether groups right in it have the controller."""
    offered = hierarchy / "cgroup.subtree_control"
    first_version = hierarchy.name == "pids" and (hierarchy / "cgroup.procs").exists()
    return first_version or (offered.exists() and "pids" in offered.read_text().split())


def _cgroup(hierarchy: Path, pid: int) -> Path:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    controllers = "pids" if hierarchy.name == "pids" else ""
    [path] = [path for _, names, path in (line.split(":", 2) for line in lines) if names == controllers]
    return hierarchy / path.lstrip("/")


class Client:
    """A connection to a control socket, spoken to in raw lines."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")

    def say(self, line: bytes) -> dict[str, Any]:
        """The answer to one line."""
        self.socket.sendall(line + b"\n")
        return self.answer()

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        return self.say(json.dumps({"command": command, **fields}).encode())

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def prompt_answers(relay: Relay) -> Iterator[None]:
    """Every ``ping`` is answered within 100 ms for the length of a ``with`` block; there is at least one."""
    over = threading.Event()
    slowest = [0.0]

    def ask() -> None:
        with Client(relay.forwarder.control_path) as client:
            while True:
                began = time.monotonic()
                assert client.ask("ping")["ok"]
                slowest.append(time.monotonic() - began)
                if over.wait(0.005):
                    return

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            over.set()
            asking.result()
    assert max(slowest) < 0.1, sorted(slowest)[-5:]


def groups_joined(namespace: str, interface: str) -> set[str]:
    """The IPv4 groups that an interface has joined (/proc/net/igmp), but for all-systems, which all join."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in netns.run(namespace, ["cat", "/proc/net/igmp"]).splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t"):
            name = words[1]
            found[name] = set()
        else:
            found[name].add(socket.inet_ntoa(int(words[0], 16).to_bytes(4, "little")))
    return found.get(interface, set()) - {"224.0.0.1"}


def program(name: str) -> str:
    """The path of one of the project's programs."""
    return str(Path(sys.executable).with_name(name))


def mcrctl(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``mcrctl`` in this process: one of its own loads for half a second."""
    words = ["--socket-path", str(path), *arguments]
    done = CliRunner().invoke(mcrctl_app, words, catch_exceptions=False)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
