"""Interfaces that the lab did not make: taken for a run, given back as they were, whatever ends it.

The cables are veth pairs in a namespace that stands for the user's machine; the lab runs in it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_support.mcrd import eventually

from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.results import RunEnded, Trial, read_results

LAB = str(Path(sys.executable).with_name("mcastlab"))

SCENARIO = """
name = "cabled"
title = "One trial over existing interfaces"
subjects = ["mcrd"]
[[case]]
name = "1→1"
[[expect]]
case = "1→1"
dps = 5000
copies = 1
"""

WIRES = 'inputs = [["c0", "c1"]]\noutputs = [["c2", "c3"]]\n'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "cabled.toml").write_text(SCENARIO)
    (tmp_path / "wires.toml").write_text(WIRES)
    with netns.namespace("home") as name, Netlink(name) as netlink:
        for near, far in (("c0", "c1"), ("c2", "c3")):
            netlink.add_veth({"ifname": near, "mtu": 1700}, {"ifname": far, "mtu": 1700}, name)
        index = {link.get("ifname"): link["index"] for link in netlink.links()}
        netlink.set_features("c1", {"rx-gro": True})
        for one in ("c1", "c2"):
            netlink.set_up(index[one])
        netns.run(name, ["sh", "-c", f"echo 1 > {THREADED}; echo 1 > {STEERED}"])
        yield name
        netns.run(name, ["sh", "-c", f"echo 0 > {STEERED}"])


THREADED, STEERED = "/sys/class/net/c1/threaded", "/sys/class/net/c3/queues/rx-0/rps_cpus"


def assert_as_they_were(home: str) -> None:
    """All four are back, with what the user had switched on and off."""
    assert interfaces(home) == UNTOUCHED
    assert netns.run(home, ["cat", THREADED, STEERED]).split() == ["1", "1"]
    with Netlink(home) as netlink:
        gro = {name: netlink.features(name, ["rx-gro", "tx-udp-segmentation"]) for name in UNTOUCHED}
    assert {name: each["rx-gro"] for name, each in gro.items()} == {name: name == "c1" for name in UNTOUCHED}
    assert all(each["tx-udp-segmentation"] for each in gro.values())


def interfaces(home: str) -> dict[str, tuple[int, bool, str]]:
    """MTU, whether it is up, and alias of each of the user's interfaces."""
    with Netlink(home) as netlink:
        return {
            link.get("ifname"): (link.get("mtu"), bool(link["flags"] & 1), link.get("ifalias") or "")
            for link in netlink.links()
            if link.get("ifname") != "lo"
        }


def lab(home: str, *arguments: object) -> subprocess.Popen[str]:
    """``mcastlab`` in the user's network namespace, but in no mount namespace of its own: the names of the
    namespaces that it makes would go with that when it is killed."""
    command = ["nsenter", f"--net={netns.DIRECTORY / home}", LAB, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(home: str, tmp_path: Path) -> subprocess.Popen[str]:
    scenario, wires = tmp_path / "cabled.toml", tmp_path / "wires.toml"
    return lab(home, "run", scenario, "--wires", wires, "--out", tmp_path / "out")


UNTOUCHED = {name: (1700, name in ("c1", "c2"), "") for name in ("c0", "c1", "c2", "c3")}


def test_a_run_takes_them_and_gives_them_back(home: str, tmp_path: Path) -> None:
    process = run(home, tmp_path)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    records = list(read_results(tmp_path / "out" / "results.jsonl"))
    trials = [record for record in records if isinstance(record, Trial)]
    assert trials
    assert trials[-1].delivered > 0
    assert trials[-1].ledger.balanced
    assert [record.outcome for record in records if isinstance(record, RunEnded)] == ["passed"]
    assert_as_they_were(home)


def test_one_in_use_is_refused_and_nothing_is_touched(home: str, tmp_path: Path) -> None:
    with Netlink(home) as netlink:
        index = {link.get("ifname"): link["index"] for link in netlink.links()}["c3"]
        netlink.add_address(index, "192.0.2.1", 24)
    process = run(home, tmp_path)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "192.0.2.1" in said
    assert interfaces(home) == UNTOUCHED
    assert not (tmp_path / "out").exists()


@pytest.mark.serial
def test_a_killed_lab_s_are_given_back_by_clean(home: str, tmp_path: Path) -> None:
    process = run(home, tmp_path)

    def taken() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return not interfaces(home)

    eventually(taken, "all four are taken")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while netns.leftovers() and time.monotonic() < deadline:
        assert lab(home, "clean").wait(60) == 0
    assert_as_they_were(home)
