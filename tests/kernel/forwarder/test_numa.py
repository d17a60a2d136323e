"""Memory comes from the node that it is asked of, here node 0, and a kernel that refuses is a warning.

Where every page is on node 0 anyway, it is the policy by which pages are taken that shows: ``default``, or
``prefer:0`` (numa_maps, proc(5)).
"""

from __future__ import annotations

import ctypes
import json
import mmap
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from kernel_support import without_numa
from kernel_support.mcrd import Relay, eventually, mcrctl, relay, rule
from kernel_support.traffic import Bench, streams

from forwarder.abi import mempolicy, syscalls
from forwarder.net import packet_sockets
from forwarder.net.packet_sockets import Ring, open_receivers
from forwarder.plan.host import read_host
from lab.netns import namespaces as netns

pytestmark = pytest.mark.skipif(not read_host().memory, reason="a kernel without memory nodes")

MPOL_F_NODE, MPOL_F_ADDR = 1, 2
PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


def policy() -> tuple[int, int]:
    """Mode and first 64 nodes of this thread's policy."""
    mode, mask = ctypes.c_int(), (ctypes.c_ulong * mempolicy.WORDS)()
    bits = ctypes.c_long(mempolicy.MAXNODE)
    assert libc.syscall(syscalls.GET_MEMPOLICY, ctypes.byref(mode), mask, bits, None, 0) == 0
    return mode.value, mask[0]


def node_of(address: int) -> int:
    """The node that the page at ``address`` is on."""
    node = ctypes.c_int(-1)
    flags = MPOL_F_NODE | MPOL_F_ADDR
    done = libc.syscall(
        syscalls.GET_MEMPOLICY, ctypes.byref(node), None, ctypes.c_long(0), ctypes.c_void_p(address), flags
    )
    assert done == 0, ctypes.get_errno()
    return node.value


def policies(pid: int, pattern: str = "") -> set[str]:
    """The policies by which a process takes pages of the mappings whose line has ``pattern``."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    return {line.split()[1] for line in lines if re.search(pattern, line)}


def nodes(pid: int, pattern: str = "") -> set[str]:
    """The nodes that the pages of these mappings are on."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    return {node for line in lines if re.search(pattern, line) for node in re.findall(r" N(\d+)=", line)}


def test_a_policy_is_the_threads_for_as_long_as_asked_and_its_threads_inherit_it() -> None:
    found: list[tuple[int, int]] = []
    before = policy()
    with mempolicy.preferring(0):
        assert policy() == (mempolicy.MPOL_PREFERRED, 1)
        thread = threading.Thread(target=lambda: found.append(policy()))
        thread.start()
        thread.join()
        with mempolicy.preferring(None):
            assert policy() == (mempolicy.MPOL_PREFERRED, 1)
    assert found == [(mempolicy.MPOL_PREFERRED, 1)]
    assert policy() == before


def test_a_node_that_is_not_there_is_refused_and_changes_nothing() -> None:
    before = policy()
    absent = max(found.node for found in read_host().memory) + 1
    assert mempolicy.refusal(0) is None
    for node in (absent, 1023, 1024, 1 << 20):
        assert mempolicy.refusal(node) == "Invalid argument"
        with mempolicy.preferring(node):
            assert policy() == before
    memory = mmap.mmap(-1, PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    mempolicy.prefer_for(address, PAGE, absent)
    memory[0] = 1
    assert node_of(address) in {found.node for found in read_host().memory}


def test_every_ring_is_made_under_its_own_policy_and_is_on_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[int, int]] = []
    real = packet_sockets.libc

    class Watched:
        def setsockopt(self, *arguments: object) -> int:
            made.append(policy())
            return int(real.setsockopt(*arguments))

        def bind(self, *arguments: object) -> int:
            return int(real.bind(*arguments))

    monkeypatch.setattr(packet_sockets, "libc", Watched())
    rings = [Ring(2048, 64, 0), Ring(2048, 64, None), Ring(2048, 64, 0)]
    opened = open_receivers(socket.if_nametoindex("lo"), rings)
    try:
        assert sorted(made) == [policy(), (mempolicy.MPOL_PREFERRED, 1), (mempolicy.MPOL_PREFERRED, 1)]
        with mmap.mmap(opened[0].fileno(), rings[0].ring_bytes) as mapped:
            first = ctypes.c_char.from_buffer(mapped)
            start = ctypes.addressof(first)
            assert {node_of(start + page) for page in range(0, rings[0].ring_bytes, PAGE)} == {0}
            del first
    finally:
        packet_sockets.close_all(opened)


def test_a_worker_takes_its_memory_and_its_counters_from_its_node(mcrd_bench: Bench) -> None:
    def workers(running: Relay) -> list[dict[str, object]]:
        found: list[dict[str, object]] = running.ask("list-workers")["workers"]
        return found

    with relay(mcrd_bench, "in0", rule(streams(1)[0]), workers=2) as running:
        for worker in workers(running):
            pid = worker["pid"]
            assert worker["node"] == 0
            assert isinstance(pid, int)
            assert policies(pid, "heap|stack") == {"prefer:0"}
            assert policies(pid, "mcrd-counters") == {"prefer:0"}
            assert nodes(pid, "heap|stack|mcrd-counters") == {"0"}
        supervisor = running.ask("ping")["pid"]
        assert policies(supervisor, "heap|stack") == {"default"}
        assert policies(supervisor, "mcrd-counters") == {"prefer:0"}
        shown = mcrctl(running.forwarder.control_path, "list-workers").stdout.splitlines()
        assert "node" in shown[0].split()


def test_a_filter_that_refuses_policies_is_a_warning(mcrd_bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "control"
    options = ["supervisor", "--interface", "in0", "--num-workers", "1", "--control-socket-path", str(path)]
    command = [sys.executable, "-P", without_numa.__file__, *options]
    with netns.spawn(mcrd_bench.lab.fwd, command, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr
        warnings = []
        while "takes no wishes" not in (line := process.stderr.readline()):
            assert line, warnings
            warnings.append(line)
        assert line.startswith("warning: Memory node 0 takes no wishes (Operation not permitted)")
        eventually(lambda: mcrctl(path, "ping").returncode == 0, "the supervisor answers")

        def running() -> list[dict[str, Any]]:
            listed = json.loads(mcrctl(path, "list-workers", "--json").stdout)["workers"]
            return [worker for worker in listed if worker["state"] == "running"]

        [worker] = eventually(running, "its worker runs")
        assert policies(worker["pid"]) == {"default"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
