"""Namespaces and topologies made for real, and removed whatever happens."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_support.namespaces import own_names
from process_support import state_of

from lab.load.topology import Topology
from lab.netns import namespaces as netns
from lab.netns import ownership
from lab.netns.build import build
from lab.netns.clean import clean, remove_directories
from lab.netns.steering import NO_STEERING, write_steering

pytestmark = pytest.mark.serial  # leaves things behind and cleans them away: others do that, too


def test_a_namespace_is_entered_by_the_child_alone() -> None:
    own = network_of("self")
    with netns.namespace("enter") as name:
        with netns.spawn(name, ["sleep", "60"]) as process:
            await_program(process, "sleep")
            assert netns.processes(name) == [process.pid]
            assert network_of(process.pid) != own
            process.kill()
        assert netns.run(name, ["ls", "/sys/class/net"]).split() == ["lo"]
    assert network_of("self") == own


def test_a_failing_program_is_reported_with_its_own_words() -> None:
    with netns.namespace("fail") as name:
        with pytest.raises(netns.NetnsError, match=r"status 3: went wrong"):
            netns.run(name, ["sh", "-c", "echo went wrong >&2; exit 3"])
        with pytest.raises(netns.NetnsError, match=r"status 127: cannot start no-such-program"):
            netns.run(name, ["no-such-program"])
    with pytest.raises(netns.NetnsError, match=r"status 126: cannot enter network namespace mcl-none"):
        netns.run("mcl-none", ["true"])


def test_removal_kills_what_runs_inside() -> None:
    name = ownership.new_name("kill")
    netns.create(name)
    process = netns.spawn(name, [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    netns.remove(name)
    assert process.wait(5) == -signal.SIGKILL
    assert name not in netns.names()
    process.stdout.close()
    netns.remove(name)  # once more does nothing


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def test_interfaces_are_steered_as_before_when_they_go() -> None:
    """Whoever holds a namespace sees its interfaces as the lab left them: one that goes while packets are
    steered would leave the kernel looking for that at every frame, for ever."""
    with build(Topology(rps_cpus=(0,)), "steered") as lab:
        steered = netns.run(lab.fwd, ["sh", "-c", f"cat {RPS}"]).split()
        held = [(netns.DIRECTORY / name).open() for name in (lab.gen, lab.fwd, lab.rcv)]
    assert {int(mask, 16) for mask in steered} == {0, 1}, "an input is, loopback and outputs are not"
    reading = f"mount -t sysfs none /sys && cat {RPS}"
    inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{held[1].fileno()}", "unshare", "--mount"]
    masks = subprocess.run([*inside, "sh", "-c", reading], capture_output=True, text=True, check=True).stdout
    for file in held:
        file.close()
    assert len(masks.split()) == len(steered)
    assert {int(mask, 16) for mask in masks.split()} == {0}


def test_what_a_killed_lab_steered_is_steered_no_more() -> None:
    with build(Topology(rps_cpus=(0,)), "unsteered") as lab:
        write_steering(lab.fwd, NO_STEERING)
        masks = netns.run(lab.fwd, ["sh", "-c", f"cat {RPS}"]).split()
    assert {int(mask, 16) for mask in masks} == {0}


RPS = "/sys/class/net/*/queues/rx-*/rps_cpus"

LAB_THAT_IS_KILLED = """
import sys, time
from lab.netns.build import build
from lab.netns import namespaces as netns
from lab.load.topology import Topology
with build(Topology(), "killed") as lab:
    stray = netns.spawn(lab.rcv, ["sh", "-c", "echo; exec sleep 60"], outlive=True, stdout=-1)
    stray.stdout.readline()
    print(stray.pid, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_lab_leaves_is_found_and_cleaned() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAB_THAT_IS_KILLED], stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout
        stray = int(lab.stdout.readline())
        left = {name for name in netns.names() if f"-{lab.pid}-" in name}
        assert len(left) == 3
        assert not left & set(netns.leftovers()), "its maker still lives"
        lab.kill()
    assert left <= set(netns.leftovers())
    assert any(stray in netns.processes(name) for name in left), "a process told to outlive its lab is left"
    removed = {entry.namespace for entry in clean()}
    assert left <= removed
    assert not left & set(netns.names())
    assert ownership.start_time(stray) is None or state_of(stray) == "Z"


