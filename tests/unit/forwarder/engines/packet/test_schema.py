"""The shared arrays' columns: distinct, in range, and the figures that other modules rely on."""

from __future__ import annotations

import pytest

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import coalesce, rewrite, state
from forwarder.engines.packet import schema as layout


@pytest.mark.parametrize("prefix", ["FRAME", "SOCKET", "CURSOR", "OUTPUT", "LINK"])
def test_the_columns_of_an_array_are_numbered_without_gaps(prefix: str) -> None:
    not_columns = {f"{prefix}_COLUMNS", "OUTPUT_ABSENT"}
    columns = [
        value
        for name, value in vars(layout).items()
        if name.startswith(f"{prefix}_") and name not in not_columns
    ]
    assert sorted(columns) == list(range(getattr(layout, f"{prefix}_COLUMNS")))


def test_every_reason_and_every_flow_has_a_counter_of_its_own() -> None:
    names = (*layout.REASONS, *layout.FLOWS)
    assert len(set(names)) == len(names) == layout.COUNTERS
    assert [getattr(layout, name.upper()) for name in names] == list(range(layout.COUNTERS))
    assert not set(layout.INGRESS_REASONS) & set(layout.EGRESS_REASONS)


def test_the_journals_entries_fit_it() -> None:
    entries = [value for name, value in vars(layout).items() if name.startswith("JOURNAL_")]
    assert len(set(entries)) == len(entries)
    assert max(entries) < layout.JOURNAL


def test_a_batch_fits_the_arrays_made_for_it() -> None:
    assert state.FLOW_PLACES >= 2 * state.BATCH, "probing ends at an empty place"
    assert state.ARENA_BYTES >= coalesce.MAX_PAYLOAD + 64
    assert state.SIDE_BYTES >= ap.NET_OFFSET + 65_535
    assert state.SIDE_BYTES % 4 == 0, "viewed as words too"
    assert state.ENTRIES & (state.ENTRIES - 1) == 0
    assert state.COMPLETIONS >= state.ENTRIES


def test_network_headers_stand_on_a_word() -> None:
    assert ap.NET_OFFSET % 4 == 0
    assert (rewrite.HEADER_SHIFT + ap.VNET_HDR_BYTES + 14) % 4 == 0
    assert rewrite.HEADER_SHIFT + rewrite.HEADER_BYTES <= 64
    assert coalesce.MAX_SEGMENTS <= ap.UDP_MAX_SEGMENTS
