"""In which order a sender's streams take turns. Pure: arrays of stream numbers, no frames.

A stream with a share of ``n`` comes ``n`` times in a turn, as evenly spread as can be: what one stream or
interface gets more of than another must not come in lumps.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def order(shares: Sequence[int], least: int = 1) -> Integers:
    """The streams' numbers, datagram by datagram: whole turns, as many as make ``least`` datagrams or more.

    ``shares``: datagrams of each stream in a turn, at least one.
    """
    of_share = Counter(shares)
    met: Counter[int] = Counter()
    positions: list[float] = []
    streams: list[int] = []
    for stream, share in enumerate(shares):
        phase = (met[share] + 0.5) / of_share[share]
        met[share] += 1
        positions += [(k + phase) / share for k in range(share)]
        streams += [stream] * share
    turn = np.array(streams, np.int64)[np.argsort(np.array(positions), kind="stable")]
    return np.tile(turn, -(-least // len(turn)))


def sequences(streams: Integers) -> tuple[Integers, Integers]:
    """For each place in ``streams``: how many of its stream come before it, and how many there are in all."""
    first_to_last = np.argsort(streams, kind="stable")
    totals = np.bincount(streams)
    starts = np.zeros(len(totals), np.int64)
    np.cumsum(totals[:-1], out=starts[1:])
    before = np.empty(len(streams), np.int64)
    before[first_to_last] = np.arange(len(streams)) - starts[streams[first_to_last]]
    return before, totals[streams].astype(np.int64)


def per_stream(streams: Integers, sent: int) -> Integers:
    """How many of each stream are among the first ``sent``, ``streams`` being gone through over and over."""
    rounds, rest = divmod(sent, len(streams))
    totals = np.bincount(streams)
    return rounds * totals + np.bincount(streams[:rest], minlength=len(totals))