def test_several_clean_at_once_and_each_namespace_is_removed_by_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAB_THAT_IS_KILLED], stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout
        lab.stdout.readline()
        left = {name for name in netns.names() if f"-{lab.pid}-" in name}
        lab.kill()
    code = (
        "import sys; from lab.netns.clean import clean\n"
        "sys.stdin.read(); print(*(one.namespace for one in clean()))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    cleaners = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) for _ in range(4)]
    for cleaner in cleaners:
        assert cleaner.stdin
        cleaner.stdin.close()
    removed = [name for cleaner in cleaners if cleaner.stdout for name in cleaner.stdout.read().split()]
    assert [cleaner.wait() for cleaner in cleaners] == [0] * 4
    assert left <= set(removed)
    assert len(removed) == len(set(removed))
    assert not left & set(netns.names())


def test_temporary_directories_of_a_killed_lab_are_removed_and_of_a_living_one_are_not() -> None:
    code = (
        "import sys; from pathlib import Path; from tempfile import gettempdir\n"
        "from lab.netns import ownership\n"
        "own = ownership.scratch_directory('peer')\n"
        "named = Path(gettempdir()) / f'mcl-tree-of-{own.name}'; named.mkdir(); ownership.claim(named)\n"
        "print(own); print(named, flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as lab:
        assert lab.stdout
        made = {Path(lab.stdout.readline().strip()) for _ in range(2)}
        assert not made & set(remove_directories()), "their maker still lives"
        assert all(path.is_dir() for path in made)
        lab.kill()
    assert made <= set(remove_directories())
    assert not any(path.exists() for path in made)


def test_processes_die_with_their_lab() -> None:
    code = LAB_THAT_IS_KILLED.replace(", outlive=True", "")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout
        child = int(lab.stdout.readline())
        descriptor = os.pidfd_open(child)
        lab.kill()
    try:
        assert select.select([descriptor], [], [], 5)[0], "the child survived its lab"
    finally:
        os.close(descriptor)
        clean()


def test_a_name_that_exists_is_refused() -> None:
    with netns.namespace("twice") as name:
        with pytest.raises(netns.NetnsError, match="exists already"):
            netns.create(name)
        assert name in own_names()
    with pytest.raises(netns.NetnsError, match="label"):
        ownership.new_name("no/slash")


def test_a_topology_is_built_as_described(run_id: str) -> None:
    topology = Topology(inputs=2, outputs=3, mtu=9000, rps_cpus=(0,), igmp_max_memberships=7)
    with build(topology, run_id) as lab:
        for side in topology.sides:
            shown = netns.run(lab.namespace(side), ["ip", "-o", "addr"])
            for end in topology.ends(side):
                assert f"{end.interface}    inet {end.address}/24" in shown
            assert "inet6" not in shown
            links = netns.run(lab.namespace(side), ["ip", "-o", "link"]).splitlines()
            for end in topology.ends(side):
                (line,) = [line for line in links if f": {end.interface}@" in line]
                assert "mtu 9000" in line
                assert "state UP" in line
                assert end.mac in line
        assert int(netns.run(lab.fwd, ["cat", "/sys/class/net/in1/queues/rx-0/rps_cpus"]), 16) == 1
        assert int(netns.run(lab.fwd, ["cat", "/sys/class/net/out0/queues/rx-0/rps_cpus"]), 16) == 0
        assert netns.run(lab.fwd, ["cat", "/proc/sys/net/ipv4/igmp_max_memberships"]) == "7\n"
        assert netns.run(lab.fwd, ["cat", "/proc/sys/net/ipv4/conf/in0/rp_filter"]) == "0\n"
    assert [name for name in own_names() if run_id in name] == []


FEATURE = """
from pyroute2.ethtool.ioctl import IoctlEthtool
import sys
features = IoctlEthtool(sys.argv[1]).get_features()
print(features.is_active("tx-udp-segmentation"))
"""


@pytest.mark.parametrize(("egress", "segmentation"), [("wire-like", "False"), ("offload", "True")])
def test_segmentation_offload_is_as_asked_on_every_side(egress: str, segmentation: str, run_id: str) -> None:
    topology = Topology(egress=egress)  # type: ignore[arg-type]
    with build(topology, run_id) as lab:
        for side in topology.sides:
            for end in topology.ends(side):
                shown = netns.run(lab.namespace(side), [sys.executable, "-c", FEATURE, end.interface])
                assert shown.strip() == segmentation


def test_a_lab_that_fails_in_its_block_is_removed(run_id: str) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), build(Topology(), run_id) as lab:
        fail_with_a_process_in(lab.gen)
    assert [name for name in own_names() if run_id in name] == []


def test_a_setting_that_does_not_take_fails_the_build(run_id: str) -> None:
    """CPUs that the machine does not have cannot be steered to."""
    with (
        pytest.raises(netns.NetnsError, match="rps_cpus: cannot write"),
        build(Topology(rps_cpus=(1_000_000,)), run_id),
    ):
        pytest.fail("the lab was built all the same")
    assert [name for name in own_names() if run_id in name] == []


def await_program(process: subprocess.Popen[bytes], name: str) -> None:
    """The launcher becomes the program by exec: wait for that."""
    while process.poll() is None:
        if Path(f"/proc/{process.pid}/comm").read_text().strip() == name:
            return
    pytest.fail(f"{name} ended with status {process.returncode}")


def network_of(pid: int | str) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def fail_with_a_process_in(name: str) -> None:
    netns.spawn(name, ["sleep", "60"])
    raise RuntimeError("on purpose")
