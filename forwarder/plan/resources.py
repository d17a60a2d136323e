"""The arithmetic of a plan: which CPUs, which place in a fanout group, how large a ring."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.plan.host import Cpu

RING_BUDGET_BYTES = 256 * 2**20
LEAST_FRAMES, MOST_FRAMES = 64, 32_768

# What a TPACKET_V2 frame holds before the IP packet (net/packet/af_packet.c, tpacket_rcv): 96 bytes, see
# forwarder/abi/af_packet.py. Four bytes more for a VLAN tag that the device left in place.
_FRAME_OVERHEAD_BYTES = 96 + 4


@dataclass(frozen=True)
class RingPlan:
    """A ring: ``frames`` (a power of two) of ``frame_bytes`` (a power of two, at least 128) each."""

    frame_bytes: int
    frames: int

    @property
    def ring_bytes(self) -> int:
        return self.frame_bytes * self.frames


TX_RING = RingPlan(16_384, 4)
"""A worker's transmit ring, whatever its interfaces are."""


def frame_bytes(mtu: int) -> int:
    """The smallest power of two that holds any datagram of an interface of this MTU with its headers."""
    return 1 << (mtu + _FRAME_OVERHEAD_BYTES - 1).bit_length()


def ring_for(mtu: int, sockets: int, budget_bytes: int, frames: int | None = None) -> RingPlan:
    """One socket's ring when ``sockets`` share the budget; ``frames`` overrides the budget."""
    size = frame_bytes(mtu)
    if frames is None:
        affordable = budget_bytes // sockets // size
        frames = min(MOST_FRAMES, max(LEAST_FRAMES, 1 << max(0, affordable.bit_length() - 1)))
    return RingPlan(size, frames)


def pick_cpus(cpus: Sequence[Cpu], load: Counter[int], count: int, node: int | None) -> list[Cpu]:
    """CPUs for a group's ``count`` workers, in order of number, and counted in ``load`` (workers by CPU).

    The least loaded come first, of those the ones on the least loaded cores, so that no core gets a second
    worker while another has none, and of those the ones on ``node``; with more workers than CPUs, all again.
    """
    busy = Counter({cpu.core: 0 for cpu in cpus})
    for cpu in cpus:
        busy[cpu.core] += load[cpu.cpu]
    equals: Counter[tuple[int | None, int]] = Counter()
    rank = {}
    for cpu in sorted(cpus, key=lambda cpu: cpu.cpu):
        # The second idle thread of a core is as good as a thread of a core with one worker more.
        before = equals[cpu.core, load[cpu.cpu]]
        equals[cpu.core, load[cpu.cpu]] += 1
        shared = 0 if cpu.core is None else busy[cpu.core] - load[cpu.cpu] + before
        rank[cpu.cpu] = (load[cpu.cpu], shared, node is not None and cpu.node != node, cpu.cpu)
    ranked = sorted(cpus, key=lambda cpu: rank[cpu.cpu])
    picked = [ranked[place % len(ranked)] for place in range(count)]
    load.update(cpu.cpu for cpu in picked)
    whole = count - count % len(ranked)
    return sorted(picked[:whole], key=lambda cpu: cpu.cpu) + sorted(picked[whole:], key=lambda cpu: cpu.cpu)


def cpu_slots(cpus: Sequence[int]) -> list[int]:
    """For workers on ``cpus``, the place of each in the order of joining a PACKET_FANOUT_CPU group.

    The kernel gives a datagram received on CPU c to member ``c % members``, so the worker on CPU c should be
    member ``c % members``; where two want one place, the later takes one that is left over.
    """
    wanted = [cpu % len(cpus) for cpu in cpus]
    first = {slot: place for place, slot in reversed(list(enumerate(wanted)))}
    spare = iter(slot for slot in range(len(cpus)) if slot not in first)
    return [slot if first[slot] == place else next(spare) for place, slot in enumerate(wanted)]


def shares(total: int, parts: int) -> list[int]:
    """``total`` divided into ``parts`` as evenly as can be, at least 1 each, the larger ones first."""
    return [max(1, total // parts + (place < total % parts)) for place in range(parts)]
