"""Drops multicast that workers have taken before it reaches this machine's own network stack.

A packet socket gets a copy. The frame itself goes on into the stack, which looks for a local receiver: as the
supervisor has joined the groups, the stack sets up a route for each datagram (``ip_route_input_mc`` in
``net/ipv4/route.c``) and then drops it. This costs the receiving CPU about as much again as the copy.

A program at the interface's ingress runs after the packet sockets and before the stack (tcx; see
``__netif_receive_skb_core`` in ``net/core/dev.c``) and drops IPv4 UDP multicast. Everything else passes,
including IGMP, groups of the local network (224.0.0.0/24), and tagged frames, which belong to another
interface. It is optional, because other programs on this machine no longer receive multicast from the
interface.
"""

import os
from typing import Final

from forwarder.abi import bpf
from forwarder.abi.bpf import Instruction

_ETHERTYPE, _PROTOCOL, _DESTINATION = 12, 23, 30
"""Offsets in the frame."""
_IPV4, _UDP, _MULTICAST, _LOCAL_NETWORK = 0x0800, 17, 0xE, 0xE00000

_PROGRAM: Final = (
    Instruction(bpf.MOV_X, destination=6, source=1),
    Instruction(bpf.LDX_W, destination=2, source=6, offset=bpf.SKB_VLAN_PRESENT),
    Instruction(bpf.JNE_K, destination=2, immediate=0, offset=13),
    Instruction(bpf.LD_ABS_H, immediate=_ETHERTYPE),
    Instruction(bpf.JNE_K, destination=0, immediate=_IPV4, offset=11),
    Instruction(bpf.LD_ABS_B, immediate=_PROTOCOL),
    Instruction(bpf.JNE_K, destination=0, immediate=_UDP, offset=9),
    Instruction(bpf.LD_ABS_W, immediate=_DESTINATION),
    Instruction(bpf.MOV_X, destination=7, source=0),
    Instruction(bpf.RSH_K, destination=7, immediate=28),
    Instruction(bpf.JNE_K, destination=7, immediate=_MULTICAST, offset=5),
    Instruction(bpf.MOV_X, destination=7, source=0),
    Instruction(bpf.RSH_K, destination=7, immediate=8),
    Instruction(bpf.JEQ_K, destination=7, immediate=_LOCAL_NETWORK, offset=2),
    Instruction(bpf.MOV_K, destination=0, immediate=bpf.TCX_DROP),
    Instruction(bpf.EXIT),
    Instruction(bpf.MOV_K, destination=0, immediate=bpf.TCX_NEXT),
    Instruction(bpf.EXIT),
)


class HostStack:
    """The interfaces with that program."""

    def __init__(self) -> None:
        self._program: int | None = None
        self._links: dict[str, int] = {}

    def skip(self, interface: str, ifindex: int) -> None:
        """Attach the program to an interface. Raises OSError: the kernel cannot do that."""
        try:
            if self._program is None:
                self._program = bpf.load(_PROGRAM, "mcrd_taken")
            link = bpf.attach_ingress(self._program, ifindex)
        except OSError as error:
            needs = "--skip-host-stack needs Linux 6.6, CAP_BPF and CAP_NET_ADMIN"
            raise OSError(error.errno, f"{error.strerror} on {interface}: {needs}") from error
        self.resume(interface)
        self._links[interface] = link

    def resume(self, interface: str) -> None:
        """Detach the program from an interface, where it is attached."""
        link = self._links.pop(interface, None)
        if link is not None:
            os.close(link)

    def close(self) -> None:
        for interface in list(self._links):
            self.resume(interface)
        if self._program is not None:
            os.close(self._program)
            self._program = None
