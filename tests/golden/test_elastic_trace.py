"""A load that was measured, and the decisions it led to: the policy, replayed from the recording.

``elastic/ramp.json`` is what a forwarder told while it was offered 4,000, 22,000, 45,000, 22,000 and 4,000
datagrams/s for some seconds each: ``loads`` are nanoseconds, datagrams/s, fullest ring's share and losses of
full rings; ``changes`` are what it did then. To accept other decisions after reading them:
``GOLDEN_UPDATE=1 pytest tests/golden``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from forwarder.supervisor.scaling_policy import Limits, Load, replay

ELASTIC = Path(__file__).parent / "elastic"


def test_a_recorded_load_leads_to_the_decisions_that_it_led_to() -> None:
    recorded = json.loads((ELASTIC / "ramp.json").read_text())
    limits = Limits(**recorded["limits"])
    made = list(replay([Load(*load) for load in recorded["loads"]], limits))
    lines = [
        f"{load.at_ns / 1e9:6.2f} s  {decision.before} to {decision.after} workers: {decision.reason}\n"
        for load, decision in made
    ]
    file = ELASTIC / "ramp.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        file.write_text("".join(lines))
    assert "".join(lines) == file.read_text()
    assert [[decision.before, decision.after] for _, decision in made] == recorded["changes"]
