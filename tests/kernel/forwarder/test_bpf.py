"""Maps, programs and attachments as the kernel has them."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from forwarder.abi import bpf, bpf_maps
from forwarder.abi.bpf import Instruction
from forwarder.abi.bpf_maps import Map
from lab.netns import namespaces as netns

Maker = Callable[..., Map]
PASS = (Instruction(bpf.MOV_K, 0, immediate=bpf.XDP_PASS), Instruction(bpf.EXIT))


@pytest.fixture
def make() -> Iterator[Maker]:
    with ExitStack() as stack:

        def made(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> Map:
            fd = bpf.create_map(kind, key_bytes, value_bytes, entries, flags=flags, name="test")
            stack.callback(os.close, fd)
            return Map(fd)

        yield made


def test_a_hash_gives_back_what_it_was_given_and_says_when_it_is_full(make: Maker) -> None:
    table = make(bpf_maps.BPF_MAP_TYPE_HASH, 4, 12, 3)
    assert (table.name, table.entries, table.key_bytes, table.value_bytes) == ("test", 3, 4, 12)
    table.update_many(np.array([7, 9], np.uint32), np.frombuffer(b"a" * 12 + b"b" * 12, "S12"))
    table.update((11).to_bytes(4, "little"), b"c" * 12)
    assert table.lookup((9).to_bytes(4, "little")) == b"b" * 12
    assert {int.from_bytes(key, "little") for key in table} == {7, 9, 11}
    with pytest.raises(OSError, match="map test") as full:
        table.update((12).to_bytes(4, "little"), bytes(12))
    assert full.value.errno == errno.E2BIG
    assert table.delete((7).to_bytes(4, "little"))
    assert not table.delete((7).to_bytes(4, "little"))
    assert table.lookup((7).to_bytes(4, "little")) is None


def test_a_map_for_each_cpu_has_a_value_for_each(make: Maker) -> None:
    counts = make(bpf_maps.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 12, 5)
    cpus = bpf_maps.possible_cpus()
    entry = np.dtype([("first", np.uint64), ("second", np.uint32)])
    padded = np.zeros((5, cpus, 16), np.uint8)
    for row, cpu in np.ndindex(5, cpus):
        padded[row, cpu, :8] = np.frombuffer((row * 100 + cpu).to_bytes(8, "little"), np.uint8)
        padded[row, cpu, 8:12] = np.frombuffer(row.to_bytes(4, "little"), np.uint8)
        counts.update(row.to_bytes(4, "little"), padded[row].tobytes())
    read = counts.read_array(entry)
    assert read.shape == (5, cpus)
    assert (read["first"] == np.arange(5)[:, None] * 100 + np.arange(cpus)).all()
    assert read["second"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (counts.read_array(entry, 2) == read[:2]).all()
    assert (counts.per_cpu((3).to_bytes(4, "little"), entry) == read[3]).all()


def test_a_program_runs_on_a_frame() -> None:
    program = bpf.load(PASS, "pass", bpf.BPF_PROG_TYPE_XDP)
    try:
        assert bpf.run_on_frame(program, b"x" * 60)[:2] == (bpf.XDP_PASS, b"x" * 60)
        with pytest.raises(OSError, match="Invalid"):
            bpf.run_on_frame(program, b"x" * 13)
        # The loopback device has no XDP of its own, and none in the stack instead is wanted.
        with pytest.raises(OSError, match="not supported"):
            bpf.attach_xdp(program, 1)
    finally:
        os.close(program)


ATTACH = """
import os, socket, subprocess
from forwarder.abi import bpf
from forwarder.abi.bpf import Instruction
run = lambda command: subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
shown = lambda: run("ip link show v0")
run("ip link add v0 type veth peer name v1")
index = socket.if_nametoindex("v0")
code = (Instruction(bpf.MOV_K, 0, immediate=2), Instruction(bpf.EXIT))
program = bpf.load(code, "pass", bpf.BPF_PROG_TYPE_XDP)
link = bpf.attach_xdp(program, index)
assert " xdp " in shown() and "xdpgeneric" not in shown(), shown()
try:
    bpf.attach_xdp(program, index)
except OSError as error:
    assert error.errno == 16, error
else:
    raise AssertionError("attached twice")
if os.fork() == 0:
    os.kill(os.getpid(), 9)  # a copy of the descriptor goes, not the link
os.wait()
assert " xdp " in shown()
os.close(link)
assert " xdp " not in shown(), shown()
"""


def test_an_attachment_is_in_the_driver_and_goes_with_its_descriptor() -> None:
    with netns.namespace("bpf") as name:
        netns.run(name, [sys.executable, "-c", ATTACH])
