"""The transmit ring against the real kernel: what it sends, and what it does not."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from kernel_support import tx_ring_probe
from kernel_support.tx_ring_probe import OUTPUTS, datagram
from paths import TESTS

from forwarder.engines.packet import schema
from lab.netns import namespaces as netns


def forwarded(
    datagrams: int, payload_bytes: int = 64, *, rules: int = 1, down: bool = False, held: bool = False
) -> Any:
    with netns.namespace("txring") as name:
        request = {
            "namespace": name,
            "datagrams": datagrams,
            "payload_bytes": payload_bytes,
            "rules": rules,
            "down": down,
            "held": held,
        }
        answer = netns.run(
            name,
            [sys.executable, "-m", tx_ring_probe.__name__],
            input=json.dumps(request),
            cwd=TESTS,
            timeout_s=100,
        )
    return json.loads(answer)


def copies(output: int, datagrams: int, first_identification: int, payload_bytes: int = 64) -> list[str]:
    """What scapy makes of them, without the UDP checksum."""
    frames = [
        OUTPUTS[output].forwarded(datagram(number, payload_bytes), first_identification + number & 0xFFFF)
        for number in range(datagrams)
    ]
    return [(frame[:40] + frame[42:]).hex() for frame in frames]


def identification(frame: str) -> int:
    return int.from_bytes(bytes.fromhex(frame)[18:20], "big")


@pytest.mark.parametrize("payload_bytes", [4, 64, 252])
def test_bursts_of_short_datagrams_leave_through_the_ring_as_scapy_makes_them(payload_bytes: int) -> None:
    """Two batches of two full bursts, and a burst of 44: to each of two outputs."""
    seen = forwarded(300, payload_bytes)
    for number, left in enumerate(seen["left"]):
        assert left == copies(number, 300, identification(left[0]), payload_bytes)
    assert (seen["sent"], seen["sent_bytes"]) == (600, 600 * payload_bytes)
    assert seen["frames"] == 10
    assert seen["slots"] == 10 % schema.TX_SLOTS
    assert seen["reasons"] == {}


def test_an_interface_that_refuses_costs_its_own_copies_alone() -> None:
    seen = forwarded(128, down=True)
    assert len(seen["left"][0]) == 128
    assert seen["left"][1] == []
    assert (seen["sent"], seen["frames"]) == (128, 2)
    assert seen["reasons"] == {"transmit_refused": 128}
    assert seen["slots"] == 2, "those that were refused are free again"


def test_what_finds_no_free_slot_leaves_as_a_message() -> None:
    seen = forwarded(128, held=True)
    for number, left in enumerate(seen["left"]):
        assert left == copies(number, 128, identification(left[0]))
    assert (seen["sent"], seen["frames"], seen["slots"]) == (256, 4, 0)
    assert seen["reasons"] == {}


def test_bursts_of_several_rules_with_outputs_on_the_same_interfaces_go_together() -> None:
    """Sixteen bursts of eight in a batch, four at a time."""
    seen = forwarded(128, rules=16)
    for left in seen["left"]:
        numbers = [int.from_bytes(bytes.fromhex(frame)[40:44], "big") for frame in left]
        assert sorted(numbers) == list(range(128))
        for rule in range(16):
            of = [number for number in numbers if number % 16 == rule]
            assert of == sorted(of), "each flow in order"
    assert (seen["sent"], seen["frames"], seen["reasons"]) == (256, 32, {})
    assert seen["slots"] == 32 % schema.TX_SLOTS


def test_what_is_refused_is_its_own_rules() -> None:
    seen = forwarded(128, rules=16, down=True)
    assert seen["reasons"] == {"transmit_refused": 128}
    assert seen["unsent"] == [8] * 16


@pytest.mark.parametrize(("datagrams", "payload_bytes"), [(23, 64), (100, 260)])
def test_few_or_long_datagrams_do_not_use_it(datagrams: int, payload_bytes: int) -> None:
    seen = forwarded(datagrams, payload_bytes)
    assert [len(left) for left in seen["left"]] == [datagrams] * 2
    assert seen["slots"] == 0
