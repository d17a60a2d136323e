"""The pure description of a lab's network."""

from __future__ import annotations

import pytest

from lab.load.topology import Topology
from lab.netns.steering import cpu_mask


def test_links_lead_from_generator_through_forwarder_to_receivers() -> None:
    topology = Topology(inputs=2, outputs=3)
    names = [(link.sender.interface, link.receiver.interface) for link in topology.links]
    assert names == [("g0", "in0"), ("g1", "in1"), ("out0", "r0"), ("out1", "r1"), ("out2", "r2")]
    first, last = topology.input_links[1], topology.output_links[2]
    assert (first.sender.address, first.receiver.address) == ("10.10.1.1", "10.10.1.2")
    assert (last.sender.address, last.receiver.address) == ("10.20.2.1", "10.20.2.2")
    assert [end.interface for end in topology.ends("fwd")] == ["in0", "in1", "out0", "out1", "out2"]


def test_a_direct_topology_has_no_forwarder() -> None:
    topology = Topology(direct=True)
    assert topology.sides == ("gen", "rcv")
    assert topology.ends("fwd") == ()
    assert topology.input_links == topology.output_links == topology.links
    assert topology.links[0].sender.interface == "g0"
    assert topology.links[0].receiver.interface == "r0"


@pytest.mark.parametrize("count", [1, 7, 250])
def test_addresses_and_macs_are_unique(count: int) -> None:
    ends = [
        end for link in Topology(inputs=count, outputs=count).links for end in (link.sender, link.receiver)
    ]
    assert len({end.address for end in ends}) == len(ends)
    assert len({end.mac for end in ends}) == len(ends)
    assert len({(end.side, end.interface) for end in ends}) == len(ends)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ValueError, match=r"inputs 0.*outputs 251.*mtu 20.*'wireless'"):
        Topology(inputs=0, outputs=251, mtu=20, egress="wireless")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="direct with 1 inputs and 2 outputs"):
        Topology(outputs=2, direct=True)


@pytest.mark.parametrize(
    ("cpus", "mask"),
    [
        ((0,), "00000001"),
        ((0, 1), "00000003"),
        ((31, 32), "00000001,80000000"),
        ((95,), "80000000,00000000,00000000"),
    ],
)
def test_cpu_mask_is_written_as_the_kernel_reads_it(cpus: tuple[int, ...], mask: str) -> None:
    assert cpu_mask(cpus) == mask
