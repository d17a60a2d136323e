"""What an interface's alias remembers of it while it is lent."""

from __future__ import annotations

import json

from lab.load.topology import SEGMENTATION
from lab.netns.lend import ALIAS, ALIAS_BYTES, Own

FEATURES = "1" * len(SEGMENTATION)


def test_what_is_remembered_comes_back() -> None:
    own = Own('et"h1', 9000, True, FEATURES, "1", {"rx-0": "3", "rx-12": "ff,00000000"})
    assert Own(**json.loads(own.alias)) == own
    assert list(own.files("in0").items()) == [
        ("/sys/class/net/in0/queues/rx-*/rps_cpus", "0"),
        ("/sys/class/net/in0/threaded", "1"),
        ("/sys/class/net/in0/queues/rx-0/rps_cpus", "3"),
        ("/sys/class/net/in0/queues/rx-12/rps_cpus", "ff,00000000"),
    ]


def test_an_alias_that_would_be_too_long_leaves_packet_steering_out() -> None:
    own = Own("eth1", 9000, False, FEATURES, "0", {f"rx-{queue}": "ffffffff,ffffffff" for queue in range(64)})
    assert len(ALIAS + own.alias) <= ALIAS_BYTES
    assert Own(**json.loads(own.alias)) == Own("eth1", 9000, False, FEATURES, "0")


def test_what_is_not_known_yet_is_left_alone() -> None:
    assert Own("eth1", 9000, False, FEATURES).files("in0") == {}
