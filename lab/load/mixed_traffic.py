"""Unicast beside multicast in one load: which streams, and how many datagrams of each. Pure.

Of each hundred datagrams ``unicast_percent`` are unicast, addressed to the receivers in turn, one stream for
each output. They enter by the same input, between those of the multicast streams, and the kernel routes them:
no subject here forwards unicast, but each shares the machine with those that do.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address
from math import gcd

from lab.load.jobs import Stream
from lab.load.topology import Topology
from lab.results import Setting

LARGEST_SHARE = 1024
"""Largest share of a stream in a turn (:class:`lab.load.jobs.Stream`)."""
MOST_PERCENT = 95


def shares(unicast_percent: int, flows: int, outputs: int) -> tuple[int, int]:
    """Datagrams in each turn of a multicast stream, of which there are ``flows``, and of a unicast one.

    Of the latter there are ``outputs``. The ratio is exact; the second is 0 without unicast.
    """
    multicast, unicast = outputs * (100 - unicast_percent), flows * unicast_percent
    common = gcd(multicast, unicast)
    return multicast // common, unicast // common


def unicast_streams(setting: Setting, model: Stream) -> list[Stream]:
    """One for each output, like ``model`` but for their destination; their ids follow the multicast ones."""
    if not setting.unicast_percent:
        return []
    topology = Topology(inputs=setting.inputs, outputs=setting.outputs)
    share = shares(setting.unicast_percent, setting.flows, setting.outputs)[1]
    router = topology.input_links[0].receiver.mac
    return [
        Stream(
            stream_id=setting.flows + number,
            group=IPv4Address(link.receiver.address),
            port=model.port,
            source=model.source,
            source_port=model.source_port,
            share=share,
            mac=router,
        )
        for number, link in enumerate(topology.output_links)
    ]


def with_unicast(multicast_dps: int, unicast_percent: int) -> int:
    """The rate of the whole load in which multicast has this one."""
    return round(multicast_dps * 100 / (100 - unicast_percent))


def is_unicast(stream_id: int, setting: Setting) -> bool:
    return stream_id >= setting.flows


def output_of(stream_id: int, setting: Setting) -> int:
    """The number of the output that a unicast stream leaves by."""
    return stream_id - setting.flows


def due(setting: Setting, per_stream: Sequence[int], copies: int) -> int:
    """Copies that are due: ``copies`` of each multicast datagram, one of each unicast datagram.

    ``per_stream``: datagrams offered, by stream id.
    """
    multicast, unicast = sum(per_stream[: setting.flows]), sum(per_stream[setting.flows :])
    return multicast * copies + unicast
