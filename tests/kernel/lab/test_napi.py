"""NAPI threads of an interface: found by netlink, pinned, gone with the interface."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kernel_support.mcrd import eventually
from kernel_support.wires import Wiring

from lab.load.flows import Request
from lab.netns import namespaces as netns
from lab.netns import napi as napi_module
from lab.netns.napi import NapiSocket, pin
from lab.netns.netlink import Netlink
from lab.netns.steering import RPS, Threads
from lab.results import Setting
from lab.trial.bench import bench
from lab.trial.plan import BenchPlan, divide

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


def masks(namespace: str, interface: str) -> set[int]:
    return {
        int(text, 16) for text in netns.run(namespace, ["sh", "-c", f"cat {RPS.format(interface)}"]).split()
    }


def test_where_an_interface_has_no_napi_packets_are_steered_and_one_sentence_says_so(wires: Wiring) -> None:
    """A bridge has none; its name is in the sentence, and what was written is taken back."""
    with netns.namespace("napi-none") as name, Netlink(name) as netlink, wires.bridge(name, "b"):
        received = Threads(netlink, name, {"b": 0}, first=True)
        assert received.instead is not None
        assert received.instead.startswith("no NAPI threads for b (")
        assert received.instead.endswith("packet steering receives instead, on CPUs of the same side")
        assert "\n" not in received.instead
        assert masks(name, "b") == {1}
        assert received.lost() == []
        received.stop()
        assert masks(name, "b") == {0}


def test_one_thread_that_cannot_be_had_leaves_none(wires: Wiring) -> None:
    with netns.namespace("napi-two") as name, Netlink(name) as netlink, wires.bridge(name, "c"):
        pair(name, napi=True)
        received = Threads(netlink, name, {"b": 0, "c": 0}, first=False)
        assert received.instead is not None
        assert netns.run(name, ["cat", THREADED]).strip() == "0"
        assert masks(name, "b") == masks(name, "c") == {1}
        received.stop()


@pytest.mark.serial
def test_a_kernel_that_does_not_name_its_threads_still_measures(
    monkeypatch: pytest.MonkeyPatch, run_id: str
) -> None:
    """The kernel is asked for a netlink family that it does not have, as one before 6.7 would be."""
    monkeypatch.setattr(napi_module, "FAMILY", "netdev-none")
    plan = BenchPlan("kernel", Setting(payload_bytes=64), 1500, divide(os.sched_getaffinity(0)))
    with bench(plan, run_id) as ready:
        trial = ready.measure(Request("t", "s", "c", plan.setting, "fixed", 2000, 0.2))
        steered = masks(ready.lab.fwd, "in0")
    assert trial.delivered > 0
    assert trial.ledger.balanced
    assert steered == {1 << plan.cpus.forwarder[-1]}
    (said,) = [text for text in trial.warnings if "no NAPI threads for in0" in text]
    assert "netdev-none" in said


@pytest.mark.serial
def test_a_thread_that_goes_away_marks_its_trial_and_is_back_for_the_next(run_id: str) -> None:
    plan = BenchPlan("kernel", Setting(payload_bytes=64), 1500, divide(os.sched_getaffinity(0)))
    request = Request("t", "s", "c", plan.setting, "fixed", 2000, 0.2)
    sentence = "NAPI threads went away during the trial: in0"
    with bench(plan, run_id) as ready:
        switch_off = ["sh", "-c", f"echo 0 > {THREADED.replace('/b/', '/in0/')}"]
        gone = ready.measure(request, lambda: print(netns.run(ready.lab.fwd, switch_off)))
        after = ready.measure(request)
    assert sentence in gone.warnings
    assert gone.validity != "valid"
    assert sentence not in after.warnings
