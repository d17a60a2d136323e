"""The kernel steers every frame to the worker that the placement hash names, whichever way it is asked to."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest
from kernel_support import planned_probe, steering_probe
from scapy.layers.inet import IP, UDP, IPOption
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from forwarder.plan.placement import MAX_MEMBERS, owner
from forwarder.plan.strategy import Hashing
from lab.netns import namespaces as netns

ETHERNET = Ether(dst="01:00:5e:00:00:01", src="02:00:00:00:00:01")


def destinations(count: int) -> list[tuple[int, int]]:
    chance = random.Random(count)
    return [(chance.randint(0xE000_0000, 0xEFFF_FFFF), chance.randint(1, 65535)) for _ in range(count)]


def datagram(group: int, port: int, number: int) -> bytes:
    """A scapy-made datagram; every fourth one has IP options."""
    some_options = [IPOption(b"\x01" * 4 * (number % 40 // 4 + 1))] if number % 4 == 0 else []
    layers = IP(src="10.0.0.1", dst=dotted(group), ttl=8, options=some_options) / UDP(sport=4000, dport=port)
    return bytes(
        Ether(dst="01:00:5e:00:00:01", src="02:00:00:00:00:01") / layers / Raw(bytes([number & 255]))
    )


def dotted(group: int) -> str:
    return ".".join(map(str, group.to_bytes(4, "big")))


def steered(how: str, members: int, hashing: Hashing, frames: list[bytes]) -> list[list[int]]:
    request = {"how": how, "members": members, "hashing": hashing, "frames": [f.hex() for f in frames]}
    with netns.namespace("steering") as name:
        answer = netns.run(name, [sys.executable, steering_probe.__file__], input=json.dumps(request))
    found: list[list[int]] = json.loads(answer)
    return found


@pytest.mark.parametrize("how", ["fanout", "filter"])
@pytest.mark.parametrize("hashing", Hashing)
@pytest.mark.parametrize("members", [2, 3, 24, MAX_MEMBERS])
def test_each_datagram_goes_to_its_owner_alone(how: str, members: int, hashing: Hashing) -> None:
    keys = destinations(400)
    frames = [datagram(group, port, number) for number, (group, port) in enumerate(keys)]
    assert steered(how, members, hashing, frames) == [
        [owner(group, port, members, hashing)] for group, port in keys
    ]


@pytest.mark.parametrize("members", [2, 5])
def test_the_receiving_cpus_are_looked_up(members: int) -> None:
    """In descending order, so that their numbers modulo the members would be wrong."""
    cpus = sorted(os.sched_getaffinity(0), reverse=True)
    frames = [datagram(0xEF010101, 5001, 1)] * 20
    request = {
        "how": "cpus",
        "members": members,
        "hashing": Hashing.MODULO,
        "frames": [frame.hex() for frame in frames],
        "cpus": cpus,
    }
    with netns.namespace("steering") as name:
        answer = netns.run(name, [sys.executable, steering_probe.__file__], input=json.dumps(request))
    assert json.loads(answer) == [[number % len(cpus) % members] for number in range(len(frames))]


def test_a_planned_group_looks_its_cpus_up() -> None:
    """CPUs 0 and 2 are both 0 modulo two workers: a program steers, by which CPU 1 is the second's."""
    with netns.namespace("steering") as name:
        answer = netns.run(
            name,
            [sys.executable, "-m", planned_probe.__name__],
            env={**os.environ, "PYTHONPATH": str(Path(planned_probe.__file__).parent.parent)},
        )
    sent_from = sorted(os.sched_getaffinity(0) & {0, 1, 2})
    second = {0: 0, 1: 10, 2: 10}
    assert json.loads(answer) == [[cpu, 10 - second[cpu], second[cpu]] for cpu in sent_from]


@pytest.mark.parametrize("how", ["fanout", "filter"])
def test_what_is_no_datagram_goes_to_one_worker_too(how: str) -> None:
    """That worker counts it, with its reason: nobody counts it twice, and it does not vanish."""
    whole = datagram(0xEF010101, 5001, 1)
    frames = [
        bytes(ETHERNET / ARP()),
        bytes(ETHERNET / IPv6(dst="ff02::1") / UDP(dport=5001)),
        *(whole[:length] for length in range(14, len(whole))),
    ]
    found = steered(how, 5, Hashing.RENDEZVOUS, frames)
    assert [len(members) for members in found] == [1] * len(frames)
