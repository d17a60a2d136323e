"""What the counters that a ledger is made of really count, on this kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import pytest

from lab.load.jobs import SenderJob, Stream
from lab.load.topology import Topology
from lab.measure import cpu, memory, since
from lab.measure.network import read_interfaces
from lab.netns.build import build
from lab.netns.netlink import Netlink
from lab.steps.kinds.footprint import shared_bytes
from lab.traffic.process import start_sender

pytestmark = pytest.mark.serial

STREAM = Stream(stream_id=0, group="239.1.1.1", port=5001, source="10.10.0.1", source_port=4000)


def test_veth_counts_each_frame_on_both_ends(run_id: str) -> None:
    with build(Topology(), run_id) as lab, Netlink(lab.gen) as gen, Netlink(lab.fwd) as fwd:
        before = read_interfaces(gen), read_interfaces(fwd)
        with start_sender(lab.gen, SenderJob(interface="g0", streams=(STREAM,), count=1000)) as sender:
            sender.ready()
            sender.go()
            assert sender.report().offered == 1000
        sent = since(read_interfaces(gen), before[0])["g0"]
        received = since(read_interfaces(fwd), before[1])["in0"]
    frame_bytes = 14 + 20 + 8 + 64
    assert (sent.tx_packets, sent.tx_bytes, sent.tx_dropped) == (1000, 1000 * frame_bytes, 0)
    assert (received.rx_packets, received.rx_bytes) == (1000, 1000 * frame_bytes)
    assert (sent.rx_packets, received.tx_packets) == (0, 0)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="steering to another CPU needs two")
def test_a_full_backlog_is_one_drop_in_two_counters(run_id: str) -> None:
    """GSO frames cut up before the device come faster than the other CPU takes them."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    topology = Topology(rps_cpus=(second,))
    job = SenderJob(
        interface="g0", streams=(STREAM,), duration_s=0.5, segments=60, payload_bytes=18, cpu=first
    )
    with (
        build(topology, run_id) as lab,
        Netlink(lab.gen) as gen,
        Netlink(lab.fwd) as fwd,
        start_sender(lab.gen, job) as sender,
    ):
        offered = 0
        for _ in range(20):  # a busy machine may hold the sender up for all of its time
            sender.ready()
            sender.go()
            offered += sender.report().offered
            sent, received = read_interfaces(gen)["g0"], read_interfaces(fwd)["in0"]
            if sent.tx_dropped:
                break
            sender.again(job)
    assert sent.tx_dropped > 0
    assert offered == sent.tx_packets + sent.tx_dropped
    assert sent.tx_packets == received.rx_packets
    assert received.rx_dropped == sent.tx_dropped


RING = """
import sys
from lab.traffic.receive.ring import BLOCK_BYTES, Ring, capture_filter
print("ready", flush=True)
sys.stdin.readline()
ring = Ring("lo", 0, (16 << 20) // BLOCK_BYTES, capture_filter(60, everything=False), vnet=False)
ring.bytes[::4096].sum()
print("ready", flush=True)
sys.stdin.readline()
block = bytearray(8 << 20)
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_ring_is_counted_apart_from_private_memory() -> None:
    pid, (base, ring, more) = readings_of([sys.executable, "-c", RING])
    assert base.ring_bytes == 0
    assert base.private_bytes > 1 << 20
    assert ring.since(base).ring_bytes == 16 << 20
    assert ring.since(base).private_bytes < 1 << 20
    assert ring.since(base).pss_bytes < 1 << 20
    assert more.since(ring).ring_bytes == 0
    assert 8 << 20 <= more.since(ring).private_bytes < 9 << 20
    with pytest.raises(ProcessLookupError, match=f"process {pid} is gone"):
        memory.process_memory(pid)


FILE = """
import mmap, sys
print("ready", flush=True)
sys.stdin.readline()
with open(sys.argv[1], "r+b") as file:
    pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
seen = sum(pages[::4096])
print("ready", flush=True)
sys.stdin.readline()
pages[: 4 << 20] = bytes(4 << 20)
print("ready", flush=True)
sys.stdin.readline()
"""


def test_what_is_read_of_a_file_is_private_and_what_is_written_is_dirty() -> None:
    # On a disk: what a tmpfs holds is dirty for ever.
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(bytes(8 << 20))
        os.fsync(file.fileno())
        _, (before, seen, written) = readings_of([sys.executable, "-c", FILE, file.name])
    assert seen.since(before).private_bytes > 7 << 20
    assert seen.since(before).dirty_bytes < 1 << 20
    assert 7 << 20 < seen.since(before).file_bytes < 9 << 20
    assert -5 << 20 < written.since(seen).file_bytes < -3 << 20, "no pages of the file any more"
    assert 4 << 20 <= written.since(seen).dirty_bytes < 5 << 20


def readings_of(command: Sequence[str]) -> tuple[int, list[memory.ProcessMemory]]:
    """What a process has at each of the three lines that it says, after its pid; it has ended then."""
    pipe, readings = subprocess.PIPE, []
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(3):
            assert process.stdout.readline() == "ready\n"
            readings.append(memory.process_memory(process.pid))
            process.stdin.write("\n")
    return process.pid, readings


FORKS = """
import os, sys
template = bytearray(32 << 20)
for _ in range(3):
    if os.fork() == 0:
        own = bytearray(4 << 20)
        os.write(1, b"%d\\n" % os.getpid())
        os.read(0, 1)
        os._exit(0)
for _ in range(3):
    os.wait()
"""


def test_what_forks_share_is_not_private() -> None:
    """Three processes forked from one of 32 MiB, with 4 MiB of their own each."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        children = [memory.process_memory(int(process.stdout.readline())) for _ in range(3)]
        template = memory.process_memory(process.pid)
        process.communicate("xxx")
    for child in children:
        assert 4 << 20 <= child.private_bytes < 6 << 20
        assert child.pss_bytes > child.private_bytes + (7 << 20), "a quarter of the template"
    shared = shared_bytes(template, children[:2], 3)
    assert 32 << 20 < shared - template.file_bytes < 40 << 20, "the template, once"
    assert 1 << 20 < template.file_bytes < 32 << 20, "an interpreter"
    everything = sum(children, template)
    assert 44 << 20 < everything.pss_bytes < 60 << 20


def test_processor_time_of_a_busy_machine() -> None:
    before = cpu.read_cpus()
    spin = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", spin], check=True, timeout=60)
    spent = since(cpu.read_cpus(), before)
    assert cpu.total(spent).busy_ns >= 400_000_000, "booked by the tick, so a little may be missing"


def test_kernel_memory_is_plausible() -> None:
    now = memory.kernel_memory()
    assert now.slab_bytes > 1 << 20
    assert now.page_table_bytes > 0
    assert now.total_bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
