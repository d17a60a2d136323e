"""What a trial's network looks like: pure description, no sockets. ``lab/netns/build.py`` makes it.

Three namespaces and one veth pair per input and per output::

    gen  g0 ──── in0  fwd  out0 ──── r0  rcv
         g1 ──── in1       out1 ──── r1
         10.10.i.1  .2     10.20.j.1 .2

``direct`` leaves the forwarder out (g0 ──── r0, as many inputs as outputs): what the generator and the
receivers do by themselves, which every other figure is measured against.
"""

from dataclasses import dataclass
from itertools import cycle
from typing import Literal

Side = Literal["gen", "fwd", "rcv"]
SIDES: tuple[Side, ...] = ("gen", "fwd", "rcv")
MAX_LINKS = 250
"""Per direction: the link's number is an octet of its addresses."""

SEGMENTATION = (
    "tx-udp-segmentation",
    "tx-gso-list",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "rx-gro",
    "rx-gro-list",
    "rx-udp-gro-forwarding",
)
"""Device features that let more than one datagram cross a link as one frame (names as ethtool -k shows them).

Checksum offload stays: every network card has it, and it does not change what a frame is."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link."""

    side: Side
    interface: str
    address: str
    mac: str
    prefix_length: int = 24


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair: datagrams enter at ``sender`` and leave at ``receiver``."""

    sender: End
    receiver: End


@dataclass(frozen=True, slots=True)
class Cable:
    """Two interfaces that exist already, connected with each other."""

    sender: str
    receiver: str


@dataclass(frozen=True, slots=True)
class Topology:
    """N inputs, M outputs, and what the kernel may do on the way.

    ``egress``: "wire-like" switches segmentation offload and GRO off on every interface, so each datagram is
    a frame of its own, as on a wire; "offload" leaves veth's defaults, which pass whole GSO frames across.
    ``rps_cpus``: Receive Packet Steering of the forwarder's inputs over these CPUs (empty: none).
    ``thread_cpus``: NAPI threads receive for the inputs, dealt to these CPUs in turn (empty: softirq does, on
    the sender's CPU); ``threads_first``: before everything else there. ``capture_cpus``: the same for the
    receivers, whose threads always go first.
    ``igmp_max_memberships``: groups that one socket may join in the forwarder's namespace; the kernel's
    default of 20 is kept so that what works here works on a stock machine. ``napi``: the inputs' receiving
    ends take XDP frames. For this and for NAPI threads GRO is on at a receiving end; UDP is not merged
    (``rx-udp-gro-forwarding`` is off).
    ``cables``: existing interfaces to take for each link, inputs first, instead of making veth pairs.
    """

    inputs: int = 1
    outputs: int = 1
    mtu: int = 1500
    egress: Literal["wire-like", "offload"] = "wire-like"
    direct: bool = False
    rps_cpus: tuple[int, ...] = ()
    thread_cpus: tuple[int, ...] = ()
    threads_first: bool = False
    capture_cpus: tuple[int, ...] = ()
    igmp_max_memberships: int = 20
    napi: bool = False
    cables: tuple[Cable, ...] = ()

    def __post_init__(self) -> None:
        problems = [
            f"{field} {value}: 1 to {MAX_LINKS} are allowed"
            for field, value in (("inputs", self.inputs), ("outputs", self.outputs))
            if not 1 <= value <= MAX_LINKS
        ]
        if not 68 <= self.mtu <= 65535:
            problems.append(f"mtu {self.mtu}: 68 to 65535 bytes are allowed")
        if self.egress not in ("wire-like", "offload"):
            problems.append(f"egress {self.egress!r}: 'wire-like' or 'offload' are allowed")
        if self.direct and self.inputs != self.outputs:
            problems.append(f"direct with {self.inputs} inputs and {self.outputs} outputs: must be equal")
        if self.cables and len(self.cables) != len(self.links):
            problems.append(f"{len(self.cables)} cables for {len(self.links)} links: as many are needed")
        if problems:
            raise ValueError("topology: " + "; ".join(problems))

    @property
    def sides(self) -> tuple[Side, ...]:
        return ("gen", "rcv") if self.direct else SIDES

    @property
    def input_links(self) -> tuple[Link, ...]:
        """Generator to forwarder; generator to receiver when ``direct``."""
        if self.direct:
            return tuple(Link(_end("gen", i), _end("rcv", i, 10)) for i in range(self.inputs))
        return tuple(Link(_end("gen", i), _end("fwd", i, 10)) for i in range(self.inputs))

    @property
    def output_links(self) -> tuple[Link, ...]:
        """Forwarder to receiver; the same as the inputs when ``direct``."""
        if self.direct:
            return self.input_links
        return tuple(Link(_end("fwd", j, 20), _end("rcv", j)) for j in range(self.outputs))

    @property
    def links(self) -> tuple[Link, ...]:
        return self.input_links if self.direct else self.input_links + self.output_links

    @property
    def threads(self) -> dict[Side, dict[str, int]]:
        """The CPU of each NAPI thread, by interface, of the sides that have some."""
        inputs = [link.receiver.interface for link in self.input_links]
        outputs = [link.receiver.interface for link in self.output_links]
        places: dict[Side, dict[str, int]] = {
            "fwd": {} if self.direct else dict(zip(inputs, cycle(self.thread_cpus), strict=False)),
            "rcv": dict(zip(outputs, cycle(self.capture_cpus), strict=False)),
        }
        return {side: threads for side, threads in places.items() if threads}

    def ends(self, side: Side) -> tuple[End, ...]:
        """The interfaces in one namespace."""
        return tuple(end for link in self.links for end in (link.sender, link.receiver) if end.side == side)


def _end(side: Side, number: int, network: int | None = None) -> End:
    """The end of link ``number`` in ``side``; ``network`` is the second octet, 10 an input, 20 an output."""
    role, host, default = {
        ("gen", None): ("g", 1, 10),
        ("fwd", 10): ("in", 2, 10),
        ("fwd", 20): ("out", 1, 20),
        ("rcv", None): ("r", 2, 20),
        ("rcv", 10): ("r", 2, 10),
    }[side, network]
    return End(
        side=side,
        interface=f"{role}{number}",
        address=f"10.{default}.{number}.{host}",
        # Locally administered unicast addresses, so that a frame's source can be told in a capture.
        mac=f"02:00:0a:{default:02x}:{number:02x}:{host:02x}",
    )
