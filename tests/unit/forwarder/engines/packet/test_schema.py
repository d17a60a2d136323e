"""The shared arrays' columns: distinct, in range, and the figures that other modules rely on."""

from __future__ import annotations

import pytest

from forwarder.abi import af_packet as ap
from forwarder.engines.packet import rewrite, schema


@pytest.mark.parametrize(
    "prefix", ["FRAME", "BURST", "FLOW", "SOCKET", "CURSOR", "OUTPUT", "LINK", "ENTRY", "MSGHDR"]
)
def test_the_columns_of_an_array_are_numbered_without_gaps(prefix: str) -> None:
    not_columns = {f"{prefix}_COLUMNS", "OUTPUT_ABSENT", "FLOW_BUCKETS", "MSGHDR_BYTES"}
    columns = [
        value
        for name, value in vars(schema).items()
        if name.startswith(f"{prefix}_") and name not in not_columns
    ]
    assert sorted(columns) == list(range(getattr(schema, f"{prefix}_COLUMNS")))


def test_every_reason_and_every_flow_has_a_counter_of_its_own() -> None:
    names = (*schema.REASONS, *schema.FLOWS)
    assert len(set(names)) == len(names) == schema.COUNTERS
    assert [getattr(schema, name.upper()) for name in names] == list(range(schema.COUNTERS))
    assert not set(schema.INGRESS_REASONS) & set(schema.EGRESS_REASONS)


def test_the_journals_entries_fit_it() -> None:
    entries = [value for name, value in vars(schema).items() if name.startswith("JOURNAL_")]
    assert len(set(entries)) == len(entries)
    assert max(entries) < schema.JOURNAL


def test_a_batch_fits_the_arrays_made_for_it() -> None:
    assert schema.FLOW_BUCKETS >= 2 * schema.BATCH, "probing ends at an empty place"
    assert schema.ARENA_BYTES >= schema.MAX_PAYLOAD + 64
    assert schema.OVERSIZE_BYTES >= ap.NET_OFFSET + 65_535
    assert schema.OVERSIZE_BYTES % 4 == 0, "viewed as words too"
    assert schema.ENTRIES & (schema.ENTRIES - 1) == 0
    assert schema.COMPLETIONS >= schema.ENTRIES


def test_network_headers_stand_on_a_word() -> None:
    assert ap.NET_OFFSET % 4 == 0
    assert (ap.VNET_HDR_BYTES + 14) % 4 == 0
    assert rewrite.HEADER_BYTES <= 64
    assert schema.MAX_SEGMENTS <= 64  # UDP_MAX_SEGMENTS before Linux 6.9
