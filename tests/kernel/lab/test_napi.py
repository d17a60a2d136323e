"""NAPI threads of an interface: found by netlink, pinned, gone with the interface."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kernel_support.mcrd import eventually

from lab.netns import namespaces as netns
from lab.netns.napi import NapiSocket, pin
from lab.netns.netlink import Netlink

THREADED = "/sys/class/net/b/threaded"


def pair(near: str, *, napi: bool) -> int:
    """A pair of interfaces, a and b, that are up; returns the index of b."""
    with Netlink(near) as netlink:
        netlink.add_veth({"ifname": "a"}, {"ifname": "b"}, near)
        netlink.set_features("b", {"rx-gro": napi})
        index = {link.get("ifname"): link["index"] for link in netlink.links()}
        for name in ("a", "b"):
            netlink.set_up(index[name])
    return int(index["b"])


def test_a_thread_does_the_receive_work_of_an_interface_on_the_cpu_it_is_pinned_to() -> None:
    cpu = max(os.sched_getaffinity(0))
    with netns.namespace("napi") as name:
        index = pair(name, napi=True)
        with NapiSocket(name) as napi:
            assert napi.pids(index) == [], "softirq does it"
            netns.run(name, ["sh", "-c", f"echo 1 > {THREADED}"])
            (pid,) = napi.pids(index)
            pin([pid], "b", cpu, realtime=True)
        assert Path(f"/proc/{pid}/comm").read_text().startswith("napi/b-")
        assert os.sched_getaffinity(pid) == {cpu}
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "it goes with the interface")


def test_an_interface_without_threads_is_named() -> None:
    with netns.namespace("napi") as name:
        index = pair(name, napi=False)
        with NapiSocket(name) as napi, pytest.raises(netns.NetnsError, match=r"interface b .*no NAPI thread"):
            pin(napi.pids(index), "b", 0)
