"""The host as read from a sysfs tree that the test lays out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.plan.host import Cpu, HostError, Interface, described_host, parse_cpu_list, read_host


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


TWO_NODES = {
    "devices/system/cpu/online": "0-2,4\n",
    "devices/system/node/node0/cpulist": "0-1\n",
    "devices/system/node/node1/cpulist": "2-5\n",
    "class/net/eth0/mtu": "1500\n",
    "class/net/eth0/operstate": "up\n",
    "class/net/eth0/flags": "0x1003\n",
    "class/net/eth0/device/numa_node": "1\n",
    "class/net/eth0/queues/rx-0/rps_cpus": "0\n",
    "class/net/eth0/queues/rx-1/rps_cpus": "0\n",
    "class/net/eth0/queues/tx-0/xps_cpus": "0\n",
    "class/net/veth1/mtu": "9000\n",
    "class/net/veth1/operstate": "lowerlayerdown\n",
    "class/net/veth1/flags": "0x1003\n",
    "class/net/tun0/mtu": "1400\n",
    "class/net/tun0/operstate": "unknown\n",
    "class/net/tun0/flags": "0x1002\n",
    "class/net/tun0/device/numa_node": "-1\n",
    "class/net/bonding_masters": "bond0\n",
}


def test_processors_nodes_and_interfaces_are_read(tmp_path: Path) -> None:
    host = read_host(lay_out(tmp_path, TWO_NODES))
    assert host.cpus == (Cpu(0, 0), Cpu(1, 0), Cpu(2, 1), Cpu(4, 1))
    assert host.nodes == (0, 1)
    assert host.interfaces == (
        Interface("eth0", 1500, node=1, up=True, rx_queues=2, physical=True),
        Interface("tun0", 1400, node=None, up=False, rx_queues=1, physical=True),
        Interface("veth1", 9000, node=None, up=False, rx_queues=1),
    )
    assert host.interface("veth1") == host.interfaces[2]
    assert host.interface("eth9") is None


def test_only_allowed_processors_are_offered(tmp_path: Path) -> None:
    root = lay_out(tmp_path, TWO_NODES)
    assert [cpu.cpu for cpu in read_host(root, {1, 4, 77}).cpus] == [1, 4]
    with pytest.raises(HostError, match="no CPU"):
        read_host(root, {77})


def test_a_machine_without_nodes_has_one(tmp_path: Path) -> None:
    host = read_host(lay_out(tmp_path, {"devices/system/cpu/online": "0-1\n"}))
    assert host.cpus == (Cpu(0, 0), Cpu(1, 0))
    assert host.interfaces == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [("devices/system/cpu/online", "0-x\n"), ("class/net/eth0/mtu", "big\n"), ("class/net/eth0/flags", "?")],
)
def test_nonsense_is_refused_naming_the_file(tmp_path: Path, name: str, text: str) -> None:
    root = lay_out(tmp_path, TWO_NODES | {name: text})
    with pytest.raises(HostError, match=name.rsplit("/", 1)[0]):
        read_host(root)


def test_no_sysfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="online"):
        read_host(tmp_path)


def test_this_machine_is_read() -> None:
    host = read_host()
    assert host.cpus
    assert host.interface("lo") is not None


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("\n", []), ("3", [3]), ("0-2,8,5-6\n", [0, 1, 2, 5, 6, 8])]
)
def test_cpu_lists(text: str, numbers: list[int]) -> None:
    assert parse_cpu_list(text) == numbers


def test_a_described_host_spreads_over_its_nodes() -> None:
    host = described_host(4, ["a", "b"], nodes=2, mtu=9000)
    assert [cpu.node for cpu in host.cpus] == [0, 0, 1, 1]
    assert [(i.name, i.node, i.mtu) for i in host.interfaces] == [("a", 0, 9000), ("b", 1, 9000)]
    assert [cpu.cpu for cpu in host.with_cpus(6).cpus] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENODEV, errno.ENOENT])
def test_an_interface_that_vanishes_while_it_is_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    read, glob = Path.read_text, Path.glob

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        if path.parent.name == "veth1":
            raise OSError(number, os.strerror(number))
        return read(path, *arguments, **options)

    def listed(path: Path, pattern: str) -> Iterator[Path]:
        if path.name == "veth1":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return iter(glob(path, pattern))

    root = lay_out(tmp_path, TWO_NODES)
    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(Path, "glob", listed)
    assert [interface.name for interface in read_host(root).interfaces] == ["eth0", "tun0"]
